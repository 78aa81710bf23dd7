"""Who is at which simulated site: patients of the phantom, or of an index, spread evenly, by label or by device.

By label: each site's share of ill patients is drawn from a Dirichlet distribution (Hsu et al. 2019), the smaller alpha
the more unlike the sites. By device: each site has one device's patients only; an index's column `site` names them.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from sfumato_common.errors import ConfigError, DataError
from sfumato_common.phantom import MODALITIES
from sfumato_common.study.plan import Plan
from sfumato_common.study.simulated import Cohort, IndexCohort, PhantomCohort, simulated_site
from sfumato_common.tables import INDEX_COLUMNS, read_table

PHANTOM = "phantom"
# patients whom no site has; figures are measured on them
_JUDGES, _JUDGING = 400, "judges"
_KEPT_APART = "val"


@dataclass(frozen=True)
class Spread:
    """How patients are spread over sites: `alpha` of the Dirichlet distribution by label, one device a site or all."""

    alpha: float | None = None
    by_device: bool = False

    def ill(self, rng: np.random.Generator) -> float | None:
        """A site's share of ill patients; None where labels are not spread."""
        return None if self.alpha is None else float(rng.dirichlet([self.alpha, self.alpha])[1])

    def devices(self, number: int, known: list[str]) -> list[str]:
        """The devices of site `number`, from 0."""
        return [known[number % len(known)]] if self.by_device else known

    def __str__(self) -> str:
        label = "" if self.alpha is None else f"labels by Dirichlet({self.alpha:g})"
        return ", ".join(filter(None, [label, "one device a site" if self.by_device else ""])) or "alike"


class Source(Protocol):
    """Where a simulation's patients come from."""

    def cohorts(self, plan: Plan, patients: int, spread: Spread, seed: int) -> dict[str, Cohort]:
        """`patients` of each of the plan's sites. Raises DataError where there are too few."""
        ...

    def judges(self, plan: Plan) -> Cohort:
        """Patients whom no site has."""
        ...


class PhantomSource:
    """People who do not exist, as many as asked for."""

    def cohorts(self, plan: Plan, patients: int, spread: Spread, seed: int) -> dict[str, Cohort]:
        """See Source."""
        rng, known = np.random.default_rng(seed), self._devices(plan)
        return {
            site: PhantomCohort(
                seed=seed, site=site, patients=patients, devices=spread.devices(number, known), ill=spread.ill(rng)
            )
            for number, site in enumerate(plan.sites)
        }

    def judges(self, plan: Plan) -> Cohort:
        """See Source; the same ones for every run."""
        return PhantomCohort(seed=0, site=_JUDGING, patients=_JUDGES, devices=self._devices(plan), ill=None)

    def _devices(self, plan: Plan) -> list[str]:
        return sorted(MODALITIES["chest" if plan.image.channels == 1 else "fundus"].systems)


@dataclass(frozen=True)
class _Patient:
    device: str
    ill: bool
    rows: list[list[str]]


class IndexSource:
    """Patients of an index of public images. Those of split `train` are spread, `val` judge, `test` are never read."""

    def __init__(self, index: Path) -> None:
        self._folder, self._name = index.resolve().parent, index.name
        self._patients: dict[str, list[_Patient]] = {"train": [], _KEPT_APART: []}
        for split, members in _read(index).items():
            if split in self._patients:
                self._patients[split] = members
        if not self._patients[_KEPT_APART]:
            raise DataError(f"'{index.name}' has no patients of split 'val'; figures are measured on them")

    def cohorts(self, plan: Plan, patients: int, spread: Spread, seed: int) -> dict[str, Cohort]:
        """See Source. A site that asks for more ill, or healthy, patients than are left gets others."""
        rng, left = np.random.default_rng(seed), list(self._patients["train"])
        known = sorted({patient.device for patient in left})
        order = rng.permutation(len(left))
        left = [left[number] for number in order]
        found: dict[str, Cohort] = {}
        for number, site in enumerate(plan.sites):
            own = set(spread.devices(number, known))
            chosen = _choose([p for p in left if p.device in own], patients, spread.ill(rng))
            if len(chosen) < patients:
                raise DataError(
                    f"'{self._name}' has too few patients of split 'train' for {len(plan.sites)} sites of {patients}"
                    f"{' of one device each' if spread.by_device else ''}: simulate fewer sites or patients"
                )
            taken = set(map(id, chosen))
            left = [patient for patient in left if id(patient) not in taken]
            found[site] = self._cohort(chosen)
        return found

    def judges(self, plan: Plan) -> Cohort:
        """See Source."""
        del plan
        return self._cohort(self._patients[_KEPT_APART])

    def _cohort(self, patients: list[_Patient]) -> IndexCohort:
        return IndexCohort(folder=str(self._folder), rows=sorted(row for patient in patients for row in patient.rows))


def source_of(data: str) -> Source:
    """The source that `--data` names. Raises DataError."""
    return PhantomSource() if data == PHANTOM else IndexSource(Path(data))


def simulated_sites(number: int, patients: int) -> dict[str, dict[str, int]]:
    """The plan's sites. Four in five patients train, so this many are nominal; at least ten. Raises ConfigError."""
    nominal = round(0.8 * patients)
    if nominal < 10:
        raise ConfigError("a site has at least 12 patients: ask for more with --patients")
    return {simulated_site(index): {"nominal_patients": nominal} for index in range(1, number + 1)}


def _choose(available: list[_Patient], count: int, share: float | None) -> list[_Patient]:
    if share is None:
        return available[:count]
    ill = [patient for patient in available if patient.ill][: round(share * count)]
    well = [patient for patient in available if not patient.ill][: count - round(share * count)]
    taken = set(map(id, ill + well))
    others = [patient for patient in available if id(patient) not in taken]
    return (ill + well + others)[:count]


def _read(index: Path) -> dict[str, list[_Patient]]:
    """Patients by split. A patient with rows of several splits is left out: they would be at a site and judge."""
    rows: dict[str, list[dict[str, str]]] = defaultdict(list)
    for row in read_table(index, INDEX_COLUMNS):
        rows[row["patient_id"]].append(row)
    found: dict[str, list[_Patient]] = defaultdict(list)
    for patient, own in sorted(rows.items()):
        if len({row["split"] for row in own}) == 1:
            described = [[row["set"], row["row"], patient, row["abnormal"]] for row in own]
            ill = any(row["abnormal"] != "0" for row in own)
            found[own[0]["split"]].append(_Patient(own[0]["site"], ill, described))
    return found


def patients_of(cohort: Cohort) -> int:
    """How many there are."""
    return cohort.patients if isinstance(cohort, PhantomCohort) else len({row[2] for row in cohort.rows})


def fewer(cohort: Cohort, count: int) -> Cohort:
    """The first `count` patients of `cohort`, all where it has no more."""
    if isinstance(cohort, PhantomCohort):
        return cohort.model_copy(update={"patients": min(count, cohort.patients)})
    kept = set(list(dict.fromkeys(row[2] for row in cohort.rows))[:count])
    return cohort.model_copy(update={"rows": [row for row in cohort.rows if row[2] in kept]})
