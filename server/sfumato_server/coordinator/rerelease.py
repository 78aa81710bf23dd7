"""A later version of a study's set: what stays, what is made again and what that costs, and the home that does it.

Nothing is decided here that a site's data decide: the coordinator is told who left, who withdrew and who is to be asked
again. What the earlier version charged stays charged; the new plan charges what it asks for, and nothing else.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sfumato_common.accounting.accountant import cohort_costs
from sfumato_common.errors import ConfigError
from sfumato_common.files import make_private_folder, write_atomic, write_json
from sfumato_common.generators import GENERATORS
from sfumato_common.strict import parse
from sfumato_common.study.certificate import round_up_epsilon
from sfumato_common.study.costs import stated_training, study_events
from sfumato_common.study.lineage import (
    given_models,
    plan_of_site,
    require_whole,
    training_plan,
    version_of,
    without_plans,
)
from sfumato_common.study.load import plan_text
from sfumato_common.study.plan import Plan
from sfumato_common.study.shards import shard_sizes
from sfumato_common.types import Arrays, fingerprint
from sfumato_server.coordinator.home import CoordinatorHome
from sfumato_server.enrol import Registry
from sfumato_server.enrol.authority import FOLDER as AUTHORITY
from sfumato_server.enrol.copies import require_only
from sfumato_server.enrol.registry import FILE as SITES
from sfumato_server.intake.admission import package_path
from sfumato_server.pool import Pool, pool_packages
from sfumato_server.pool.withdrawn import note_withdrawn
from sfumato_server.rounds.checkpoint import released_model
from sfumato_server.rounds.given import keep_given, load_given

COVERED = "an epsilon covers it, and what is made of it is post-processing"
UNCOVERED = "no epsilon covers it: it stays because nobody of this site is said to have withdrawn"


@dataclass(frozen=True)
class Changes:
    """What the coordinator was told: sites whose images stay although they left, that withdrew, that are asked again,
    and that join, with their nominal patients. Of `withdrawn_patients` a site says in public that a patient withdrew.
    """

    left: tuple[str, ...] = ()
    withdrew: tuple[str, ...] = ()
    again: tuple[str, ...] = ()
    withdrawn_patients: tuple[str, ...] = ()
    join: Mapping[str, int] | None = None
    retrain: bool = False
    # of every tombstone that this version adds: a word of the fixed list
    why: str = "not told"


@dataclass(frozen=True)
class Line:
    """One line of what a version takes: of a site, or of the models (''), with what it costs a patient there.

    `epsilon` is of the new plan alone, add/remove at `delta`; the site's own ledger has the total of all.
    """

    who: str
    what: str
    ground: str
    epsilon: float | None
    delta: float


@dataclass(frozen=True)
class Rerelease:
    """The new plan, with the models that it is given by kind, its lines for people, and the earlier version's pool."""

    plan: Plan
    models: Mapping[str, Arrays]
    lines: tuple[Line, ...]
    earlier: Pool


def plan_rerelease(old: CoordinatorHome, previous: str, changes: Changes, asked: Plan | None = None) -> Rerelease:
    """The next version after the set with manifest sha256 `previous`, which the home `old` published.

    `asked` is a plan of the same set that says what is to be released now. Raises ConfigError where a change names a
    site that it cannot be about, and where models cannot be given.
    """
    require_only(old.root)
    earlier = old.plan()
    found = pool_packages(old.root, earlier, Registry(old.root))
    here, join = set(found.sites), dict(changes.join or {})
    again = {*changes.again, *changes.withdrawn_patients}
    for name, named in (("left", changes.left), ("withdrew", changes.withdrew), ("again", again)):
        if unknown := sorted(set(named) - here):
            raise ConfigError(f"--{name} names '{unknown[0]}', of which the earlier version has nothing")
    if known := sorted(set(join) & here):
        raise ConfigError(f"--join names '{known[0]}', which is in the earlier version; --again asks it again")
    if twice := sorted((set(changes.left) & again) | (set(changes.withdrew) & (again | set(changes.left)))):
        raise ConfigError(f"'{twice[0]}' is named twice; a site left, or withdrew, or is asked again")
    staying = here - set(changes.withdrew)
    keep = staying - again if not changes.retrain else set(changes.left)
    models = {} if changes.retrain else _models(old, earlier)
    if models and any(not stated.formal for stated in found.certificates.values()):
        raise ConfigError("the earlier version was made with test noise, and its models cover nobody; use --retrain")
    terms = {site: _terms(earlier, asked, site) for site in sorted(staying - keep)}
    sites = {**terms, **{site: _joining(asked, site, patients) for site, patients in sorted(join.items())}}
    lineage = _lineage(earlier, previous, changes, keep, models)
    plan = _new_plan(asked or earlier, sites, lineage, bool(models), _winner(old))
    require_whole(plan)
    return Rerelease(plan, models, tuple(_lines(plan, changes, join)), found)


