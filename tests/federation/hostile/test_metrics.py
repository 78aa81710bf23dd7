"""Asking for metrics: other actions, other kinds, and what Flower itself would say of an error."""

import json
from types import SimpleNamespace

import pytest
from flwr.app import ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from support.hospital import empty_context, instruction, read

from sfumato_client.egress.flower_hooks import install_task_hooks
from sfumato_client.egress.guard import CODES
from sfumato_client.flower.app import app
from sfumato_common.protocol.flower import encode
from sfumato_common.protocol.messages import ARRAYS_KEY, CONFIG_KEY

ACTIONS = ["evaluate", "query", "train.metrics", "train.default", "evaluate.loss", "query.num_examples", "system"]


@pytest.mark.parametrize("action", ACTIONS)
def test_any_other_action_gets_a_code_and_a_reference(finished, action):
    before = finished.charges()
    reply = finished.message(encode(finished.asked["gan", 3]), action)
    finished.refused(read(reply), "policy-refused", "an action that this site does not have")
    assert only_our_records(reply)
    assert finished.charges() == before


def only_our_records(message):
    assert set(message.content) == {CONFIG_KEY, ARRAYS_KEY}
    assert isinstance(message.content[ARRAYS_KEY], ArrayRecord)
    assert isinstance(message.content[CONFIG_KEY], ConfigRecord)
    return not any(isinstance(record, MetricRecord) for record in message.content.values())


@pytest.mark.parametrize("kind", ["metrics", "train_metrics", "evaluate", "fit", "get_parameters", "num_examples"])
def test_kinds_that_the_protocol_does_not_have(finished, kind):
    records = encode(finished.request("hello"))
    records[CONFIG_KEY] = ConfigRecord({**records[CONFIG_KEY], "kind": kind})
    finished.refused(read(finished.message(records)), "verification-failed", "of a kind that this version")


@pytest.mark.parametrize("wish", ["loss", "num_examples", "num-examples", "accuracy", "metrics", "train_loss"])
def test_a_wish_for_a_figure_is_refused(fresh, wish):
    records = encode(fresh.request("stage", "spectral", 1))
    records[CONFIG_KEY] = ConfigRecord({**records[CONFIG_KEY], wish: 1})
    fresh.refused(read(fresh.message(records)), "verification-failed", "unknown or missing fields")
    assert fresh.charges() == []


@pytest.mark.parametrize("key", [("spectral", 1), ("gan", 1), ("flow", 1), "utility"])
def test_an_answer_holds_no_metrics_and_its_envelope_nothing_of_the_site(fresh, key):
    asked = instruction(encode(fresh.asked[key]))
    reply = app(asked, empty_context())
    assert read(reply).status == "ok"
    assert only_our_records(reply)
    assert set(reply.content[CONFIG_KEY]) == {"protocol", "status", "code", "reference"}
    assert reply.metadata.message_type == asked.metadata.message_type
    assert (reply.metadata.group_id, reply.metadata.reply_to_message_id) == ("", asked.metadata.message_id)
    assert reply.metadata.ttl <= asked.metadata.ttl
    assert str(fresh.patients()) not in json.dumps(dict(reply.content[CONFIG_KEY]))


@pytest.fixture
def runner():
    """Flower's client runtime with the site's hooks, and what would be pushed to the SuperNode."""
    from flwr.supernode.runtime import run_clientapp as runtime

    pushed = []
    fake = SimpleNamespace(
        install_from_fab=runtime.install_from_fab,
        get_load_client_app_fn=runtime.get_load_client_app_fn,
        Error=runtime.Error,
        push_task_output=lambda **values: pushed.append(values),
        run_clientapp=runtime.run_clientapp,
    )
    install_task_hooks(fake, app)
    return fake, pushed


@pytest.mark.parametrize("action", ACTIONS)
def test_the_runner_answers_any_action_without_an_exception(finished, runner, action):
    loaded = runner[0].get_load_client_app_fn(default_app_ref="evil:app", app_path="/", multi_app=True)("id", "1", "x")
    assert loaded is app
    reply = read(loaded(instruction(encode(finished.request("hello")), action), empty_context()))
    finished.refused(reply, "policy-refused", "an action that this site does not have")


def test_flowers_own_app_would_have_said_why(finished):
    # the reason for the hooks: an unregistered action raises, and the runner would send the text
    with pytest.raises(ValueError, match="No evaluate function registered"):
        ClientApp()(instruction(encode(finished.request("hello")), "evaluate"), empty_context())


REASONS = [
    "<class 'ValueError'>:<'No evaluate function registered with name default'>",
    "<class 'OSError'>:</archive/DOE^JANE/123.dcm: 47 patients, loss 0.123>",
    "",
    None,
]


@pytest.mark.parametrize("reason", REASONS)
def test_a_reason_that_flower_sends_is_a_code(runner, reason):
    fake, pushed = runner
    assert fake.Error(code=1, reason=reason).reason in CODES
    assert fake.Error(1, reason).reason == "failed"
    fake.push_task_output(client=None, context=None, sub_status="failed", details=reason or "")
    assert pushed[-1]["details"] in {"", "failed"}


def test_a_site_without_a_home_says_nothing_either(monkeypatch, runner):
    # the variable is missing: nothing can be logged, and Flower's error is silenced by the hook
    monkeypatch.delenv("SFUMATO_SITE_HOME", raising=False)
    with pytest.raises(KeyError) as raised:
        app(instruction(RecordDict({})), empty_context())
    assert runner[0].Error(code=1, reason=str(raised)).reason == "failed"
