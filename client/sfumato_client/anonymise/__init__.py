"""Anonymisation methods, one a file, in one table.

To add a method: a file with a function of the same form as `dp_sampling`, its section of the plan in
`study/release.py`, what it is charged as in `study.costs.release_events`, and a line in `ANONYMISERS`.
"""

from __future__ import annotations

from collections.abc import Mapping

from sfumato_client.anonymise.cadp import cadp
from sfumato_client.anonymise.candidates import CandidateSet
from sfumato_client.anonymise.contract import Anonymiser, Job, Release
from sfumato_client.anonymise.dp_glow import dp_glow
from sfumato_client.anonymise.dp_k_average import dp_k_average
from sfumato_client.anonymise.k_salsa import k_salsa
from sfumato_client.anonymise.k_same import k_same
from sfumato_client.anonymise.linear_walk import linear_walk
from sfumato_client.anonymise.plan_walk import plan_walk
from sfumato_client.anonymise.sampling import dp_sampling
from sfumato_common.errors import EgressRefused
from sfumato_common.study.release import AnyItem
from sfumato_common.study.words import way_of

ANONYMISERS: Mapping[str, Anonymiser] = {
    "dp-sampling": dp_sampling,
    "linear-walk": linear_walk,
    "plan-walk": plan_walk,
    "k-same": k_same,
    "k-salsa": k_salsa,
    "dp-k-average": dp_k_average,
    "dp-glow": dp_glow,
    "cadp": cadp,
}


def anonymise(job: Job[AnyItem]) -> CandidateSet:
    """The candidate set of the job's item, as the plan asks for it. Raises what the method raises."""
    found = ANONYMISERS[way_of(job.item.method)](job)
    asked = (job.item.method, job.item.model, job.item.images)
    assert (found.method, found.model, len(found.images)) == asked, "a method gives what its item asks for"
    if found.spends != job.recorder.executed:
        raise EgressRefused("what ran on the records is not what the set says")
    return found


__all__ = ["ANONYMISERS", "Anonymiser", "CandidateSet", "Job", "Release", "anonymise"]
