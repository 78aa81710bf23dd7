"""The noise sources: key stream, independence of instances and processes, loud test mode; the noisy histogram."""

from __future__ import annotations

import copy
import math
import multiprocessing
import os
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sfumato_common.mechanisms.histogram import noisy_score_histogram
from sfumato_common.mechanisms.noise import KeyStream, SecureNoise, TestNoise
from sfumato_common.mechanisms.recorder import NoiseRecorder

# RFC 8439, appendix A.1, test vectors 1 and 2: key and nonce zero, block counters 0 and 1
RFC_8439 = (
    "76b8e0ada0f13d90405d6ae55386bd28bdd219b8a08ded1aa836efcc8b770dc7"
    "da41597c5157488d7724e03fb8d84a376a43b8f41518a11cc387b669b2ee6586"
    "9f07e7be5551387a98ba977c732d080dcb0f29a048e3656912c6533e32ee7aed"
    "29b721769ce64e43d57133b074d839d531ed1f28510afb45ace10a1f4b794d6f"
)


def test_the_key_stream_is_chacha20():
    stream = KeyStream(bytes(32))
    words = np.concatenate([stream.words(count) for count in (1, 8, 7)])  # across calls and blocks
    assert words.tobytes().hex() == RFC_8439


def test_a_secure_source_takes_its_key_from_the_operating_system_alone(monkeypatch):
    for seed in ((1,), (os.urandom(32),)):
        with pytest.raises(TypeError):
            SecureNoise(*seed)
    asked = []
    monkeypatch.setattr(os, "urandom", lambda size: asked.append(size) or bytes(size))
    assert SecureNoise().words(16).tobytes().hex() == RFC_8439
    assert asked == [32]


def test_a_secure_source_cannot_be_duplicated():
    source = SecureNoise()
    with pytest.raises(TypeError):
        copy.deepcopy(source)
    with pytest.raises(TypeError):
        pickle.dumps(source)
    assert copy.copy(source).uniform((2,)).tobytes() != source.uniform((2,)).tobytes()  # one stream under two names


def _draw_in_child(source, results):
    grandchild = multiprocessing.get_context("fork").Process(target=_draw, args=(source, results))
    grandchild.start()
    _draw(source, results)
    _draw(source, results)
    grandchild.join(20)


def _draw(source, results):
    results.put(source.normal((3,), 1.0).tobytes())


def test_a_forked_child_never_repeats_its_parents_noise():
    fork = multiprocessing.get_context("fork")
    source, results = SecureNoise(), fork.Queue()
    source.normal((3,), 1.0)
    children = [fork.Process(target=_draw_in_child, args=(source, results)) for _ in range(2)]
    for child in children:
        child.start()
    # each child draws twice and its own child once: by then the parent would stand at the very same place
    draws = [results.get(timeout=20) for _ in range(6)] + [source.normal((3,), 1.0).tobytes() for _ in range(3)]
    for child in children:
        child.join(20)
        assert child.exitcode == 0
    assert len(set(draws)) == 9


def test_two_secure_sources_differ_and_one_never_repeats():
    first, second = SecureNoise(), SecureNoise()
    draws = [source.normal((4,), 1.0).tobytes() for source in (first, first, second)]
    assert len(set(draws)) == 3
    assert not first.test


def test_test_noise_is_reproducible_and_loud():
    with pytest.warns(UserWarning, match="NO privacy"):
        one, two = TestNoise(5), TestNoise(5)
    assert one.test
    assert np.array_equal(one.normal((3, 5), 2.0), two.normal((3, 5), 2.0))


@pytest.mark.parametrize("scale", [-1.0, math.nan, math.inf])
def test_a_scale_that_is_no_scale_is_refused(scale):
    with pytest.raises(ValueError, match="scale"):
        SecureNoise().normal((2,), scale)


class _NoNoise:
    test = True

    def normal(self, shape, scale):
        return np.zeros(shape)


@given(st.lists(st.tuples(st.floats(allow_nan=True), st.integers(0, 2)), max_size=30), st.data())
@settings(max_examples=60, deadline=None)
def test_a_patient_moves_one_cell_of_the_histogram_by_one(patients, data):
    def counts(entries):
        scores = np.array([entry[0] for entry in entries], dtype=np.float64)
        labels = np.array([entry[1] for entry in entries], dtype=np.int64)
        return noisy_score_histogram(scores, labels, 8, 3, 1.0, NoiseRecorder(_NoNoise(), ""))

    everyone = counts(patients)
    assert everyone.sum() == len(patients)
    if patients:
        gone = data.draw(st.integers(0, len(patients) - 1))
        change = everyone - counts(patients[:gone] + patients[gone + 1 :])
        assert np.linalg.norm(change) == 1.0


def test_histogram_has_noise_and_checks_its_input():
    scores, labels = np.full(1000, 0.5), np.zeros(1000, dtype=np.int64)
    released = noisy_score_histogram(scores, labels, 20, 2, 4.0, NoiseRecorder(SecureNoise(), ""))
    assert released.dtype == np.float32
    assert 2.0 < released[1].std() < 7.0
    with pytest.raises(ValueError, match="one entry a patient"):
        noisy_score_histogram(scores[:5], labels, 20, 2, 4.0, NoiseRecorder(SecureNoise(), ""))
    with pytest.raises(ValueError, match="classes"):
        noisy_score_histogram(scores, labels + 2, 20, 2, 4.0, NoiseRecorder(SecureNoise(), ""))
