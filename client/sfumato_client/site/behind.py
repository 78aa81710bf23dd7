"""Who stands behind each candidate, kept in the site from the making of a set until the gate has judged it.

The gate alone asks, and only where its policy names the attack that learns from groups. What is kept is encrypted under
the store's key, bound to one set and to the patients as they were counted then, and erased once the gate has said its
one bit. It is in no package, no report and no message. What is absent, or was kept of another set or of other patients,
is taken for unknown: a rule that needs it then refuses.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TypeAlias

import numpy as np

from sfumato_client.anonymise import CandidateSet
from sfumato_client.anonymise.contract import Job
from sfumato_client.anonymise.groups import fingerprint
from sfumato_client.audit.attacks.base import Indices
from sfumato_client.audit.attacks.pairs import LEARNED_PAIRS
from sfumato_client.dataset import Cohort
from sfumato_client.release.folder import ReleaseFolder
from sfumato_common.files import canonical_json
from sfumato_common.mechanisms.sealed import Sealed
from sfumato_common.study.gate_rules import GateRules
from sfumato_common.study.release import AnyItem

Made: TypeAlias = tuple[AnyItem, Sealed[CandidateSet]]


def keep_behind(folder: ReleaseFolder, job: Job[AnyItem], sealed: Sealed[CandidateSet], rules: GateRules) -> None:
    """Keep who is behind the images of a set that was just made on groups, where an attack of `rules` asks it."""
    found = job.behind
    if found is None or LEARNED_PAIRS.name not in rules.tried:
        return
    kept = [np.unique(patients).tolist() for patients in found.patients]
    told = {"set": sealed.digest, "cohort": fingerprint(job.release.cohort), "behind": kept}
    folder.keep_behind(job.item, canonical_json(told))


def read_behind(
    folder: ReleaseFolder, made: Sequence[Made], train: Cohort, rules: GateRules
) -> dict[str, Sequence[Indices]]:
    """The training patients behind each image, by the names of sets of which that is known.

    Raises VerificationError where what was kept is damaged.
    """
    if LEARNED_PAIRS.name not in rules.tried:
        return {}
    found, cohort = dict[str, Sequence[Indices]](), ""
    for item, sealed in made:
        data = folder.behind(item)
        if data is None:
            continue
        told, cohort = json.loads(data), cohort or fingerprint(train)
        if (told["set"], told["cohort"], len(told["behind"])) == (sealed.digest, cohort, len(sealed.result.images)):
            found[sealed.result.name] = [np.array(patients, dtype=np.int64) for patients in told["behind"]]
    return found
