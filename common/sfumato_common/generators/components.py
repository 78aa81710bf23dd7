"""Components of the class-conditional models: one a label, or one a site and label when the plan fits sites apart.

Every model of a study is conditional on a component's index [N]: trainers know it from a record's label and their own
site's name, samplers draw it. Sites are counted in the order of their names.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from sfumato_common.errors import VerificationError
from sfumato_common.generators.plan import PublicPlan
from sfumato_common.types import AnyArray, Arrays, Schema


def component_count(plan: PublicPlan) -> int:
    """G, the number of components: K labels, times the sites when its first stage says `by_site`."""
    return len(plan.labels) * (len(plan.sites) if plan.by_site else 1)


def components_of(plan: PublicPlan, site: str, labels: Tensor) -> Tensor:
    """Components [N] of records of `site` with labels [N]."""
    return labels + sorted(plan.sites).index(site) * len(plan.labels) if plan.by_site else labels


def labels_of(plan: PublicPlan, components: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Labels [N] of components [N]."""
    return np.asarray(components % len(plan.labels))


def condition_width(plan: PublicPlan) -> int:
    """Length of a record's condition: one-hot label, and one-hot site when the plan fits sites apart."""
    return len(plan.labels) + (len(plan.sites) if plan.by_site else 0)


def condition(plan: PublicPlan, components: Tensor) -> Tensor:
    """Conditions float32 [N, condition_width] of components [N]."""
    classes = len(plan.labels)
    label = functional.one_hot(components % classes, classes).float()
    if not plan.by_site:
        return label
    return torch.cat([label, functional.one_hot(components // classes, len(plan.sites)).float()], dim=1)


def component_shares(plan: PublicPlan, arrays: Arrays, site: str | None = None) -> npt.NDArray[np.float64]:
    """Share of each component [G] by the noisy counts of the released model that the plan begins with; sums to 1.

    With `site`, only what stands for that site: its own components when sites are fitted apart, else all. Raises
    VerificationError where the arrays leave nothing to share.
    """
    shares = np.asarray(arrays[f"{plan.base}/shares"], dtype=np.float64)
    assert shares.shape == (component_count(plan),)
    if site is not None and plan.by_site:
        own = components_of(plan, site, torch.arange(len(plan.labels))).numpy()
        kept = np.zeros_like(shares)
        kept[own] = shares[own]
        shares = kept
    total = float(shares.sum())
    if not 0.0 < total < np.inf:
        raise VerificationError("the released model gives no label any share; ask its sender for it again")
    return np.asarray(shares / total)


def component_names(plan: PublicPlan, components: Sequence[int]) -> list[str]:
    """What a row shows: the label, with the site before it where sites are fitted apart."""
    labels, sites = plan.labels, sorted(plan.sites)
    by_site = plan.by_site
    return [(f"{sites[y // len(labels)]}: " if by_site else "") + labels[y % len(labels)] for y in components]


def schema_at(plan: PublicPlan, schema: Schema) -> Schema:
    """`schema` as it is at one site: where sites are fitted apart, it is sent its own components of each model."""
    classes = len(plan.labels)
    return {
        name: replace(spec, shape=(classes, *spec.shape[1:])) if plan.by_site and spec.by_component else spec
        for name, spec in schema.items()
    }


def arrays_for(plan: PublicPlan, site: str, schema: Schema, arrays: Arrays) -> dict[str, AnyArray]:
    """What of `arrays` of `schema` goes to `site`, by `schema_at`: views, no copies."""
    if not plan.by_site:
        return dict(arrays)
    first = sorted(plan.sites).index(site) * len(plan.labels)
    own = slice(first, first + len(plan.labels))
    return {name: value[own] if schema[name].by_component else value for name, value in arrays.items()}


def for_all_components(plan: PublicPlan, schema: Schema, arrays: Arrays) -> dict[str, AnyArray]:
    """The arrays that a site was sent, in the shapes of `schema`: every site's components are its own, label by label.

    A site trains on, draws and averages its own components alone, so that nothing comes of the others.
    """
    if not plan.by_site:
        return dict(arrays)
    sites = len(plan.sites)
    return {
        name: np.concatenate([value] * sites) if schema[name].by_component else value for name, value in arrays.items()
    }
