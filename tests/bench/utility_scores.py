"""What the utility bench says about one set of images: scored on test patients, against the cohort's real images."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import torch
from cohorts import BenchCohort, pooled

from sfumato_common.config.plan import Plan
from sfumato_common.metrics.utility import auc, score, train_classifier
from sfumato_common.models.build import from_arrays, spectral_model
from sfumato_common.models.components import component_count, component_shares, condition
from sfumato_common.models.whitening import bits_per_dim, dequantise, standard_normal_log_prob
from sfumato_common.types import Arrays, ByteImages, to_unit_range

Scores = dict[str, float]


def scores_of(plan: Plan, cohort: BenchCohort, images: ByteImages, labels: npt.NDArray[np.int64], seed: int) -> Scores:
    """Utility of a labelled set, real or synthetic; figures that a cohort cannot have are left out."""
    classifier = train_classifier(plan, images, labels, seed)
    by_site = {site: score(plan, classifier, part.everything()[0]) for site, part in cohort.test.items()}
    result = {"auc": auc(np.concatenate(list(by_site.values())), pooled(cohort.test)[1])}
    if len(by_site) > 1:
        result |= {f"auc {site}": auc(found, cohort.test[site].labels) for site, found in by_site.items()}
    return {name: value for name, value in result.items() if math.isfinite(value)}


def held_out_bits(plan: Plan, kind: str, arrays: Arrays, cohort: BenchCohort) -> float:
    """Bits per dimension of test images, given their labels, under the spectral model or the flow (exact).

    Where the plan fits sites apart, a label's density is the mixture of its sites' by their released shares.
    """
    images, labels, _ = pooled(cohort.test)
    x, y = torch.from_numpy(to_unit_range(images)), torch.from_numpy(labels)
    classes, shares = len(plan.labels), torch.from_numpy(component_shares(plan, arrays)).log()
    by_site = []
    spectral = spectral_model(plan, arrays)
    flow = from_arrays("flow", plan, arrays) if kind == "flow" else None
    spread = dequantise(x, torch.Generator().manual_seed(0))
    with torch.no_grad():
        for first in range(0, component_count(plan), classes):
            component = y + first
            u, log_det = spectral.encode(spread, component)
            if flow is not None:
                u, more = flow(u, condition(plan, component))
                log_det = log_det + more
            by_site.append(standard_normal_log_prob(u) + log_det + shares[component])
        label_shares = torch.stack([shares[k::classes].logsumexp(0) for k in range(classes)])
        log_prob = torch.stack(by_site).logsumexp(0) - label_shares[y]
        return float(bits_per_dim(log_prob, x[0].numel()).mean())
