"""One budget for a whole plan: noise multipliers of every stage from shares of mu^2 (Dong, Roth and Su 2022).

The squared parameters of Gaussian mechanisms add up under composition, so a share is a share of mu_total^2, where one
Gaussian release with parameter mu_total has the plan's (epsilon, delta). A one-shot stage of share s gets noise
multiplier 1 / (mu_total sqrt(s)). A DP-SGD stage gets the multiplier at which all its rounds have the epsilon, at delta
and by loss distributions, of a Gaussian release with parameter mu_total sqrt(s). Then ONE factor on all multipliers
brings the composed epsilon of the plan to the plan's own: never above, at most 0.5 % below.

A plan file with `budget` leaves `noise_multiplier` of its stages out; resolved, it has both and is what sites accept.
`auto` is a rule over public numbers only: see `auto_shares`.
"""

from __future__ import annotations

import math
from typing import get_args

from sfumato_common.accounting.accountant import epsilon, epsilon_text
from sfumato_common.accounting.calibration import gaussian_epsilon, gaussian_mu, least_noise, round_up, sampled_guess
from sfumato_common.accounting.events import Cohort, Event, GaussianRelease, SampledGaussian
from sfumato_common.accounting.pld import SMALLEST_NOISE
from sfumato_common.errors import BudgetExceeded, ConfigError
from sfumato_common.exchanges.choice import ChoiceStage
from sfumato_common.strict import parse
from sfumato_common.study.costs import study_events
from sfumato_common.study.plan import Plan
from sfumato_common.study.stages import Stage

BELOW = 0.005  # how far below the plan's epsilon, in parts of it, a resolved plan may stay
CHOICE_SHARE = 0.05
# below about this many patients one good one-shot release beats many noisy steps: noise beside the mean is sigma / N
EVEN_PATIENTS = 5000
_KEY = "noise_multiplier"


def auto_shares(plan: Plan) -> dict[str, float]:
    """The shares that `budget: auto` stands for, from the plan's stages and nominal patients alone.

    A choice takes 0.05. Of the rest, DP-SGD stages take N / (N + 5,000), N the nominal
    patients of all sites, and one-shot stages what is left; stages of one sort share alike. Without DP-SGD stages the
    one-shot ones take all.
    """
    models = [stage for stage in plan.stages if not isinstance(stage, ChoiceStage)]
    trained = [stage.kind for stage in models if isinstance(stage.event, SampledGaussian)]
    released = [stage.kind for stage in models if stage.kind not in trained]
    choice: dict[str, float] = {stage.kind: CHOICE_SHARE for stage in plan.stages if stage not in models}
    patients = sum(terms.nominal_patients for terms in plan.sites.values())
    training = patients / (patients + EVEN_PATIENTS) if trained else 0.0
    rest = 1.0 - sum(choice.values())
    return {
        **{kind: round(rest * (1.0 - training) / len(released), 4) for kind in released},
        **{kind: round(rest * training / len(trained), 4) for kind in trained},
        **choice,
    }


def resolve_budget(plan: Plan) -> Plan:
    """`plan` with every stage's noise multiplier, and its shares written out, as its budget says. Takes seconds.

    Raises ConfigError when the budget does not name exactly the plan's stages, or does not suffice for any noise.
    """
    shares = _shares(plan)
    release = _mu(plan)
    if 1.0 / release < SMALLEST_NOISE:
        raise _next_to_no_noise(plan)
    alone = {stage.kind: _alone(stage, release * math.sqrt(shares[stage.kind]), plan) for stage in plan.stages}

    def at(factor: float) -> Plan:
        stages = [stage.model_copy(update={_KEY: round_up(alone[stage.kind] * factor)}) for stage in plan.stages]
        return plan.model_copy(update={"stages": stages, "budget": shares})

    found = at(least_noise(lambda factor: _epsilon(at(factor)), plan.privacy.epsilon, 1.0, BELOW))
    if not _epsilon(found) <= plan.privacy.epsilon:
        raise _next_to_no_noise(plan)
    # through the schema again, as a file that holds it would come
    return parse(found.model_dump(mode="json"), Plan, f"plan '{plan.study}'")


def _next_to_no_noise(plan: Plan) -> ConfigError:
    return ConfigError(
        f"plan '{plan.study}': privacy.epsilon = {plan.privacy.epsilon:g} leaves next to no noise, and no accountant "
        "here follows that far; state a smaller one"
    )


