"""Weights before the noise, or with too little: a faulty trainer stands in for a faulty version; the egress refuses.

What was reserved stays charged: over-counted, never under-counted.
"""

import dataclasses

import numpy as np
import pytest
from support.hospital import ONE_SITE

from sfumato_client.ledger import Ledger
from sfumato_client.site import handler
from sfumato_client.training.gan import train_discriminator as HONEST
from sfumato_common.accounting.events import event_to_json
from sfumato_common.errors import ConfigError
from sfumato_common.generators.update import UPDATE, pack_update
from sfumato_common.mechanisms.noise import SecureNoise
from sfumato_common.mechanisms.recorder import NoiseRecorder
from sfumato_common.mechanisms.sealed import Sealed, digest_of
from sfumato_common.strict import parse
from sfumato_common.study.plan import Plan

Arrays = dict


def inbound(job):
    return {name: value for name, value in job.inbound.items() if name.startswith("discriminator/")}


def nothing_learned(job) -> Arrays:
    return {UPDATE: pack_update(inbound(job), inbound(job))}


def noised_with(job, sigma=1.0, rate=0.2, steps=2, recorder=None) -> Arrays:
    recorder = recorder or job.recorder
    for _ in range(steps):
        recorder.sampled_gaussian(np.zeros(3), 1.0, sigma, rate)
    return nothing_learned(job)


def forged(job) -> Sealed:
    arrays, event = nothing_learned(job), job.plan.stage("gan").event
    return Sealed(arrays, (event,), "entry", digest_of(arrays), bytes(32))


FAULTS = {
    "the weights that came in": (nothing_learned, "no mechanism ran for this charge"),
    "what is no arrays": (lambda job: list(HONEST(job).values()), "only arrays and bytes can be sealed"),
    "a seal of its own making": (forged, "only arrays and bytes can be sealed"),
    "a seal of its own making, after noise": (
        lambda job: (noised_with(job), forged(job))[1],
        "only arrays and bytes can be sealed",
    ),
    "too little noise": (lambda job: noised_with(job, sigma=0.5), "not the one that the ledger was charged for"),
    "another sampling rate": (lambda job: noised_with(job, rate=0.1), "not the one that the ledger was charged for"),
    "too few steps": (lambda job: noised_with(job, steps=1), "not the one that the ledger was charged for"),
    "too many steps": (lambda job: noised_with(job, steps=3), "not the one that the ledger was charged for"),
    "a step more with other noise": (
        lambda job: (job.recorder.sampled_gaussian(np.zeros(3), 1.0, 9.0, 0.2), noised_with(job))[1],
        "not the one that the ledger was charged for",
    ),
    "a one-shot release beside the steps": (
        lambda job: (job.recorder.gaussian(np.zeros(3), 1.0, 9.0), noised_with(job))[1],
        "not the one that the ledger was charged for",
    ),
    "records beside the steps": (
        lambda job: (noised_with(job), job.recorder.local_laplace(np.zeros((2, 3)), 1.0, 9.0, "l1"))[0],
        "not the one that the ledger was charged for",
    ),
    "the noise of another round": (
        lambda job: noised_with(job, recorder=NoiseRecorder(job.noise, "0" * 64)),
        "no mechanism ran for this charge",
    ),
    "a loss beside the update": (
        lambda job: {**HONEST(job), "loss": np.float32([0.5])},
        "other arrays than the plan declares",
    ),
    "a number of examples": (
        lambda job: {**HONEST(job), "num_examples": np.float32([31])},
        "other arrays than the plan declares",
    ),
    "the size of a batch in the padding": (lambda job: padded(HONEST(job), 31), "its padding is not empty"),
    "a longer update": (
        lambda job: {UPDATE: np.append(HONEST(job)[UPDATE], np.zeros(256, np.uint16))},
        "another dtype or shape",
    ),
    "an unrounded update": (lambda job: {UPDATE: HONEST(job)[UPDATE].astype(np.float32)}, "another dtype or shape"),
    "no update": (lambda job: (HONEST(job), {})[1], "other arrays than the plan declares"),
    "an update that is not finite": (
        lambda job: {UPDATE: np.uint16(0x7FC0) * (HONEST(job)[UPDATE] > 0)},
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
    monkeypatch.setattr("sfumato_client.training.gan.train_discriminator", trainer)
    request = midway.asked["gan", 2]
    paid = ("gan", 2, "train", midway.plan.stage("gan").event)
    midway.refuses(request, "egress-refused", reason, paid=[paid])
    assert not list(midway.home.outbox.glob("*-gan-2-*"))
    # an honest version may not run the round again either: the site cannot know what the faulty one let out
    monkeypatch.setattr("sfumato_client.training.gan.train_discriminator", HONEST)
    midway.refuses(request, "ledger-refused", "was charged before: it may not run again")


def refused_and_paid(midway, reason):
    paid = ("gan", 2, "train", midway.plan.stage("gan").event)
    midway.refuses(midway.asked["gan", 2], "egress-refused", reason, paid=[paid])
    assert not list(midway.home.outbox.glob("*-gan-2-*"))
    with midway.home.open_ledger() as ledger:
        assert ledger.unsettled_charges() == [ledger.entries()[-1].number]


def changed_after_the_seal(sealed):
    sealed.result[UPDATE][0] ^= 1
    return sealed


@pytest.mark.parametrize(
    ("between", "reason"),
    [
        (changed_after_the_seal, "not what a recorded mechanism"),
        (lambda sealed: dataclasses.replace(sealed, _seal=bytes(32)), "not what a recorded mechanism"),
        (lambda sealed: sealed.result, "no recorded mechanism made"),
        (
            lambda sealed: NoiseRecorder(SecureNoise(), "0" * 64).seal_result(sealed.result),
            "noised under another reservation",
        ),
    ],
)
def test_what_changed_between_the_seal_and_the_door_does_not_leave(midway, monkeypatch, between, reason):
    honest = handler.noised_reply
    monkeypatch.setattr(handler, "noised_reply", lambda sealed, *rest: honest(between(sealed), *rest))
    refused_and_paid(midway, reason)


def test_noise_that_is_drawn_after_the_seal_stops_the_reply(midway, monkeypatch):
    jobs, honest = [], handler.noised_reply
    monkeypatch.setattr(
        "sfumato_client.training.gan.train_discriminator", lambda job: (jobs.append(job), HONEST(job))[1]
    )

    def late(*given):
        reply = honest(*given)
        jobs[0].recorder.sampled_gaussian(np.zeros(3), 1.0, 1.0, 0.2)
        return reply

    monkeypatch.setattr(handler, "noised_reply", late)
    request = midway.asked["gan", 2]
    paid = ("gan", 2, "train", midway.plan.stage("gan").event)
    midway.refuses(request, "egress-refused", "drawn after the result was sealed", paid=[paid])
    assert not list(midway.home.outbox.glob("*-gan-2-*"))


def test_a_row_that_is_gone_from_the_disk_pays_for_nothing(midway, monkeypatch):
    entries = Ledger.entries
    monkeypatch.setattr(Ledger, "entries", lambda ledger: entries(ledger)[:-1])
    reply = midway.ask(midway.asked["gan", 2])
    midway.refused(reply, "egress-refused", "without a reservation")


def test_the_faults_are_caught_by_the_door_and_not_by_accident(midway, monkeypatch):
    monkeypatch.setattr("sfumato_client.training.gan.train_discriminator", lambda job: noised_with(job))
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
