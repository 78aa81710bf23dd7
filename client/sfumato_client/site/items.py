"""One item of a release at the site: charged first, then made, then held against what was charged."""

from __future__ import annotations

from collections.abc import Mapping

from sfumato_client.anonymise import CandidateSet, Job, anonymise
from sfumato_client.anonymise.style_net import read_style_net
from sfumato_client.ledger import Ledger, Terms
from sfumato_client.site.home import SiteHome
from sfumato_common.mechanisms.noise import NoiseSource
from sfumato_common.mechanisms.sealed import Sealed
from sfumato_common.mechanisms.streams import secret_generator
from sfumato_common.study.costs import release_events, study_events
from sfumato_common.study.plan import Plan
from sfumato_common.study.policy import Policy
from sfumato_common.study.release import AnyItem
from sfumato_common.types import Arrays


def candidates_of(
    home: SiteHome,
    plan: Plan,
    policy: Policy,
    item: AnyItem,
    models: Mapping[str, Arrays],
    noise: NoiseSource,
    ledger: Ledger,
) -> Sealed[CandidateSet]:
    """The item's candidates, every event of it charged to the training patients before their records are read.

    Raises EgressRefused when another mechanism ran than was charged, and what the ledger and the method raise.
    """
    purpose = f"release-{item.method}-{item.model}"
    terms = Terms(plan.study, plan.digest, purpose, 1, "train", tuple(study_events(plan, "train")))
    with ledger.charged(terms, release_events(plan, item), noise) as charge:
        store = home.open_store()
        store.require_form(plan.image)
        store.require_patients(policy)
        job = Job(
            plan=plan,
            site=policy.site,
            item=item,
            models=models,
            cohort=store.cohort("train"),
            generator=secret_generator(noise),
            recorder=charge.recorder,
            steward_folder=home.steward_folder,
            grouping_file=home.grouping_file,
            regroup=policy.release.regroup == "allowed",
            style_net=read_style_net(home.style_net.read_bytes(), plan.image) if home.style_net.exists() else None,
        )
        return charge.seal(anonymise(job))
