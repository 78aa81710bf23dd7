"""What can be told of a plan before anybody is asked: signal, bytes, time and memory, from its public numbers alone.

Each figure is a bound, and says of what: what a study is worth only a simulation tells (`sfumato simulate`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from sfumato_common.accounting.events import SampledGaussian
from sfumato_common.count_text import count_text
from sfumato_common.exchanges import EXCHANGES
from sfumato_common.generators.settings import white_form
from sfumato_common.generators.spectral.settings import SpectralStage
from sfumato_common.study.plan import Plan
from sfumato_common.study.policy import DEFAULT_ANSWER_INTERVAL_S
from sfumato_common.study.release import Grouped, LinearWalk
from sfumato_common.types import Schema

# fewer images than this of a site are hardly a set
_FEW_IMAGES = 10
# Adam keeps a weight's gradient and two moments beside it
_ADAM = 4


@dataclass(frozen=True)
class Foresight:
    """One thing that is foreseen: `poor` where the plan will hardly give what it is made for."""

    about: Literal["signal", "release", "bytes", "time", "memory"]
    state: Literal["good", "poor"]
    said: str


def foresee(plan: Plan) -> list[Foresight]:
    """All that a plan's public numbers tell, signal first."""
    return [*_signal(plan), *_trained(plan), *_groups(plan), *_bytes(plan), *_time(plan), *_memory(plan)]


def _signal(plan: Plan) -> Iterator[Foresight]:
    """How far the means of the first stage can stand out of their noise."""
    if not plan.private or not plan.sites:
        return
    stage, labels = plan.stages[0], len(plan.labels)
    # of all stages that come first, spectral alone releases fewer numbers than flows would learn
    band = stage.bandwidth**2 * plan.image.channels if isinstance(stage, SpectralStage) else None
    numbers = band or white_form(plan).numbers
    sites = len(plan.sites)
    patients = sum(terms.nominal_patients for terms in plan.sites.values())
    # sites' noises add up; under secure sums they are shares of one
    noise = stage.noise_multiplier * math.sqrt(numbers * (1 if plan.secure_sum else sites))
    ratio = patients / labels / noise
    state: Literal["good", "poor"] = "poor" if ratio < 1.0 else "good"
    said = (
        f"stage '{stage.kind}': of all {patients:,} nominal patients the sum of a label's {numbers:,} features is at "
        f"most {ratio:.2g} times as long as its noise (multiplier {stage.noise_multiplier:g}, labels alike in number)"
    )
    if state == "poor":
        said += (
            ": the noise is longer than any patients could make the signal; ask for more patients or a larger epsilon"
        )
    yield Foresight("signal", state, said)


def _trained(plan: Plan) -> Iterator[Foresight]:
    """How many patients a step of DP-SGD has to set against its noise."""
    if not plan.private or not plan.sites:
        return
    for stage in plan.stages:
        if not isinstance(stage.event, SampledGaussian):
            continue
        site, terms = min(plan.sites.items(), key=lambda own: own[1].nominal_patients)
        batch = stage.event.sampling_rate * terms.nominal_patients
        poor = batch < stage.noise_multiplier
        said = (
            f"stage '{stage.kind}': a step at '{site}' has {batch:.3g} patients on the average, whose gradients count "
            f"1 each at most, beside noise of {stage.noise_multiplier:g} in each weight"
        )
        if poor:
            said += ": more than all of them together; sample more patients a step, in fewer steps"
        yield Foresight("signal", "poor" if poor else "good", said)


def _groups(plan: Plan) -> Iterator[Foresight]:
    """What groups of patients can give at each site; walks between two groups make as many images as are asked for."""
    for item in plan.release:
        if not isinstance(item, Grouped) or isinstance(item, LinearWalk):
            continue
        for site, terms in plan.sites.items():
            most, asked = terms.nominal_patients // item.least_patients, item.at(site) - plan.filled(item, site)
            if asked > most:
                said = (
                    f"'{item.method}' asks '{site}' for {asked} images from groups of {item.least_patients}, and its "
                    f"{terms.nominal_patients} nominal patients make {most} groups at most: with no more of them it "
                    "refuses the plan; ask for fewer by 'images_at', or let the model draw some by 'filled_at'"
                )
            elif asked < _FEW_IMAGES:
                said = f"'{item.method}' gives {asked} images at '{site}': too few for a set by themselves"
            else:
                continue
            yield Foresight("release", "poor", said)


def _bytes(plan: Plan) -> Iterator[Foresight]:
    """Arrays of all exchanges of training; one that a site has already does not come again."""
    down = up = 0
    for stage in plan.stages:
        record = EXCHANGES[stage.kind]
        down += stage.rounds * _size(record.sent(plan))
        up += stage.rounds * _size(record.returned(plan))
    yield Foresight(
        "bytes",
        "good",
        f"training sends a site {_text(down)} at most, and takes {_text(up)} from it; images come after",
    )


def _time(plan: Plan) -> Iterator[Foresight]:
    """What exchanges take however fast sites are, and however slow."""
    exchanges = sum(stage.rounds for stage in plan.stages)
    least = exchanges * DEFAULT_ANSWER_INTERVAL_S
    most = exchanges * plan.federation.round_deadline_s
    yield Foresight(
        "time",
        "good",
        f"{count_text(exchanges, 'exchange')} of training: {least:.0f} s at least, by the grid of sites' answers, and "
        f"{most:,} s if all wait for their deadline; 'sfumato simulate' measures what the work itself takes",
    )


def _memory(plan: Plan) -> Iterator[Foresight]:
    """What a site has to hold of the largest models."""
    sizes = {stage.kind: _size(EXCHANGES[stage.kind].sent(plan)) for stage in plan.stages}
    kind = max(sizes, key=lambda one: sizes[one])
    if not sizes[kind]:
        return
    yield Foresight(
        "memory",
        "good",
        f"models of stage '{kind}' are the largest: {_text(sizes[kind])}, and {_text(_ADAM * sizes[kind])} with all "
        "that Adam keeps of trained ones; batches come besides, and 'sfumato-site check' looks at a site's own memory",
    )


def _size(schema: Schema) -> int:
    return sum(spec.bytes for spec in schema.values())


def _text(size: int) -> str:
    return f"{size / 1e6:,.1f} MB" if size >= 1e5 else f"{size / 1e3:,.1f} KB"
