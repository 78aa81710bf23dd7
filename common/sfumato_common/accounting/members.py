"""Who is in which cohort, by keyed pseudonym: what a patient's charges are bound to. Never leaves a site."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Members:
    """Pseudonyms of `train` and of `holdout` patients; `key` names the secret key that made them, and is not it."""

    key: str
    train: frozenset[str] = field(default=frozenset(), repr=False)
    holdout: frozenset[str] = field(default=frozenset(), repr=False)

    def __post_init__(self) -> None:
        assert not self.train & self.holdout, "a patient is in one cohort"
