"""The plan that is simulated in the place of one that is asked about: marked, with as many sites, and what it costs."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from sfumato_common.crypto.identity import create_identity
from sfumato_common.crypto.signatures import fingerprint
from sfumato_common.errors import ConfigError
from sfumato_common.files import write_atomic
from sfumato_common.strict import parse, read_document, yaml_text
from sfumato_common.study.budget import check_own_epsilon
from sfumato_common.study.load import load_plan
from sfumato_common.study.plan import Plan
from sfumato_common.study.private import NOISELESS
from sfumato_common.study.simulated import require_simulated, simulated_study
from sfumato_common.study.summed import least_sites
from sfumato_server.simulate.cohorts import simulated_sites

_NOISE = "noise_multiplier"


def real_plan(file: Path) -> Plan:
    """The plan that is asked about. Raises ConfigError where it needs files that only the coordinator's home has."""
    plan = load_plan(file)
    if plan.public_starts or plan.encoders:
        raise ConfigError(f"plan '{plan.study}' needs files, of public starts or given encoders: it is not simulated")
    return plan


def simulated_plan(
    asked: Path, real: Plan, file: Path, sites: int, patients: int, repeat: int, *, release: bool
) -> Plan:
    """`real`, which is in `asked`, as it is simulated; `file` holds it afterwards.

    It is marked, has so many sites, and nothing that names sites of the real one. Raises ConfigError and
    BudgetExceeded where no such study could be run.
    """
    values, share = read_document(asked).value, real.federation.quorum / len(real.sites)
    least = least_sites(sites, real.secure_sum.colluding) if real.secure_sum else 1
    values |= {
        "study": simulated_study(real.study, repeat),
        "sites": _sites(real, file.parent / "sites", sites, patients),
        "release": _release(real, values["release"], release),
        "federation": {**values["federation"], "quorum": max(least, math.ceil(share * sites))},
    }
    write_atomic(file, yaml_text(values))
    plan = load_plan(file)
    require_simulated(plan)
    check_own_epsilon(plan)
    return plan


def repeated(plan: Plan, real: Plan, repeat: int) -> Plan:
    """A simulated plan under the name of another repeat: all else of it is the same, and resolved already."""
    return parse({**plan.model_dump(mode="json"), "study": simulated_study(real.study, repeat)}, Plan, "plan")


def without_noise(plan: Plan) -> Plan:
    """A simulated plan's models without noise and without clipping (`private: false`), and without its choice.

    Raises ConfigError where a stage is not trained so.
    """
    values = plan.model_dump(mode="json")
    kept = [{**stage, _NOISE: min(stage[_NOISE], NOISELESS)} for stage in values["stages"] if stage["kind"] != "choice"]
    values |= {
        "private": False,
        "budget": None,
        "stages": kept,
        "release": [{"model": plan.base, "images": 1}],
        "utility": None,
        "formal_gate": None,
    }
    return parse(values, Plan, f"plan '{plan.study}' without noise")


def _sites(real: Plan, homes: Path, sites: int, patients: int) -> dict[str, dict[str, Any]]:
    """The plan's sites; where it sums securely, their keys are made now, in the homes to be, and pinned."""
    found = simulated_sites(sites, patients)
    if real.secure_sum is None:
        return found
    made = {name: create_identity(homes / name / "identity", name) for name in found}
    return {name: {**found[name], "key": fingerprint(own.signing_public)} for name, own in made.items()}


def _release(real: Plan, items: list[dict[str, Any]], whole: bool) -> list[dict[str, Any]]:
    """Its items without the numbers of single sites; what no site makes here is left out, as it needs patients."""
    plain = [{k: v for k, v in item.items() if k not in ("images_at", "filled_at")} for item in items]
    sampled = [item for item in plain if whole or item.get("method", "dp-sampling") == "dp-sampling"]
    return sampled or [{"model": real.candidates[-1], "images": 100}]
