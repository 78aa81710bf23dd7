"""`sfumato simulate`: a grid of simulated studies, and a table of utility against number of sites and of patients."""

from __future__ import annotations

import resource
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from sfumato_common.accounting.accountant import epsilon, json_epsilon
from sfumato_common.errors import ConfigError
from sfumato_common.files import write_json
from sfumato_common.locks import exclusive
from sfumato_common.study.costs import study_events
from sfumato_common.types import AnyArray
from sfumato_server.simulate.cohorts import Spread, source_of
from sfumato_server.simulate.engines import Where, started
from sfumato_server.simulate.plans import real_plan, simulated_plan
from sfumato_server.simulate.study import Simulation, Tell, judges_of, measure
from sfumato_server.simulate.workers import Workers

RESULT, RUNS, _LOCK = "simulation.json", "runs", ".lock"
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


def run_simulation(question: Question, out: Path, where: Where, tell: Tell) -> dict[str, Any]:
    """Run all of it below `out`, and nowhere else; what stands in `simulation.json` there afterwards.

    Raises ConfigError where `out` holds anything but an earlier simulation, which is replaced; and as a study does.
    """
    require_both_sides()
    if question.keep and where.address:
        raise ConfigError("homes on a Ray cluster are removed with its workers: leave --keep away, or --ray-address")
    out = out.resolve()
    require_own(out, RESULT)
    source, real = source_of(question.data), real_plan(question.plan)
    with exclusive(out, "a simulation"):
        shutil.rmtree(out / RUNS, ignore_errors=True)
        (out / RESULT).unlink(missing_ok=True)
        rows: list[dict[str, Any]] = []
        report = {"format": FORMAT, "simulated": True, "data": Path(question.data).name, "spread": str(question.spread)}
        write_json(out / RESULT, {**report, "rows": rows})
        # every plan is resolved before the first study: what cannot be run is told at once
        grid = [(s, p, r) for s in question.sites for p in question.patients for r in range(1, question.repeats + 1)]
        plans = [
            simulated_plan(question.plan, real, run_folder(out, *point) / "plan.yaml", *point, release=question.release)
            for point in grid
        ]
        with started(out, where) as pool:
            for (sites, patients, repeat), plan in zip(grid, plans, strict=True):
                folder, seed = run_folder(out, sites, patients, repeat), question.seed + repeat
                cohorts = source.cohorts(plan, patients, question.spread, seed)
                simulation = Simulation(folder, plan, pool, _titled(tell, sites, patients, repeat), cohorts)
                judges = judges_of(pool, plan, source.judges(plan))
                found = run_one(simulation, *judges, seed, release=question.release)
                rows.append({"sites": sites, "patients": patients, "repeat": repeat, **found})
                if not question.keep:
                    pool.remove(simulation.homes)
                write_json(out / RESULT, {**report, "rows": rows})
    return {**report, "rows": rows}


def run_one(simulation: Simulation, images: AnyArray, labels: AnyArray, seed: int, *, release: bool) -> dict[str, Any]:
    """Run one study; its row of the report. `images` and `labels` are those of the judges."""
    plan, pool = simulation.plan, simulation.workers
    with _measured(pool) as used:
        simulation.set_up()
        made = used()
        result = simulation.run(seed, release=release)
        ran = used()
        utility = measure(simulation, images, labels, seed)
        judged = used()
    exchanges = result["exchanges"]
    return {
        "plan_hash": plan.study_digest,
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


def _titled(tell: Tell, sites: int, patients: int, repeat: int) -> Tell:
    return lambda what, done, of: tell(f"{sites} sites of {patients}, {repeat}: {what}", done, of)


def run_folder(out: Path, sites: int, patients: int, repeat: int) -> Path:
    """Where everything of one study goes."""
    return out / RUNS / f"{sites}-sites-{patients}-patients-{repeat}"


def require_both_sides() -> None:
    """Raise ConfigError where the sites' half is not installed."""
    if find_spec("sfumato_client") is None:
        raise ConfigError(
            "a simulation runs hospitals too: install 'sfumato', which is both sides, or 'sfumato-site' beside"
        )


def require_own(out: Path, result: str) -> None:
    """Raise ConfigError where `out` has anything in it and not the file `result` of an earlier one of its kind."""
    if out.exists() and not (out / result).exists() and {path.name for path in out.iterdir()} - {_LOCK}:
        raise ConfigError(f"'{out.name}' holds other things than a simulation; choose an empty folder")
