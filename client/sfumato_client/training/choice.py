"""Choice stage at the site: every candidate's classifier scores this site's training patients; noisy histograms leave.

A patient adds one count to one cell of each of the C histograms, so the L2 sensitivity under add/remove of a patient is
sqrt(C), and the whole answer is one Gaussian mechanism (Dwork and Roth 2014, appendix A). See metrics/choice.py.
"""

from __future__ import annotations

import math

import numpy as np

from sfumato_client.training import StageJob
from sfumato_common.exchanges.choice import HISTOGRAMS, ChoiceStage
from sfumato_common.generators.summed import Float64, Phase
from sfumato_common.mechanisms.histogram import patient_scores, score_counts
from sfumato_common.metrics.choice import classifier_of, spread
from sfumato_common.metrics.utility import score
from sfumato_common.types import Arrays


def score_candidates(job: StageJob[ChoiceStage]) -> Arrays:
    """`histograms`: noisy counts [C, K, bins] of training patients by label and mean score (in log-odds), float32."""
    counts = _counts(job)
    noisy = job.recorder.gaussian(counts, math.sqrt(len(counts)), job.stage.noise_multiplier)
    return {HISTOGRAMS: noisy.astype(np.float32)}


def counts_of_sum(job: StageJob[ChoiceStage], phase: Phase, earlier: Arrays, noise_multiplier: float) -> Arrays:
    """This site's part of the summed histograms, without noise."""
    return {HISTOGRAMS: _counts(job)}


def _counts(job: StageJob[ChoiceStage]) -> Float64:
    stage = job.stage
    images, labels, patient_index = job.cohort.everything()
    counts = []
    for kind in job.plan.candidates:
        scores = spread(score(job.plan, classifier_of(kind, job.inbound), images))
        means, label = patient_scores(scores, labels, patient_index, job.cohort.patients)
        counts.append(score_counts(means, label, stage.bins, len(job.plan.labels)))
    return np.stack(counts)
