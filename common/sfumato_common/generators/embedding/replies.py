"""What an honest embedding release can be: see `generators.replies`."""

from __future__ import annotations

import numpy as np

from sfumato_common.generators.embedding.features import COUNT_WEIGHT, FEATURE_WEIGHT, SENSITIVITY
from sfumato_common.generators.embedding.settings import EmbeddingStage
from sfumato_common.generators.plan import PublicPlan
from sfumato_common.generators.replies import check_counts, check_norms, most_patients
from sfumato_common.generators.settings import stage_of
from sfumato_common.types import Arrays


def check_reply(plan: PublicPlan, site: str, arrays: Arrays) -> None:
    """Raise VerificationError for noised sums that patients of `site` cannot have given."""
    check_sums(arrays, stage_of(plan, EmbeddingStage).noise_multiplier, most_patients(plan, site))


def check_sums(arrays: Arrays, noise_multiplier: float, patients: float) -> None:
    """Raise VerificationError for noised sums that so many patients cannot have given."""
    sums, sigma = arrays["sums"].astype(np.float64), SENSITIVITY * noise_multiplier
    counts = check_counts(sums[:, 0], COUNT_WEIGHT, sigma, patients)
    check_norms(sums[:, 1:], FEATURE_WEIGHT, counts, sigma)
