"""The shipped audit in its quick form: every claim holds, and every control with half the noise is caught."""

from __future__ import annotations

import numpy as np
import pytest
from audit_networks import MULTIPLIER, longest_step, one_shot_works, trained_work
from audit_privacy import Row, audit, log_ratio, noise_scaled, transcript, transcript_mu
from audit_targets import NOISE, PATIENTS, Target, canaries, cohort, matched_target, one_shot_targets

from sfumato_client.dataset.cohort import Cohort
from sfumato_client.training.dp import bookkeeping, contract
from sfumato_common.generators.spectral import sums


@pytest.mark.slow
@pytest.mark.timeout(900)  # minutes, on a busy machine more
def test_no_claim_is_violated_and_every_control_is_caught():
    rows = audit(quick=True)
    assert len(rows) == 23
    assert [row for row in rows if not row.holds] == []
    assert [row for row in rows if not row.caught] == [], "an audit that cannot see half the noise says nothing"


def test_a_row_fails_where_it_must():
    assert Row("", "mu", 1.0, 1.3, 0.9, 1.7).holds
    assert not Row("", "mu", 1.0, 2.0, 1.7, 1.7).holds
    assert not Row("", "mu", 1.0, 1.0, 0.8, 0.9).caught
    assert not Row("", "mu", 1.0, float("nan"), float("nan"), 2.0).holds


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


@pytest.mark.parametrize("name", one_shot_works())
def test_codes_and_embeddings_move_a_release_by_what_is_charged_and_without_a_clip_by_more(name, monkeypatch):
    """Of a patient who is all extremes, by a network of crafted weights; radii and centres follow what was noised."""
    target = matched_target(name, one_shot_works()[name]())
    assert 0.5 < transcript_mu(target) * NOISE <= 1.0 + 1e-6
    monkeypatch.setattr(sums, "in_unit_ball", lambda vectors, radius: vectors / radius)
    assert transcript_mu(target) * NOISE > 1.05


@pytest.mark.parametrize("name", one_shot_works())
def test_no_patient_moves_codes_or_embeddings_by_more_whatever_images_and_labels_it_has(name):
    """Patients of several images of either class at the extremes, alone in a class, or alone in the cohort."""
    work, rng, extremes = one_shot_works()[name](), np.random.default_rng(0), np.stack(canaries())
    for turn in range(12):
        some = rng.integers(0, len(extremes), rng.integers(1, 7))
        labels = rng.integers(0, 2, len(some))
        same = Cohort(cohort(None).images, np.zeros(PATIENTS, np.int64), np.arange(PATIENTS))
        nobody = Cohort(extremes[:0], labels[:0], labels[:0])
        gone = (cohort(None), same, nobody)[turn % 3]
        own = extremes[some], labels, np.full(len(some), gone.patients)
        there = Cohort(*(np.concatenate(parts) for parts in zip(gone.everything(), own, strict=True)))

        def run(present, recorder, noise, there=there, gone=gone):
            return work(there if present else gone, recorder, noise)

        assert transcript_mu(Target("", 1.0, run)) * NOISE <= 1.0 + 1e-6


@pytest.mark.parametrize("kind", ["stylegan2", "diffusion"])
def test_a_trainers_clipped_gradient_is_what_is_charged_and_without_a_clip_more(kind, monkeypatch):
    work = trained_work(kind, steps=6)
    assert 0.95 / MULTIPLIER < longest_step(work, 1)[0] < 1.05 / MULTIPLIER
    for module in (bookkeeping, contract):
        monkeypatch.setattr(module, "clip_factors", lambda squared, norm: squared.new_ones(len(squared)).float())
    assert longest_step(work, 1)[1] > 1.5 / MULTIPLIER