def check_budget(plan: Plan) -> None:
    """Raise ConfigError when a resolved plan's noise is not what its budget says; nothing to check without one."""
    if plan.budget is None:
        return
    if plan.joining and plan.budget == "auto":
        raise ConfigError(
            f"plan '{plan.study}': shares by 'auto' follow from all sites, and sites join this study later; let "
            "'sfumato plan resolve' write them out, from the file without noise multipliers"
        )
    shares = _shares(plan)
    spent, allowed = _epsilon(plan), plan.privacy.epsilon
    if not (1.0 - 2 * BELOW) * allowed <= spent <= allowed:
        raise ConfigError(
            f"plan '{plan.study}': its noise multipliers cost epsilon {spent:.4g} and its budget is {allowed:g}; "
            "resolve it again from the file without noise multipliers"
        )
    first = plan.stages[0]
    release = _mu(plan)
    factor = first.noise_multiplier * release * math.sqrt(shares[first.kind])
    for stage in plan.stages:
        own = stage.model_copy(update={_KEY: stage.noise_multiplier / factor})
        wanted = gaussian_epsilon(release * math.sqrt(shares[stage.kind]), plan.privacy.delta)
        if not math.isclose(_stage_epsilon(own, plan.privacy.delta), wanted, rel_tol=2 * BELOW):
            raise ConfigError(
                f"plan '{plan.study}': the noise of stage '{stage.kind}' is not its share of the budget; resolve it "
                "again from the file without noise multipliers"
            )


def check_own_epsilon(plan: Plan) -> None:
    """Raise BudgetExceeded when either cohort would pay more under `plan` than its own `privacy` says; about a second.

    A plan without privacy promises nothing.
    """
    if not plan.private:
        return
    for cohort in get_args(Cohort):
        spent = epsilon(study_events(plan, cohort), plan.privacy.delta)
        if not spent <= plan.privacy.epsilon:  # written so that a NaN is refused
            raise BudgetExceeded(
                f"plan '{plan.study}' costs {cohort} patients epsilon {epsilon_text(spent)} at delta "
                f"{plan.privacy.delta:g}, and its own privacy.epsilon says at most {plan.privacy.epsilon:g}: ask for a "
                "plan with more noise or fewer steps, or for one that states what it costs"
            )


def _shares(plan: Plan) -> dict[str, float]:
    """The budget's shares by stage. Raises ConfigError unless they name exactly the stages and add up to 1."""
    assert plan.budget is not None, "only a plan with a budget is resolved"
    shares = auto_shares(plan) if plan.budget == "auto" else dict(plan.budget)
    kinds = [stage.kind for stage in plan.stages]
    if missing := [kind for kind in kinds if kind not in shares]:
        raise ConfigError(f"plan '{plan.study}': 'budget' has no share for stage '{missing[0]}'; every stage needs one")
    if unknown := [kind for kind in shares if kind not in kinds]:
        raise ConfigError(f"plan '{plan.study}': 'budget' has a share for '{unknown[0]}', which is no stage; remove it")
    if abs(sum(shares.values()) - 1.0) > 1e-3:
        raise ConfigError(f"plan '{plan.study}': the shares of 'budget' add up to {sum(shares.values()):g}, not to 1")
    return {kind: shares[kind] for kind in kinds}


def _mu(plan: Plan) -> float:
    """mu_total: the parameter of one Gaussian release with the plan's epsilon and delta."""
    return gaussian_mu(plan.privacy.epsilon, plan.privacy.delta)


def _alone(stage: Stage, mu: float, plan: Plan) -> float:
    """The noise multiplier at which `stage` alone costs what a Gaussian release with parameter `mu` does."""
    delta = plan.privacy.delta
    event, guess = stage.event, math.sqrt(stage.rounds) / mu
    if isinstance(event, GaussianRelease):
        return guess
    wanted = gaussian_epsilon(mu, delta)
    if wanted <= 0.0:
        raise ConfigError(
            f"plan '{plan.study}': the share of stage '{stage.kind}' is too small to pay for anything; give it more"
        )
    if isinstance(event, SampledGaussian):
        guess = sampled_guess(mu, event.sampling_rate, stage.rounds * event.steps)
    return least_noise(
        lambda noise: _stage_epsilon(stage.model_copy(update={_KEY: noise}), delta), wanted, guess, BELOW
    )


def _epsilon(plan: Plan) -> float:
    return epsilon(study_events(plan, "train"), plan.privacy.delta)


def _stage_epsilon(stage: Stage, delta: float) -> float:
    events: list[Event] = [stage.event] * stage.rounds
    return epsilon(events, delta)