def make_home(old: CoordinatorHome, root: Path, made: Rerelease) -> CoordinatorHome:
    """The coordinator's home of the next version: the same keys and sites, what is kept and given, the new plan.

    The earlier home stays as it is. Raises ConfigError where `root` holds something.
    """
    if root.exists() and any(root.iterdir()):
        raise ConfigError(f"'{root.name}' is not empty; a version of a set has a home of its own")
    make_private_folder(root)
    new = CoordinatorHome(root)
    for name in (AUTHORITY, old.starts.name, old.encoders.name):
        if (old.root / name).is_dir():
            shutil.copytree(old.root / name, root / name)
    for file in (old.root / SITES, old.receipts_file, old.versions_file):
        if file.exists():
            shutil.copy2(file, root / file.name)
    for arrays in made.models.values():
        keep_given(new.given, arrays)
    assert made.plan.lineage is not None, "a later version has a lineage"
    for site in made.plan.lineage.keep:
        own = plan_of_site(made.plan, site)
        for part in own.parts_at(site):
            for shard in range(1, len(shard_sizes(own, site, part)) + 1):
                _carry(package_path(old.root, site, part, shard), package_path(root, site, part, shard))
    gone = {stone.site for stone in made.plan.lineage.tombstones if stone.images != "stay"}
    note_withdrawn(old.root, root, made.earlier, gone)
    write_atomic(root / "plan.yaml", plan_text(made.plan))
    write_json(new.plan_file, made.plan.model_dump(mode="json"))
    return new


