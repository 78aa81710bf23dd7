"""Weights before the noise, or with too little: a faulty trainer stands in for a faulty version; the egress refuses.

What was reserved stays charged: over-counted, never under-counted.
"""

import numpy as np
import pytest
from hospital import ONE_SITE

from sfumato_client import training
from sfumato_common.accounting.events import event_to_json
from sfumato_common.errors import ConfigError
from sfumato_common.generators.update import UPDATE, pack_update
from sfumato_common.mechanisms.recorder import Noised, NoiseRecorder
from sfumato_common.study.costs import round_event
from sfumato_common.study.plan import Plan
from sfumato_common.study.strict import parse

HONEST = training.TRAINERS["gan"]
Arrays = dict


def inbound(job):
    return {name: value for name, value in job.inbound.items() if name.startswith("discriminator/")}


def nothing_learned(job) -> Arrays:
    return {UPDATE: pack_update(inbound(job), inbound(job))}


def noised_with(job, sigma=1.0, rate=0.2, steps=2, recorder=None) -> Noised:
    recorder = recorder or job.recorder
    for _ in range(steps):
        recorder.sampled_gaussian(np.zeros(3), 1.0, sigma, rate)
    return recorder.sealed(nothing_learned(job))


def altered(job, change) -> Noised:
    noised = HONEST(job)
    change(noised.arrays)
    return noised


def first_element(arrays):
    arrays[UPDATE][0] ^= 1


FAULTS = {
    "the weights that came in": (lambda job: job.recorder.sealed(nothing_learned(job)), "no single mechanism ran"),
    "arrays that no recorder saw": (nothing_learned, "no recorded mechanism made"),
    "a seal of its own making": (
        lambda job: Noised(nothing_learned(job), round_event(job.plan.stage("gan")), "entry", bytes(32)),
        "not what a recorded mechanism sealed",
    ),
    "too little noise": (lambda job: noised_with(job, sigma=0.5), "not the one that the ledger was charged for"),
    "another sampling rate": (lambda job: noised_with(job, rate=0.1), "not the one that the ledger was charged for"),
    "too few steps": (lambda job: noised_with(job, steps=1), "not the one that the ledger was charged for"),
    "too many steps": (lambda job: noised_with(job, steps=3), "not the one that the ledger was charged for"),
    "a step more with other noise": (
        lambda job: (job.recorder.sampled_gaussian(np.zeros(3), 1.0, 9.0, 0.2), noised_with(job))[1],
        "no single mechanism ran",
    ),
    "the noise of another round": (
        lambda job: noised_with(job, recorder=NoiseRecorder(job.noise, "0" * 64)),
        "noised under another reservation",
    ),
    "an update changed after the noise": (lambda job: altered(job, first_element), "not what a recorded mechanism"),
    "a loss beside the update": (
        lambda job: job.recorder.sealed({**HONEST(job).arrays, "loss": np.float32([0.5])}),
        "other arrays than the plan declares",
    ),
    "a number of examples": (
        lambda job: job.recorder.sealed({**HONEST(job).arrays, "num_examples": np.float32([31])}),
        "other arrays than the plan declares",
    ),
    "the size of a batch in the padding": (
        lambda job: job.recorder.sealed(padded(HONEST(job).arrays, 31)),
        "its padding is not empty",
    ),
    "a longer update": (
        lambda job: job.recorder.sealed({UPDATE: np.append(HONEST(job).arrays[UPDATE], np.zeros(256, np.uint16))}),
        "another dtype or shape",
    ),
    "an unrounded update": (
        lambda job: job.recorder.sealed({UPDATE: HONEST(job).arrays[UPDATE].astype(np.float32)}),
        "another dtype or shape",
    ),
    "no update": (lambda job: (HONEST(job), job.recorder.sealed({}))[1], "other arrays than the plan declares"),
    "an update that is not finite": (
        lambda job: job.recorder.sealed({UPDATE: np.uint16(0x7FC0) * (HONEST(job).arrays[UPDATE] > 0)}),
        "is not finite",
    ),
}  # fmt: skip


def padded(arrays, value):
    update = arrays[UPDATE].copy()
    assert update[-1] == 0
    update[-1] = value
    return {UPDATE: update}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_was_not_noised_as_charged_does_not_leave_and_stays_paid(midway, monkeypatch, fault):
    trainer, reason = FAULTS[fault]
    monkeypatch.setitem(training.TRAINERS, "gan", trainer)
    request = midway.asked["gan", 2]
    paid = ("gan", 2, "train", round_event(midway.plan.stage("gan")))
    midway.refuses(request, "egress-refused", reason, paid=[paid])
    assert not list(midway.home.outbox.glob("*-gan-2-*"))
    # an honest version may not run the round again either: the site cannot know what the faulty one let out
    monkeypatch.setitem(training.TRAINERS, "gan", HONEST)
    midway.refuses(request, "ledger-refused", "was charged before: it may not run again")


def test_the_faults_are_caught_by_the_door_and_not_by_accident(midway, monkeypatch):
    monkeypatch.setitem(training.TRAINERS, "gan", lambda job: noised_with(job))
    assert midway.ask(midway.asked["gan", 2]).status == "ok"


@pytest.mark.parametrize(
    "change",
    [{"rounds": 0}, {"local_steps": 0}, {"noise_multiplier": 0.0}, {"noise_multiplier": float("inf")},
     {"noise_multiplier": -1.0}, {"clipping_norm": 0.0}, {"sampling_rate": 0.0}, {"local_steps": 1.5}],
)  # fmt: skip
def test_a_plan_cannot_say_a_round_without_a_noised_step(change):
    stages = [{**stage, **change} if stage["kind"] == "gan" else stage for stage in ONE_SITE["stages"]]
    with pytest.raises(ConfigError, match=next(iter(change))):
        parse({**ONE_SITE, "stages": stages}, Plan, "plan")


def test_what_a_round_is_charged_is_what_the_plan_states(midway):
    stage = midway.plan.stage("gan")
    assert event_to_json(midway.charges()[-1][3]) == {
        "mechanism": "SampledGaussian",
        "noise_multiplier": stage.noise_multiplier,
        "sampling_rate": stage.sampling_rate,
        "steps": stage.local_steps,
    }
