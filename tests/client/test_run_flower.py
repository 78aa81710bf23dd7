"""The Flower mod and the plain hooks: charged before the app runs, refused by code alone, private whatever it did."""

from __future__ import annotations

from contextlib import contextmanager

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.common.constant import ErrorCode
from support.hospital import empty_context, instruction

from sfumato import ledger
from sfumato.ledger import flower, hooks
from sfumato.ledger.update import WholeUpdate
from sfumato_common.accounting.accountant import epsilon
from sfumato_common.accounting.events import GaussianRelease
from sfumato_common.errors import BudgetExceeded, EgressRefused, PolicyRefusal
from sfumato_common.mechanisms.noise import SecureNoise
from sfumato_common.mechanisms.recorder import NoiseRecorder

MECHANISM = WholeUpdate(clipping_norm=1.0, noise_multiplier=4.0)
SHAPES = {"weight": (20, 30), "bias": (30,)}


@pytest.fixture
def path(tmp_path):
    ledger.create_ledger(tmp_path / "book.sqlite", site="alder", epsilon=1.8, delta=1e-5)
    return tmp_path / "book.sqlite"


def opener(path, tool=flower.TOOL):
    @contextmanager
    def open_site(context):
        with ledger.open_run(path, study="hearts", purpose="a test", patients=["a", "b"], tool=tool) as run:
            yield run

    return open_site


def record(value):
    return ArrayRecord({name: Array(np.full(shape, value, np.float32)) for name, shape in SHAPES.items()})


def client_app(path, train, **more):
    app = ClientApp(mods=[flower.ledger_mod(opener(path, **more), MECHANISM)])
    app.train()(train)
    app.evaluate()(train)
    return app


def ask(app, kind="train", content=None):
    return app(instruction(content or RecordDict({"model": record(0.5)}), kind), empty_context())


def test_the_app_runs_under_a_charge_and_its_update_leaves_clipped_and_noised(path):
    seen = []

    def train(message, context):
        with ledger.open_run(path, study="hearts", purpose="a test", patients=["a", "b"], tool=flower.TOOL) as run:
            seen.append(len(run.charges()))
        said = MetricRecord({"num-examples": 217, "loss": 0.25})
        return Message(RecordDict({"model": record(1e6), "metrics": said}), reply_to=message)

    reply = ask(client_app(path, train))
    assert seen == [1], "charged before the app touched anybody"
    assert not reply.has_error()
    assert dict(reply.content["metrics"]) == {"num-examples": 1}, "no count and no loss of patients leaves"
    assert set(reply.content) == {"model", "metrics"}
    moved = np.concatenate([one.ravel() for one in reply.content["model"].to_numpy_ndarrays()]) - 0.5
    assert moved.std() == pytest.approx(8.0, rel=0.15), "noise of noise_multiplier x 2 clipping norms"
    assert abs(moved.mean()) < 2.0, "and no update of a million"
    with opener(path)(None) as run:
        assert run.certificate().epsilon.train.add_remove >= epsilon([GaussianRelease(4.0)], 1e-5)
        assert run.certificate().open == 0


def unchanged(message, context):
    return Message(RecordDict({"model": message.content["model"]}), reply_to=message)


def test_over_budget_the_app_is_not_called_and_a_code_leaves(path):
    called = []

    def train(message, context):
        called.append(1)
        return unchanged(message, context)

    app = client_app(path, train)
    replies = [ask(app) for _ in range(5)]
    refused = [reply.error for reply in replies if reply.has_error()]
    assert refused
    assert len(called) == 5 - len(refused)
    assert {(error.code, error.reason) for error in refused} == {(ErrorCode.MOD_FAILED_PRECONDITION, "budget-exceeded")}


def failing(message, context):
    raise ValueError("patient Anna Muster has no left lung")


def shorter(message, context):
    made = ArrayRecord({"weight": Array(np.zeros((2, 2), np.float32)), "bias": Array(np.zeros(30, np.float32))})
    return Message(RecordDict({"model": made}), reply_to=message)


def renamed(message, context):
    made = ArrayRecord({name.upper(): array for name, array in message.content["model"].items()})
    return Message(RecordDict({"model": made}), reply_to=message)


def bare(message, context):
    return Message(RecordDict({"counts": MetricRecord({"patients": 217})}), reply_to=message)


@pytest.mark.parametrize(
    ("train", "code"),
    [(failing, "failed"), (shorter, "egress-refused"), (renamed, "egress-refused"), (bare, "egress-refused")],
)
def test_what_goes_wrong_leaves_as_a_code_and_stays_charged(path, train, code):
    reply = ask(client_app(path, train))
    assert (reply.error.code, reply.error.reason) == (ErrorCode.MOD_FAILED_PRECONDITION, code)
    with opener(path)(None) as run:
        assert run.certificate().open == 1


def test_messages_that_nobody_charges_for_do_not_reach_the_app(path):
    app = client_app(path, failing)
    two = RecordDict({"model": record(0.0), "other": record(0.0)})
    assert [ask(app, "evaluate").error.reason, ask(app, "train", two).error.reason] == ["policy-refused"] * 2
    other = client_app(path, failing, tool=ledger.BLOCKS)
    assert ask(other).error.reason == "policy-refused"


def test_an_update_that_is_no_number_counts_as_none():
    recorder = NoiseRecorder(SecureNoise(), "test")
    before = [np.zeros((4, 4), np.float32)]
    made = MECHANISM.release(recorder, before, [np.full((4, 4), np.nan, np.float32)])
    assert np.isfinite(made[0]).all()
    assert recorder.executed == (GaussianRelease(4.0),)


def test_hooks_charge_before_and_release_after(path):
    with opener(path, hooks.TOOL)(None) as run:
        hook = hooks.UpdateHook(run, MECHANISM)
        with pytest.raises(EgressRefused, match="'before' first"):
            hook.after([np.ones(5)])
        hook.before([np.zeros(5)])
        assert len(run.charges()) == 1
        with pytest.raises(EgressRefused, match="under way"):
            hook.before([np.zeros(5)])
        (noised,) = hook.after([np.ones(5)])
        assert noised.shape == (5,)
        assert run.certificate().open == 0
        hook.before([np.zeros(5)])
        hook.reset()  # the training failed
        assert run.certificate().open == 1
        hook.before([np.zeros(5)])
        hook.after([np.ones(5)])
        with pytest.raises(BudgetExceeded):
            hook.before([np.zeros(5)])
    with opener(path)(None) as run, pytest.raises(PolicyRefusal, match=r"hooks\.TOOL"):
        hooks.UpdateHook(run, MECHANISM)
