"""`sfumato simulate`: a grid of simulated studies, and a table of utility against number of sites and of patients."""

from __future__ import annotations

import math
import resource
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import yaml

from sfumato_common.accounting.accountant import epsilon, json_epsilon
from sfumato_common.crypto.identity import create_identity
from sfumato_common.crypto.signatures import fingerprint
from sfumato_common.errors import ConfigError
from sfumato_common.files import write_atomic, write_json
from sfumato_common.locks import exclusive
from sfumato_common.strict import read_yaml
from sfumato_common.study.budget import check_own_epsilon
from sfumato_common.study.costs import study_events
from sfumato_common.study.load import load_plan
from sfumato_common.study.plan import Plan
from sfumato_common.study.simulated import SiteToMake, require_simulated, simulated_study
from sfumato_common.study.summed import least_sites
from sfumato_server.simulate.cohorts import Spread, simulated_sites, source_of
from sfumato_server.simulate.study import Simulation, Tell, measure
from sfumato_server.simulate.workers import Workers, started

RESULT, _RUNS, _LOCK = "simulation.json", "runs", ".lock"
FORMAT = "sfumato-simulation/1"


@dataclass(frozen=True)
class Question:
    """What is simulated: a plan's file at numbers of sites, of patients a site, and repeats, on patients of `data`."""

    plan: Path
    data: str
    sites: Sequence[int]
    patients: Sequence[int]
    repeats: int = 1
    spread: Spread = field(default_factory=Spread)
    seed: int = 0
    release: bool = False
    keep: bool = False


def run_simulation(question: Question, out: Path, workers: int, tell: Tell) -> dict[str, Any]:
    """Run all of it below `out`, and nowhere else; what stands in `simulation.json` there afterwards.

    Raises ConfigError where `out` holds anything but an earlier simulation, which is replaced; and as a study does.
    """
    if find_spec("sfumato_client") is None:
        raise ConfigError(
            "a simulation runs hospitals too: install 'sfumato', which is both sides, or 'sfumato-site' beside"
        )
    out = out.resolve()
    _require_own(out)
    source, real = source_of(question.data), _real_plan(question)
    with exclusive(out, "a simulation"):
        shutil.rmtree(out / _RUNS, ignore_errors=True)
        (out / RESULT).unlink(missing_ok=True)
        rows: list[dict[str, Any]] = []
        report = {"format": FORMAT, "simulated": True, "data": Path(question.data).name, "spread": str(question.spread)}
        write_json(out / RESULT, {**report, "rows": rows})
        # every plan is resolved before the first study: what cannot be run is told at once
        grid = [(s, p, r) for s in question.sites for p in question.patients for r in range(1, question.repeats + 1)]
        plans = [_plan(question, real, out, *point) for point in grid]
        with started(out, workers) as pool:
            for (sites, patients, repeat), plan in zip(grid, plans, strict=True):
                folder = out / _RUNS / f"{sites}-sites-{patients}-patients-{repeat}"
                cohorts = source.cohorts(plan, patients, question.spread, question.seed + repeat)
                simulation = Simulation(folder, plan, pool, _titled(tell, sites, patients, repeat), cohorts)
                judges = SiteToMake(home="", site="judges", cohort=source.judges(plan))
                row = {"sites": sites, "patients": patients, "repeat": repeat}
                rows.append(row | _run(simulation, judges, question, question.seed + repeat))
                write_json(out / RESULT, {**report, "rows": rows})
    return {**report, "rows": rows}


def _run(simulation: Simulation, judges: SiteToMake, question: Question, seed: int) -> dict[str, Any]:
    plan, pool = simulation.plan, simulation.workers
    with _measured(pool) as used:
        simulation.set_up()
        made = used()
        result = simulation.run(seed, release=question.release)
        ran = used()
        asked = {"do": "read", "plan": plan.model_dump(mode="json"), "site": judges.model_dump(mode="json")}
        _, arrays = pool.ask(asked, {})
        utility = measure(simulation, arrays["images"], arrays["labels"], seed)
        judged = used()
    if not question.keep:
        shutil.rmtree(simulation.folder / "sites")
    exchanges = result["exchanges"]
    return {
        "plan_hash": plan.digest,
        "epsilon": json_epsilon(epsilon(study_events(plan, "train"), plan.privacy.delta)),
        "utility": utility,
        "chosen": (result["choice"] or {}).get("winner"),
        "answers": {
            word: sum(said.split()[0] == word for item in exchanges for said in item["sites"].values())
            for word in ("ok", "refused", "failed")
        },
        "bytes_down": sum(item["bytes_down"] for item in exchanges),
        "bytes_up": sum(item["bytes_up"] for item in exchanges),
        "package_bytes": sum(simulation.packages.values()),
        "seconds": _apart(made[0], ran[0], judged[0]),
        "processor_seconds": _apart(made[1], ran[1], judged[1]),
        "largest_worker_megabytes": pool.megabytes,
        "coordinator_megabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }


@contextmanager
def _measured(pool: Workers) -> Iterator[Callable[[], tuple[float, float]]]:
    """Gives (seconds, processor seconds of this process and all workers) since the block began."""
    began, used = time.monotonic(), time.process_time() + pool.seconds
    yield lambda: (time.monotonic() - began, time.process_time() + pool.seconds - used)


def _apart(made: float, ran: float, judged: float) -> dict[str, float]:
    return {"set-up": round(made, 1), "study": round(ran - made, 1), "judging": round(judged - ran, 1)}


def _real_plan(question: Question) -> Plan:
    """The plan that is asked about. Raises ConfigError where it needs files that only the coordinator's home has."""
    plan = load_plan(question.plan)
    if plan.public_starts or plan.encoders:
        raise ConfigError(f"plan '{plan.study}' needs files, of public starts or given encoders: it is not simulated")
    return plan


def _plan(question: Question, real: Plan, out: Path, sites: int, patients: int, repeat: int) -> Plan:
    """`real` as it is simulated: marked, with as many sites, and without what names sites of the real one."""
    values, share = read_yaml(question.plan), real.federation.quorum / len(real.sites)
    file = out / _RUNS / f"{sites}-sites-{patients}-patients-{repeat}" / "plan.yaml"
    least = least_sites(sites, real.secure_sum.colluding) if real.secure_sum else 1
    values |= {
        "study": simulated_study(real.study, repeat),
        "sites": _sites(real, file.parent / "sites", sites, patients),
        "release": _release(real, values["release"], question.release),
        "federation": {**values["federation"], "quorum": max(least, math.ceil(share * sites))},
    }
    write_atomic(file, yaml.safe_dump(values, sort_keys=False))
    plan = load_plan(file)
    require_simulated(plan)
    check_own_epsilon(plan)
    return plan


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


def _titled(tell: Tell, sites: int, patients: int, repeat: int) -> Tell:
    return lambda what, done, of: tell(f"{sites} sites of {patients}, {repeat}: {what}", done, of)


def _require_own(out: Path) -> None:
    """Raise ConfigError where `out` has anything in it and is not a simulation's folder."""
    if out.exists() and not (out / RESULT).exists() and {path.name for path in out.iterdir()} - {_LOCK}:
        raise ConfigError(f"'{out.name}' holds other things than a simulation; choose an empty folder")
