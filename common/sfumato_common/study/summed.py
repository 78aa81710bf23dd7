"""Plans with `secure_sum`: what they must say, which of their answers are sums, and what a site's part of one costs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sfumato_common.accounting.events import SummedGaussian
from sfumato_common.exchanges import EXCHANGES
from sfumato_common.exchanges.choice import ChoiceStage
from sfumato_common.generators.summed import Phase

if TYPE_CHECKING:
    from sfumato_common.study.plan import Plan

FEWEST_SITES = 3
# the figure on holdout patients is no stage, and is a sum like them
UTILITY = "utility"


def least_sites(sites: int, colluding: int) -> int:
    """The least number of sites that must agree on who is in a sum: more than (sites + colluding) / 2.

    Of two lists that so many signed each, one honest site signed both, and an honest site signs one (Bonawitz et al.
    2017, section 6.2). As many shares give a secret back.
    """
    return (sites + colluding) // 2 + 1


def pinned_keys(plan: Plan) -> dict[str, str]:
    """The fingerprint of each site's key, by name, that a plan with `secure_sum` pins; none without."""
    return {site: terms.key for site, terms in sorted(plan.sites.items()) if terms.key is not None}


def check_secure_sum(plan: Plan) -> None:
    """Raise ValueError with one sentence where the plan's `secure_sum`, or a site's `key`, cannot be carried out.

    The list of sites and their keys is part of the plan's hash: the honest sites' noise, and how many may collude, are
    about just these sites, and a coordinator that could add some of its own would be everybody else.
    """
    keys = {site: terms.key for site, terms in plan.sites.items()}
    terms = plan.secure_sum
    if terms is None:
        if pinned := [site for site, key in keys.items() if key is not None]:
            raise ValueError(f"'key' of site '{pinned[0]}' serves 'secure_sum', and the plan has none; remove it")
        return
    if not plan.private:
        raise ValueError("'secure_sum' shares out noise, and a plan that says 'private: false' adds none; remove one")
    if len(keys) < max(FEWEST_SITES, terms.colluding + 2):
        raise ValueError(
            f"'secure_sum' needs at least {max(FEWEST_SITES, terms.colluding + 2)} sites, so that two are left that do "
            "not collude; add sites, or remove it"
        )
    if missing := [site for site, key in keys.items() if key is None]:
        raise ValueError(
            f"'secure_sum' needs sites.{missing[0]}.key, the fingerprint that 'sfumato-site fingerprint' prints there"
        )
    if len(set(keys.values())) < len(keys):
        raise ValueError("two sites have one 'key'; each hospital prints its own with 'sfumato-site fingerprint'")
    least = least_sites(len(keys), terms.colluding)
    if plan.federation.quorum < least:
        raise ValueError(
            f"'secure_sum' of {len(keys)} sites of which {terms.colluding} may collude needs a federation.quorum of at "
            f"least {least}: with fewer, two sums could be agreed on that differ by one site"
        )
    if plan.by_site:
        raise ValueError("'by_site' fits each site apart, and 'secure_sum' shows no site's release; remove one of them")
    if any(isinstance(stage, ChoiceStage) and stage.trimmed for stage in plan.stages):
        raise ValueError("'trimmed' of 'choice' leaves out single sites, which 'secure_sum' does not show; remove it")


def among(plan: Plan) -> int:
    """How many honest sites' noises are in every sum at least: the quorum without those that collude."""
    assert plan.secure_sum is not None, "the plan sums securely"
    return plan.federation.quorum - plan.secure_sum.colluding


def is_summed(plan: Plan, name: str) -> bool:
    """Whether that stage, or the figure on holdout patients (`UTILITY`), leaves sites as a sum alone."""
    if plan.secure_sum is None:
        return False
    if name == UTILITY:
        return plan.utility is not None
    return EXCHANGES[name].summed is not None


def exchanges_of(phases: int) -> int:
    """How many exchanges a sum of so many phases takes: keys, shares, and for each phase values, consent, unmasking."""
    return 2 + 3 * phases


def phases_of(plan: Plan, name: str) -> tuple[Phase, ...]:
    """The phases of a summed stage, or of the figure on holdout patients."""
    if name == UTILITY:
        assert plan.utility is not None
        shape = (len(plan.labels), plan.utility.bins)
        return (Phase({"histogram": shape}, 1.0, plan.utility.noise_multiplier),)
    summed = EXCHANGES[name].summed
    assert summed is not None, "the stage is a sum"
    return summed.phases(plan)


def summed_events(plan: Plan, name: str) -> list[SummedGaussian]:
    """What a site is charged for its part of each phase."""
    if name == UTILITY:
        assert plan.utility is not None
        noises: tuple[float, ...] = (plan.utility.noise_multiplier,)
    else:
        summed = EXCHANGES[name].summed
        assert summed is not None, "the stage is a sum"
        noises = summed.multipliers(plan)
    return [SummedGaussian(noise, among(plan)) for noise in noises]
