"""The shipped audit in its quick form: every claim holds, and every control with half the noise is caught."""

from __future__ import annotations

import numpy as np
import pytest
from audit_privacy import Row, audit, log_ratio, noise_scaled, proved_epsilon, transcript
from audit_targets import Target, one_shot_targets


@pytest.mark.slow
@pytest.mark.timeout(900)  # minutes, on a busy machine more
def test_no_claim_is_violated_and_every_control_is_caught():
    rows = audit(quick=True)
    assert len(rows) == 18
    assert [row for row in rows if not row.holds] == []
    assert [row for row in rows if not row.caught] == [], "an audit that cannot see half the noise says nothing"


def test_a_row_fails_where_it_must():
    assert Row("", "mu", 1.0, 1.3, 0.9, 1.7).holds
    assert not Row("", "mu", 1.0, 2.0, 1.7, 1.7).holds
    assert not Row("", "mu", 1.0, 1.0, 0.8, 0.9).caught
    assert not Row("", "mu", 1.0, float("nan"), float("nan"), 2.0).holds


def test_an_epsilon_is_proved_from_counts_and_never_from_luck():
    rng = np.random.default_rng(0)
    same = proved_epsilon(rng.normal(0, 1, 4000), rng.normal(0, 1, 4000))
    apart = proved_epsilon(rng.laplace(0, 1, 40_000), rng.laplace(1, 1, 40_000))
    assert same[1] < 0.1
    assert 0.7 < apart[1] <= 1.0


def test_a_transcript_is_replayed_exactly_and_scaled_noise_is_seen():
    target: Target = one_shot_targets()[-1]
    draws = transcript(target, True)
    again = transcript(target, True, draws)
    assert all(np.array_equal(one.clean, other.clean) for one, other in zip(draws, again, strict=True))
    assert np.isfinite(log_ratio(target, draws))
    with noise_scaled(0.5):
        (half,) = transcript(target, True)
    residue = half.out - half.clean
    assert residue.std() == pytest.approx(half.scale / 2.0, rel=0.15)
