"""Anonymisation methods, one a file, in one table.

To add a method: a file with a function of the same form as `dp_sampling`, its name in the plan's `ReleaseItem.method`,
and a line in `ANONYMISERS`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch

from sfumato_client.anonymise.candidates import CandidateSet
from sfumato_client.anonymise.sampling import dp_sampling
from sfumato_common.config.plan import Plan, ReleaseItem
from sfumato_common.types import Arrays

Anonymiser = Callable[[Plan, str, ReleaseItem, Mapping[str, Arrays], torch.Generator], CandidateSet]
ANONYMISERS: Mapping[str, Anonymiser] = {"dp-sampling": dp_sampling}


def anonymise(
    plan: Plan, site: str, release: Sequence[ReleaseItem], models: Mapping[str, Arrays], generator: torch.Generator
) -> list[CandidateSet]:
    """One candidate set of `site` for each item of `release`, from the released arrays of each model.

    `release` is one of `plan.releases`: 'best' stands there under its real name.
    `generator` is a secret one (`secret_generator`): with a short seed, an image's latents could be searched for.
    """
    return [ANONYMISERS[item.method](plan, site, item, models, generator) for item in release]


__all__ = ["ANONYMISERS", "CandidateSet", "anonymise"]
