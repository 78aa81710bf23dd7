"""A plan and a policy to begin with: commented, filled in with what somebody said, and valid as they stand."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from sfumato_common.errors import ConfigError
from sfumato_common.strict import parse, yaml_word
from sfumato_common.strict.document import document
from sfumato_common.study.plan import Plan
from sfumato_common.study.policy import Policy
from sfumato_common.templates import template_text

Images = Literal["chest", "fundus", "other"]
_PACKAGE = "sfumato_common.study"


@dataclass(frozen=True)
class _Form:
    """What images of one sort need: channels, the word of DICOM, and the stage that serves them best."""

    channels: int
    modality: str
    stage: str
    about: str

    @property
    def model(self) -> str:
        """The stage's kind."""
        return self.stage.split("kind: ")[1].split(",")[0]


_FORMS: dict[str, _Form] = {
    "chest": _Form(
        1,
        "DX",
        "{kind: appearance, alignment: chest, detail: phantom, radii: charged}",
        "appearance: one noised answer, of films laid onto a drawn chest, whose fine lines the images have.",
    ),
    "fundus": _Form(
        3,
        "OP",
        "{kind: appearance, alignment: fundus, detail: phantom, radii: charged}",
        "appearance: one noised answer, of photographs laid onto a drawn retina, whose fine lines the images have.",
    ),
    "other": _Form(
        1,
        "OT",
        "{kind: spectral, bandwidth: 16, clip_radius: 1.8, spread_radius: 0.9, radii: charged}",
        "spectral: one noised answer, of the images' low frequencies.",
    ),
}


@dataclass(frozen=True)
class Beginning:
    """What a new plan says: names, sites with `patients` each, (epsilon, delta), and the form of the images."""

    study: str = "thorax"
    sites: Sequence[str] = ("alder", "birch", "cedar")
    patients: int = 240
    epsilon: float = 10.0
    delta: float = 1e-5
    labels: Sequence[str] = ("normal", "abnormal")
    images: Images = "chest"
    size: int = 64


def plan_text(beginning: Beginning, file: str) -> str:
    """The text of a plan; `file` is what it will be called. Raises ConfigError for values that no plan may have."""
    form, sites = _FORMS[beginning.images], beginning.sites
    if len(set(sites)) != len(sites):
        raise ConfigError("a site is named twice; name each once")
    text = template_text(
        _PACKAGE,
        "plan.yaml",
        file=file,
        name=yaml_word(beginning.study),
        size=beginning.size,
        channels=form.channels,
        modality=form.modality,
        labels=", ".join(map(yaml_word, beginning.labels)),
        sites="\n".join(f"  {yaml_word(site)}: {{nominal_patients: {beginning.patients}}}" for site in sites),
        epsilon=_number(beginning.epsilon),
        delta=_number(beginning.delta),
        about=form.about,
        stage=form.stage,
        model=form.model,
        images=min(200, beginning.patients),
        balance=", ".join(f"{yaml_word(label)}: {share}" for label, share in _shares(beginning.labels).items()),
        quorum=max(1, math.ceil(len(sites) * 2 / 3)),
    )
    made = document(text, file)
    stages = [{**stage, "noise_multiplier": 1.0} for stage in made.value["stages"]]
    parse({**made.value, "stages": stages, "budget": None}, Plan, "the options")
    return text


def policy_text(site: str, epsilon: float, delta: float, patients: int) -> str:
    """The text of a site's policy. Raises ConfigError for values that no policy may have."""
    text = template_text(
        _PACKAGE, "policy.yaml", site=yaml_word(site), epsilon=_number(epsilon), delta=_number(delta), patients=patients
    )
    parse(document(text, "policy.yaml").value, Policy, "the options")
    return text


def _shares(labels: Sequence[str]) -> dict[str, float]:
    """Equal shares, which add up to 1."""
    share = round(1 / max(1, len(labels)), 3)
    return {label: share if at else round(1 - share * (len(labels) - 1), 3) for at, label in enumerate(labels)}


def _number(value: float) -> str:
    """A number as people write it, and as every reader of YAML takes it: 10.0, 1.0e-5."""
    return yaml_word(value).replace("e-0", "e-")
