"""What marks a simulation: names that begin with `simulated-`, which no real study and no real site may have.

The names stand in plan, ledger, certificate, package and manifest, and the study's is part of the plan's hash: nothing
of a simulation fits a real study, whatever else is done with it. Its noise is test noise, which certificates say too.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from sfumato_common.errors import ConfigError, PolicyRefusal
from sfumato_common.strict import Strict
from sfumato_common.study.plan import Plan

MARK = "simulated-"
_LONGEST = 32


class PhantomCohort(Strict):
    """Patients of the phantom, on `devices` in turn; the share `ill` is diseased (None: as the phantom has it)."""

    kind: Literal["phantom"] = "phantom"
    seed: int
    site: str
    patients: int
    devices: list[str]
    ill: float | None


class IndexCohort(Strict):
    """Rows of the npz sets in `folder`: set, row, patient, and the label's number, as the index writes them."""

    kind: Literal["index"] = "index"
    folder: str
    rows: list[Annotated[list[str], Field(min_length=4, max_length=4)]]


Cohort = Annotated[PhantomCohort | IndexCohort, Field(discriminator="kind")]


class SiteToMake(Strict):
    """What a worker is told of a site: where its home goes, below the worker's own, its name, and its patients."""

    home: str
    site: str
    cohort: Cohort


def simulated_study(study: str, repeat: int) -> str:
    """The name under which `study` is simulated; another one for each repeat, so that the noise is another."""
    end = f"-{repeat}"
    return f"{MARK}{study}"[: _LONGEST - len(end)].rstrip("-") + end


def simulated_site(number: int) -> str:
    """The name of simulated site `number`, from 1."""
    return f"{MARK}{number:03d}"


def require_simulated(plan: Plan) -> None:
    """Raise PolicyRefusal unless the study and all its sites are marked: a simulation touches no real one."""
    if not all(name.startswith(MARK) for name in (plan.study, *plan.sites)):
        raise PolicyRefusal(f"a simulation takes only studies and sites whose names begin with '{MARK}'")


def require_real(*names: str) -> None:
    """Raise ConfigError where a study or site has a name of simulations."""
    if marked := [name for name in names if name.startswith(MARK)]:
        raise ConfigError(f"'{marked[0]}': names that begin with '{MARK}' are of simulations; choose another")
