"""The figure on holdout patients as one thing that a request asks for."""

from __future__ import annotations

from sfumato_client.site.inbound import check_form
from sfumato_client.site.summing import require_single
from sfumato_client.site.work import Opened, Work
from sfumato_common.errors import PolicyRefusal
from sfumato_common.mechanisms.noise import NoiseSource
from sfumato_common.mechanisms.recorder import NoiseRecorder
from sfumato_common.metrics.utility import classifier_schema
from sfumato_common.protocol.messages import Request
from sfumato_common.study.costs import utility_event
from sfumato_common.study.plan import Plan
from sfumato_common.study.policy import Policy
from sfumato_common.types import Arrays, ArraySpec


def figure_work(request: Request, plan: Plan, policy: Policy) -> Work:
    """The noised histogram of holdout patients' scores by the request's classifier.

    Raises PolicyRefusal where the policy withholds it or the plan sums it, VerificationError for another classifier.
    """
    if plan.utility is None or policy.utility_figure == "withheld":
        raise PolicyRefusal("this site's policy withholds the utility figure")
    require_single(plan, "utility")
    from sfumato_client.training.utility import score_histogram

    check_form(request.arrays, classifier_schema(plan))
    schema = {"histogram": ArraySpec("float32", (len(plan.labels), plan.utility.bins))}

    def compute(opened: Opened, recorder: NoiseRecorder, noise: NoiseSource) -> Arrays:
        return score_histogram(plan, request.arrays, opened(), recorder)

    return Work("utility", utility_event(plan), "holdout", schema, lambda: None, compute)
