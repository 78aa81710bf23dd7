"""A simulated site: a real home, with real keys, ledger and store, of patients who are public or do not exist."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np

from sfumato_client.ingest import SiteImage, Skipped
from sfumato_client.ingest.npz import read_rows
from sfumato_client.site.home import SiteHome
from sfumato_common.crypto.identity import SiteIdentity, create_identity, load_identity
from sfumato_common.files import make_private_folder, write_atomic
from sfumato_common.phantom import arrays
from sfumato_common.strict import yaml_text
from sfumato_common.study.plan import Plan
from sfumato_common.study.release import Grouped
from sfumato_common.study.simulated import Cohort, IndexCohort, PhantomCohort, require_simulated

# the most that a patient may be charged here, in parts of what the plan costs: the figure is charged to others
_ROOM = 2.0


def make_home(
    root: Path, name: str, plan: Plan, policy: dict[str, Any], images: Iterable[SiteImage | Skipped]
) -> SiteHome:
    """A home that accepted `plan` and holds `images`, with the keys that it has, or new ones.

    The split key follows from the name and protects nobody.
    """
    home = SiteHome(root)
    make_private_folder(root)
    if not home.identity.exists():
        create_identity(home.identity, name)
    write_atomic(home.identity / "split.key", hashlib.sha256(name.encode()).hexdigest(), mode=0o600)
    write_atomic(home.root / "policy.yaml", yaml_text({"site": name, **policy}))
    home.ingest(images, plan)
    home.pin(plan)
    return home


def simulated_policy(plan: Plan) -> dict[str, Any]:
    """A policy that allows all of `plan`, under test noise, without a pace."""
    methods = {item.method for item in plan.release} | {"dp-sampling"}
    groups = [item.k for item in plan.release if isinstance(item, Grouped)]
    gate = {"declare_verdict": True, "formal": "private" if plan.formal_gate else "no-gate"}
    return {
        "budget": {"epsilon": _ROOM * plan.privacy.epsilon, "delta": plan.privacy.delta},
        "allowed_stages": [stage.kind for stage in plan.stages],
        "minimum_patients": 2,
        "release": {
            "allowed_methods": sorted(methods),
            "largest_set": sum(item.most for item in plan.release),
            "smallest_group": min(groups, default=2),
            "gate": gate,
        },
        "nonprivate_studies": [] if plan.private else [plan.study],
        "labels": "public",
        "utility_figure": "noised",
        "secure_sum": "allowed" if plan.secure_sum else "refused",
        "noise": "test",
        "answer_interval_s": 0.0,
    }


def make_simulated_home(root: Path, name: str, plan: Plan, cohort: Cohort) -> SiteIdentity:
    """A simulated site's home. Raises PolicyRefusal where the plan is not marked, ConfigError where a home stands."""
    require_simulated(plan)
    home = make_home(root, name, plan, simulated_policy(plan), images_of(cohort, plan))
    return load_identity(home.identity)


def images_of(cohort: Cohort, plan: Plan) -> Iterator[SiteImage | Skipped]:
    """The images of a cohort, patient by patient, in the plan's form."""
    return _phantoms(cohort, plan) if isinstance(cohort, PhantomCohort) else _rows(cohort, plan)


def _rows(cohort: IndexCohort, plan: Plan) -> Iterator[SiteImage | Skipped]:
    rows = [
        {"set": name, "row": row, "patient_id": patient, "abnormal": label, "split": "train"}
        for name, row, patient, label in cohort.rows
    ]
    for image in read_rows(Path(cohort.folder), rows, plan.image, plan.labels):
        # the site splits by its own key, as a hospital without given splits does
        yield replace(image, split=None) if isinstance(image, SiteImage) else image


def _phantoms(cohort: PhantomCohort, plan: Plan) -> Iterator[SiteImage]:
    """Numbers are drawn in order; where the cohort says how many are ill, a patient beyond that is left out."""
    form = plan.image
    modality = "chest" if form.channels == 1 else "fundus"
    ill = None if cohort.ill is None else round(cohort.ill * cohort.patients)
    room = np.array([cohort.patients] * 2 if ill is None else [cohort.patients - ill, ill])
    kept = 0
    for number in count(1):
        if kept == cohort.patients:
            return
        device = cohort.devices[kept % len(cohort.devices)]
        images, labels, _ = arrays(cohort.seed, 1, form.size, cohort.site, device, number, form.bits, modality)
        if not room[labels.max()]:
            continue
        room[labels.max()] -= 1
        kept += 1
        for pixels, label in zip(images, labels, strict=True):
            yield SiteImage(pixels, int(label), f"{cohort.site}-{number}", None)
