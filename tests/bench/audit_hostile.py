"""Part `hostile` of `audit.py`: releases whose factors a coordinator crafted, by the product's k-same undefended.

Images of 32 px are averages of five patients; one of each group, whose label's factor is crafted, is carried whole:
`plain`, for everybody to see, or `scrambled`, for who holds the key. Asked of everybody, and of that label alone.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from rich.console import Console
from support.planted_factors import aimed_at, of_others, planted

from sfumato_client.audit.attacks import ATTACKS, measure

KINDS = ("plain", "scrambled", "honest", "plain, of others")
_ONCE = "re-identification"  # which trains a network


def hostile(quick: bool, console: Console) -> list[dict[str, Any]]:
    """In how many releases each attack tells, and its mean AUC, by factors and by whom it is asked of."""
    found: dict[tuple[str, str, str], list[Any]] = {}
    for kind in KINDS:
        for seed in range(1 if quick else 3):
            whole = of_others(seed) if kind == "plain, of others" else planted(kind, seed)
            for whom, split in (("everybody", whole), ("crafted label", aimed_at(*whole))):
                for name, attack in ATTACKS.items():
                    if not attack.obstacle(*split) and (name != _ONCE or (seed == 0 and not quick)):
                        found.setdefault((name, kind, whom), []).append(measure(attack, kind, *split))
        console.print(f"hostile factors, {kind}: done", markup=False)
    return [
        {"attack": name, "factors": kind, "asked_of": whom, "told": sum(map(_told, results)), "of": len(results)}
        | {"auc": float(np.mean([result.auc for result in results]))}
        | {"members": results[0].members, "holdout": results[0].holdout}
        for (name, kind, whom), results in found.items()
    ]


def _told(result: Any) -> bool:
    return bool(result.auc_interval[0] > 0.5 or result.stand_out > 0)
