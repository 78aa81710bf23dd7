"""Images drawn from a checkpoint: the file, the plan it was trained under, and nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from sfumato_common.errors import ConfigError, VerificationError
from sfumato_common.generators import GENERATORS
from sfumato_common.generators.components import component_count, component_names, component_shares, labels_of
from sfumato_common.generators.sampling import sample_images
from sfumato_common.mechanisms.draws import TorchDraws
from sfumato_common.study.plan import Plan
from sfumato_common.types import AnyArray, Arrays
from sfumato_server.rounds.card import Card
from sfumato_server.rounds.checkpoint import released_model


@dataclass(frozen=True)
class Drawn:
    """Images [N, S, S(, 3)] of model `kind`, with name and label of what each one shows, and the card of their file."""

    card: Card
    kind: str
    images: AnyArray
    names: list[str]
    labels: npt.NDArray[np.int64]


def draw_model(file: Path, plan: Plan, model: str, label: str, site: str, count: int, seed: int) -> Drawn:
    """`count` images of `model` (empty: the file's own stage), sorted by what they show; the same for the same seed.

    `label` and `site` narrow what is drawn. Raises ConfigError for what the plan or the file does not have,
    VerificationError for another study's plan and for a damaged file.
    """
    card, arrays = released_model(file)
    kind = model or card.stage
    _check(plan, card, kind, arrays, file.name)
    draws = TorchDraws(torch.Generator().manual_seed(seed))
    components = _components(plan, arrays, label, site, count, draws)
    images = sample_images(plan, kind, arrays, components, draws)
    names = component_names(plan, range(component_count(plan)))
    shown = [names[component].replace(": ", "-") for component in components]
    return Drawn(card, kind, images, shown, labels_of(plan, components))


def _check(plan: Plan, card: Card, kind: str, arrays: Arrays, name: str) -> None:
    """Refuse a plan that is not the model's, and a model that is not in the file or does not fit."""
    if plan.study_digest != card.plan_hash:
        raise VerificationError(
            f"'{name}' was trained under plan {card.plan_hash[:16]}, the plan given is {plan.study_digest[:16]}; give "
            "the plan of its study, unchanged"
        )
    if kind not in GENERATORS:
        raise ConfigError(f"no images can be drawn from '{kind}'; choose one of: {', '.join(sorted(GENERATORS))}")
    if kind not in (card.stage, plan.base):
        raise ConfigError(f"'{name}' holds the model of stage '{card.stage}', not '{kind}'; name a file of that stage")
    schema = GENERATORS[kind].released(plan)
    if any(key not in arrays or not spec.matches(arrays[key]) for key, spec in schema.items()):
        raise VerificationError(f"the weights in '{name}' do not fit the plan; ask for the file again")


def _components(
    plan: Plan, arrays: Arrays, label: str, site: str, count: int, draws: TorchDraws
) -> npt.NDArray[np.int64]:
    """Components [N] by the released shares, of one label or site where it was named, sorted."""
    if label and label not in plan.labels:
        raise ConfigError(f"the plan has no label '{label}'; choose one of: {', '.join(plan.labels)}")
    if site and (site not in plan.sites or not plan.by_site):
        raise ConfigError(f"the plan fits no model to a site '{site}' alone; leave --site away")
    shares: AnyArray = component_shares(plan, arrays, site or None)
    if label:
        of_label = labels_of(plan, np.arange(len(shares))) == plan.labels.index(label)
        # a class whose noisy count drowned may have share zero: it is drawn nevertheless when it was asked for
        shares = np.where(of_label, np.maximum(shares, np.finfo(np.float64).tiny), 0.0)
    drawn = draws.categorical(torch.from_numpy(shares / shares.sum()), count)
    return np.sort(drawn.numpy().astype(np.int64))