def _carry(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.exists():
        shutil.copy2(source, target)


def _models(old: CoordinatorHome, earlier: Plan) -> dict[str, Arrays]:
    """Released arrays of every model of the earlier version, by kind. Raises ConfigError where one is not there."""
    if not earlier.private:
        raise ConfigError("no epsilon covers the models of a plan with 'private: false'; use --retrain")
    if earlier.by_site:
        raise ConfigError("models that have parts of every site ('by_site') cannot be given; use --retrain")
    if given_models(earlier):
        return {**load_given(old.given, earlier)}
    folder = old.checkpoints / earlier.study_digest
    kinds = [stage.kind for stage in earlier.stages if stage.kind in GENERATORS]
    return {kind: released_model(folder / f"{kind}-model.safetensors")[1] for kind in kinds}


def _terms(earlier: Plan, asked: Plan | None, site: str) -> dict[str, Any]:
    known = asked.sites.get(site) if asked else None
    found = known or plan_of_site(earlier, site).sites[site]
    return found.model_dump(mode="json")


def _joining(asked: Plan | None, site: str, patients: int) -> dict[str, Any]:
    known = asked.sites.get(site) if asked else None
    return {**(known.model_dump(mode="json") if known else {}), "nominal_patients": patients}


def _winner(old: CoordinatorHome) -> str:
    """The model that the earlier version's choice stage chose; '' where it had none."""
    try:
        choice = json.loads(old.result_file.read_text())["choice"]
    except (OSError, ValueError, KeyError):
        return ""
    return str(choice["winner"]) if choice else ""


def _lineage(
    earlier: Plan, previous: str, changes: Changes, keep: set[str], models: Mapping[str, Arrays]
) -> dict[str, Any]:
    kept = {site: plan_of_site(earlier, site).at_site(site) for site in sorted(keep)}
    plans = {own.digest: own for own in kept.values()}
    before = [training_plan(own) for own in kept.values() if given_models(own)]  # what their certificates state
    plans |= {own.study_digest: own for own in before}
    trained = None
    if models:
        trained_by = training_plan(earlier) if given_models(earlier) else earlier
        trained = trained_by.study_digest
        plans[trained] = trained_by
    since = datetime.now(UTC).date().isoformat()
    stones = [
        *({"site": site, "what": "site-left", "since": since, "images": "stay"} for site in changes.left),
        *({"site": site, "what": "site-withdrew", "since": since, "images": "removed"} for site in changes.withdrew),
        *(
            {"site": site, "what": "patient-withdrew", "since": since, "images": "regenerated"}
            for site in changes.withdrawn_patients
        ),
    ]
    return {
        "version": version_of(earlier) + 1,
        "previous": previous,
        "trained": trained,
        "models": {kind: fingerprint(arrays) for kind, arrays in models.items()},
        "keep": {site: own.digest for site, own in kept.items()},
        "tombstones": [{**stone, "why": changes.why} for stone in stones],
        "plans": {digest: without_plans(own).model_dump(mode="json") for digest, own in plans.items()},
    }


def _new_plan(base: Plan, sites: Mapping[str, Any], lineage: Mapping[str, Any], given: bool, winner: str) -> Plan:
    """`base` for those sites; with given models without what trains, sums or chooses."""
    values = base.model_dump(mode="json", exclude={"lineage"})
    for item in values["release"]:
        for name in ("images_at", "filled_at"):
            if name in item:
                item[name] = {site: count for site, count in item[name].items() if site in sites}
        if given and item["model"] == "best":
            if not winner:
                raise ConfigError("the earlier version's choice is not known here, and 'best' means nothing without it")
            item["model"] = winner
    if given:
        values["stages"] = [stage for stage in values["stages"] if stage["kind"] in GENERATORS]
        values |= {"budget": None, "secure_sum": None}
        sites = {name: {"nominal_patients": terms["nominal_patients"]} for name, terms in sites.items()}
    if not sites:
        values["utility"] = None
    quorum = min(values["federation"]["quorum"], max(len(sites), 1))
    values |= {
        "sites": dict(sites),
        "lineage": dict(lineage),
        "federation": {**values["federation"], "quorum": quorum},
    }
    return parse(values, Plan, f"version {lineage['version']} of '{base.study}'")


def _lines(plan: Plan, changes: Changes, join: Mapping[str, int]) -> list[Line]:
    delta = plan.privacy.delta
    costs = cohort_costs(study_events(plan, "train"), study_events(plan, "holdout"), delta)
    paid = round_up_epsilon(costs.patient.add_remove)
    lines = [_model_line(plan, paid)]
    lineage = plan.lineage
    assert lineage is not None, "a later version has a lineage"
    for site in sorted({*plan.sites, *lineage.keep, *changes.withdrew}):
        if site in lineage.keep:
            for part in plan_of_site(plan, site).parts_at(site):
                ground = COVERED if part == "formal" else UNCOVERED
                lines.append(Line(site, f"{part} images stay", ground, 0.0, delta))
        elif site in plan.sites:
            what = "joins" if site in join else "images are made again, of who is there now"
            lines.append(Line(site, what, "accepts the new plan, and its ledger is charged for it", paid, delta))
        else:
            ground = "it withdrew; what its patients paid stays in its ledger"
            lines.append(Line(site, "images are removed", ground, 0.0, delta))
    return lines


def _model_line(plan: Plan, paid: float | None) -> Line:
    if not given_models(plan):
        return Line("", "models are trained again", "by the sites that are asked", paid, plan.privacy.delta)
    trained = stated_training(plan)
    ground = f"their training cost epsilon {trained.epsilon.patient.add_remove} at delta {trained.delta:g}; {COVERED}"
    return Line("", "models stay", ground, 0.0, plan.privacy.delta)
