"""What a coordinator sets in Flower's context, run configuration or beside the records changes nothing here."""

import dataclasses
import shutil

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, MetricRecord, RecordDict
from support.hospital import empty_context, read

from sfumato_client.flower.app import HOME_VARIABLE
from sfumato_common.protocol.flower import encode
from sfumato_common.protocol.messages import ARRAYS_KEY, CONFIG_KEY

OVERRIDES = {
    "noise_multiplier": 0.0,
    "noise-multiplier": 0.0,
    "epsilon": 1e9,
    "delta": 1.0,
    "noise": "test",
    "clipping_norm": 1e9,
    "sampling_rate": 1.0,
    "local_steps": 1000,
    "minimum_patients": 0,
    "answer_interval_s": 0.0,
    "release.gate.declare_verdict": False,
}


def hostile_context(elsewhere) -> Context:
    homes = {name: str(elsewhere) for name in ("home", "root", "store", HOME_VARIABLE, "FLWR_HOME")}
    config = OVERRIDES | homes
    state = RecordDict({CONFIG_KEY: ConfigRecord(config), "metrics": MetricRecord({"noise_multiplier": 0.0})})
    return Context(run_id=1, node_id=1, node_config=config, state=state, run_config=config)


@pytest.mark.parametrize("key", [("spectral", 1), ("gan", 1)])
def test_no_context_changes_an_answer_or_a_charge(fresh, tmp_path, key):
    # under the policy's test noise an answer is reproducible: the same bytes with every override as without
    expected = None
    for context in (empty_context(), hostile_context(tmp_path / "elsewhere")):
        if expected is not None:
            restore(fresh)
        reply = read(fresh.message(encode(fresh.asked[key]), context=context))
        assert reply.status == "ok"
        got = {name: value.tobytes() for name, value in reply.arrays.items()}, fresh.charges()
        assert expected in (None, got)
        expected = got
    assert not (tmp_path / "elsewhere").exists()


def restore(hospital):
    """As if nothing had been asked."""
    for path in (hospital.home.outbox, hospital.home.last_received):
        shutil.rmtree(path, ignore_errors=True)
    for path in hospital.home.root.glob("ledger.sqlite*"):
        path.unlink()


def test_the_context_is_given_back_as_it_came(fresh, tmp_path):
    # its state stays with the SuperNode, but nothing of the site's belongs there
    context = hostile_context(tmp_path)
    before = repr(context)
    fresh.message(encode(fresh.request("stage", "spectral", 1)), context=context)
    assert repr(context) == before


@pytest.mark.parametrize("name", ["noise_multiplier", "epsilon", "home", "run_config", "num_examples", "arrays"])
@pytest.mark.parametrize("value", [0.0, "x", [1.0, 2.0], b"bytes"])
def test_extra_settings_in_the_message_are_refused(fresh, name, value):
    records = encode(fresh.request("stage", "spectral", 1))
    records[CONFIG_KEY] = ConfigRecord({**records[CONFIG_KEY], name: value})
    fresh.refused(read(fresh.message(records)), "verification-failed", "unknown or missing fields")
    assert fresh.charges() == []


@pytest.mark.parametrize(
    "extra",
    [
        {"fit_metrics": MetricRecord({"noise_multiplier": 0.0})},
        {"settings": ConfigRecord({"noise_multiplier": 0.0})},
        {"more": ArrayRecord({})},
        {CONFIG_KEY: MetricRecord({"round": 1})},
        {ARRAYS_KEY: ConfigRecord({})},
    ],
)
def test_extra_and_exchanged_records_are_refused(fresh, extra):
    records = encode(fresh.request("stage", "spectral", 1))
    for name, record in extra.items():
        records[name] = record
    reason = "other records than" if set(extra) - {CONFIG_KEY, ARRAYS_KEY} else "of the wrong kind"
    fresh.refused(read(fresh.message(records)), "verification-failed", reason)
    assert fresh.charges() == []


@pytest.mark.parametrize("missing", [{CONFIG_KEY}, {ARRAYS_KEY}, {CONFIG_KEY, ARRAYS_KEY}])
def test_missing_records_are_refused(fresh, missing):
    whole = encode(fresh.request("stage", "spectral", 1))
    records = RecordDict({name: whole[name] for name in set(whole) - missing})
    fresh.refused(read(fresh.message(records)), "verification-failed", "other records than")
    assert fresh.charges() == []


@pytest.mark.parametrize("name", ["noise_multiplier", "../../policy.yaml", "spectral/mean", "update"])
def test_extra_arrays_are_refused(midway, name):
    request = midway.asked["gan", 2]
    extra = np.zeros(3, np.float32)
    records = encode(dataclasses.replace(request, arrays={**request.arrays, f"{name}x": extra}))
    before = midway.charges()
    midway.refused(read(midway.message(records)), "verification-failed", "not those of the accepted plan")
    assert midway.charges() == before
    # beside the pack there is room for none
    records[ARRAYS_KEY] = ArrayRecord({**records[ARRAYS_KEY], f"{name}x": Array(extra)})
    midway.refused(read(midway.message(records)), "verification-failed", "do not come as one pack")
    assert midway.charges() == before
