"""The figure on holdout patients at the coordinator: each site's noised histogram, or the sum of all of them."""

from __future__ import annotations

import time
from dataclasses import dataclass

from sfumato_common.errors import NoRoomError
from sfumato_common.generators.replies import PATIENT_SLACK, check_histograms, most_patients
from sfumato_common.study.summed import UTILITY, is_summed
from sfumato_common.types import AnyArray, Arrays, ArraySpec
from sfumato_server.rounds.loop import StudyRun
from sfumato_server.rounds.summing import Unwilling, sum_over_sites

# in place of a site's name, where nobody sees a single site's counts
ALL_SITES = "all sites together"
_ASK_AGAIN_S = 1.0
_FULL = NoRoomError.wire_code


@dataclass(frozen=True)
class Histograms:
    """Noised counts [K, bins] by site, each with noise of that multiplier; of all sites together where they are summed.

    `sites` are those whose holdout patients are in them.
    """

    counts: dict[str, AnyArray]
    noise_multiplier: float
    sites: tuple[str, ...]


def ask_utility(run: StudyRun, classifier: Arrays) -> Histograms:
    """Ask for the noised score histograms; a site whose policy withholds its own refuses.

    One whose disk is full is asked again until the deadline: it may have paid already. Under `secure_sum` there is a
    sum, or nothing where policies leave fewer sites than the quorum.
    """
    assert run.plan.utility is not None
    if is_summed(run.plan, UTILITY):
        return _summed(run, classifier)
    schema = {"histogram": ArraySpec("float32", (len(run.plan.labels), run.plan.utility.bins))}
    found: dict[str, AnyArray] = {}
    sigma = run.plan.utility.noise_multiplier
    sites, end = run.accepted & run.channel.online(), time.monotonic() + run.deadlines.away_s

    def check(site: str, arrays: Arrays) -> None:
        check_histograms(arrays["histogram"][None], sigma, most_patients(run.plan, site))

    while sites:
        replies = run.ask("utility", classifier, sites, quorum=0, schema=schema, check=check)
        found |= {site: reply.arrays["histogram"] for site, reply in replies.items() if reply.status == "ok"}
        sites = {site for site, reply in replies.items() if reply.code == _FULL and time.monotonic() < end}
        if sites:
            run.sleep(_ASK_AGAIN_S)
    return Histograms(found, sigma, tuple(sorted(found)))


def _summed(run: StudyRun, classifier: Arrays) -> Histograms:
    try:
        pooled = sum_over_sites(run, UTILITY, run.checkpoints.sums, classifier, run.accepted & run.channel.online())
    except Unwilling:
        return Histograms({}, 0.0, ())
    patients = PATIENT_SLACK * sum(run.plan.sites[site].nominal_patients for site in pooled.sites)
    counts = pooled.sums["histogram"]
    check_histograms(counts[None], pooled.noise_multiplier, patients)
    return Histograms({ALL_SITES: counts}, pooled.noise_multiplier, pooled.sites)
