"""The words of a release: what methods are called, what images promise, and which part of a release they are of."""

from __future__ import annotations

from typing import Literal, get_args

Method = Literal["dp-sampling", "k-same", "k-salsa", "linear-walk", "plan-walk", "dp-k-average", "dp-glow", "cadp"]
# how a table is released; 'cadp' has images too
TableMethod = Literal["cadp", "marginals", "copula"]
# DP sampling in a place of a method on groups for which the plan says that a site has no group; sets, packages and the
# published list count such images apart by this name
Fill = Literal[
    "dp-sampling-for-k-same", "dp-sampling-for-k-salsa", "dp-sampling-for-linear-walk", "dp-sampling-for-plan-walk"
]
FILLS: tuple[Fill, ...] = get_args(Fill)
# formal: a proved (epsilon, delta) for all that an image shows and is said to be; the same for its pixels, while its
# label is a patient's own and no epsilon covers it; syntactic: k-anonymity of one step; heuristic: measured by attacks
GuaranteeLevel = Literal["formal", "formal, labels public", "syntactic", "heuristic"]
# What is judged, sealed and sent apart: what an epsilon covers whole, and what the ledger declares something of.
Part = Literal["formal", "declared"]
PARTS: tuple[Part, ...] = ("formal", "declared")


def part_of(level: GuaranteeLevel) -> Part:
    """Which part of a release images of that guarantee level belong to."""
    return "formal" if level == "formal" else "declared"


def fill_of(method: str) -> Fill:
    """What DP sampling is called in the places of that method on groups."""
    return next(name for name in FILLS if name == f"dp-sampling-for-{method}")


def is_fill(method: str) -> bool:
    """Whether images of that method stand in places that lack a group."""
    return method in FILLS


def way_of(method: str) -> str:
    """The method that makes the images, which a policy has to allow: DP sampling, too, where it fills places."""
    return "dp-sampling" if is_fill(method) else method


def has_epsilon(level: GuaranteeLevel) -> bool:
    """Whether an epsilon covers the pixels of images of that guarantee level."""
    return level in ("formal", "formal, labels public")
