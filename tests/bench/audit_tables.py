"""How `audit_privacy.py` attacks tables: by noisy marginals of either shape, and by a copula.

The canary is the row, of many drawn at random, that moves furthest what is to be noised.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
from audit_targets import NOISE, Quiet, Target

from sfumato_client.tabular.copula import copula_cells
from sfumato_client.tabular.schema import TableSchema
from sfumato_client.tabular.terms import resolve_terms, table_events
from sfumato_client.tabular.tree import tree_cells
from sfumato_common.mechanisms.noise import NoiseSource, SecureNoise
from sfumato_common.mechanisms.recorder import NoiseRecorder
from sfumato_common.mechanisms.streams import PublishedStream
from sfumato_common.strict import parse

Cells = npt.NDArray[np.int64]
PATIENTS, _CANARIES = 40, 100
COLUMNS: dict[str, dict[str, Any]] = {
    "age": {"kind": "numeric", "low": 0, "high": 99, "digits": 0},
    "stage": {"kind": "ordinal", "levels": ["1", "2", "3"], "missing": True},
    "organ": {"kind": "categorical", "levels": ["lung", "liver", "skin"]},
    "sick": {"kind": "categorical", "levels": ["no", "yes"]},
}


def table_targets() -> list[Target]:
    """Adaptive Gaussian mechanisms: mu is the root of the sum of what the ledger is charged for each, squared."""
    third, half = NOISE * math.sqrt(3.0), NOISE * math.sqrt(2.0)
    return [
        _target("marginals of a chosen tree", third, {"tree": {"score_noise": third, "noise_multiplier": third}}),
        _target("marginals of a star", half, {"tree": {"star": "sick", "noise_multiplier": half}}),
        _target("a copula", half, {"copula": {"star": "sick", "noise_multiplier": half}}),
    ]


def _target(name: str, histograms: float, own: dict[str, Any]) -> Target:
    value = {
        "table": "audit",
        "rows": 4,
        "privacy": {"epsilon": 1000.0},
        "rows_are_patients": True,
        "columns": COLUMNS,
        "method": "copula" if "copula" in own else "marginals",
        "training": {"nominal_patients": PATIENTS},
        "histograms": {"noise_multiplier": histograms},
    }
    schema = resolve_terms(parse(value | own, TableSchema, "audit"))
    make, patients = (copula_cells if schema.method == "copula" else tree_cells), _rows(PATIENTS, 1)

    def moved(cells: Cells) -> npt.NDArray[np.float64]:
        quiet = Quiet()
        make(schema, cells, PublishedStream(SecureNoise()), quiet)
        return np.concatenate(quiet.values)

    without = moved(patients)
    cohorts = [np.concatenate([patients, row[None]]) for row in _rows(_CANARIES, 2)]
    with_it = max(cohorts, key=lambda cells: float(np.linalg.norm(moved(cells) - without)))

    def run(present: bool, recorder: NoiseRecorder, noise: NoiseSource) -> object:
        return make(schema, with_it if present else patients, PublishedStream(noise), recorder)

    charged = sum(event.noise_multiplier**-2 for event in table_events(schema) if hasattr(event, "noise_multiplier"))
    return Target(f"tables by {name}", math.sqrt(charged), run)


def _rows(count: int, seed: int) -> Cells:
    """Cells [count, 4] of any values; an empty one is -1."""
    return np.random.default_rng(seed).integers([0, -1, 0, 0], [100, 3, 3, 2], (count, 4))
