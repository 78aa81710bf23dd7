"""Arrays that a request names by digest: a site takes what it has under exactly that, and treats it like what comes."""

from __future__ import annotations

import dataclasses
import shutil

import numpy as np
import pytest
from flwr.app import ConfigRecord
from support.hospital import read

from sfumato_client.site.received import Received
from sfumato_common.protocol.flower import encode
from sfumato_common.protocol.messages import CONFIG_KEY
from sfumato_common.protocol.pack import array_digest, pack

SPECTRAL = "spectral/factor"
WEIGHTS = "discriminator/head.bias"


def holding(request, *names, **digests):
    """The request without the arrays `names`, which it names by their digests, or by others."""
    held = {name: array_digest(name, request.arrays[name]) for name in names}
    brought = {name: value for name, value in request.arrays.items() if name not in names}
    return dataclasses.replace(request, arrays=brought, held={**held, **digests})


def fixed_of(request):
    return [name for name in request.arrays if name.startswith("spectral/")]


def store_of(hospital):
    return Received(hospital.home.received, hospital.plan)


def files_of(hospital):
    return {path.name for path in hospital.home.received.rglob("*") if len(path.name) == 64}


def is_missing(hospital, request):
    """Nothing is done, charged or told but that something is missing."""
    before, errors = hospital.charges(), set(hospital.home.steward_folder.rglob("*.txt"))
    reply = hospital.ask(request)
    assert (reply.status, reply.code, reply.reference, dict(reply.arrays)) == ("missing", "", "", {})
    assert hospital.charges() == before
    assert set(hospital.home.steward_folder.rglob("*.txt")) == errors
    return True


def test_what_is_held_gives_the_very_answer_that_the_bytes_give(midway, tmp_path):
    request = midway.asked["gan", 2]
    twin = dataclasses.replace(midway, home=type(midway.home)(shutil.copytree(midway.home.root, tmp_path / "twin")))
    one, two = midway.ask(request), twin.ask(holding(request, *fixed_of(request)))
    assert one.status == two.status == "ok", twin.reason(two)
    assert all(np.array_equal(value, two.arrays[name]) for name, value in one.arrays.items())
    # and the question is the same one: answered before, it is answered with the same bytes
    again = twin.ask(request)
    assert all(np.array_equal(value, again.arrays[name]) for name, value in one.arrays.items())
    assert len(twin.charges()) == len(midway.charges())


@pytest.mark.parametrize("digest", ["0" * 64, "f" * 64])
def test_a_digest_of_nothing_is_missing_and_costs_nothing(midway, digest):
    assert is_missing(midway, holding(midway.asked["gan", 2], SPECTRAL, **{SPECTRAL: digest}))
    assert midway.ask(midway.asked["gan", 2]).status == "ok", "and the whole request is answered"


def test_an_array_of_another_study_is_missing(midway):
    request = midway.asked["gan", 2]
    other = midway.plan.model_copy(update={"study": "another"})
    assert other.digest != midway.plan.digest
    value = request.arrays[WEIGHTS] + np.float32(1e-6)
    Received(midway.home.received, other).keep(dataclasses.replace(request, arrays={WEIGHTS: value}))
    digest = array_digest(WEIGHTS, value)
    assert digest in files_of(midway), "it is in the home"
    assert is_missing(midway, holding(request, WEIGHTS, **{WEIGHTS: digest}))


def test_an_array_under_another_name_is_missing_though_it_fits(midway):
    request = midway.asked["gan", 2]
    shapes = {name: value.shape for name, value in request.arrays.items()}
    one, two = next(
        (one, two) for one in shapes for two in shapes if one < two and shapes[one] == shapes[two] and "/" in one
    )
    assert midway.ask(request).status == "ok"
    digest = array_digest(two, request.arrays[two])
    assert digest in files_of(midway)
    assert is_missing(midway, holding(request, one, **{one: digest}))


def test_an_array_of_another_stage_is_refused(trained):
    flow, gan = trained.asked["flow", 1], trained.asked["gan", 3]
    name = next(name for name in flow.arrays if name.startswith("flow/"))
    request = dataclasses.replace(gan, held={name: array_digest(name, flow.arrays[name])})
    trained.refuses(request, "verification-failed", "not those of the accepted plan")


def test_what_was_altered_on_disk_is_not_used(midway):
    request = midway.asked["gan", 2]
    name = array_digest(SPECTRAL, request.arrays[SPECTRAL])
    (path,) = midway.home.received.rglob(name)
    altered = request.arrays[SPECTRAL].copy()
    altered[0, 0, 0] += np.float32(1e-3)
    for data in (pack({SPECTRAL: altered}), pack({"other": altered}), path.read_bytes()[:-4], b"", b"\xff" * 64):
        path.write_bytes(data)
        assert is_missing(midway, holding(request, SPECTRAL))
        assert not path.exists()
    assert midway.ask(request).status == "ok"
    assert midway.ask(holding(request, SPECTRAL)).status == "ok", "it came again, and was kept again"


@pytest.mark.parametrize("changed", ["shape", "dtype", "name"])
def test_what_is_not_of_the_plans_form_is_neither_kept_nor_taken(midway, changed):
    request, before = midway.asked["gan", 2], files_of(midway)
    value = request.arrays[SPECTRAL]
    odd = {"shape": value[:1], "dtype": value.astype(np.float64), "name": value}[changed]
    name = "more" if changed == "name" else SPECTRAL
    asked = dataclasses.replace(request, arrays={**request.arrays, name: odd})
    midway.refuses(asked, "verification-failed", "accepted plan")
    assert files_of(midway) == before
    # were it there all the same, it would be refused like what comes
    store_of(midway).keep(asked)
    midway.refuses(holding(asked, name), "verification-failed", "accepted plan")


def test_weights_out_of_reach_are_refused_by_digest_as_by_bytes(midway):
    request = midway.asked["gan", 2]
    far = dataclasses.replace(request, arrays={**request.arrays, WEIGHTS: request.arrays[WEIGHTS] + np.float32(5.0)})
    store_of(midway).keep(far)
    midway.refuses(holding(far, WEIGHTS), "verification-failed", "not where the plan's training could have led")
    other = dataclasses.replace(
        request, arrays={**request.arrays, SPECTRAL: request.arrays[SPECTRAL] * np.float32(1.01)}
    )
    store_of(midway).keep(other)
    midway.refuses(holding(other, SPECTRAL), "verification-failed", "is another one than in this study's earlier")


def test_a_site_whose_store_is_gone_says_so_and_is_answered_whole(midway):
    shutil.rmtree(midway.home.received)
    request = midway.asked["gan", 2]
    assert is_missing(midway, holding(request, *fixed_of(request)))
    assert midway.ask(request).status == "ok"
    assert midway.ask(holding(midway.asked["gan", 3], *fixed_of(request))).status == "ok"


def test_only_the_last_requests_arrays_are_kept_however_often_one_asks(midway):
    request = midway.asked["gan", 2]
    assert midway.ask(request).status == "ok"
    size = len(files_of(midway))
    for number in range(5):
        value = request.arrays[WEIGHTS] + np.float32(1e-6 * (number + 1))
        reply = midway.ask(dataclasses.replace(request, arrays={**request.arrays, WEIGHTS: value}))
        assert reply.code == "ledger-refused"
        assert len(files_of(midway)) == size
    # the round before is gone, and what is left is exactly what the last request named
    assert is_missing(midway, holding(midway.asked["gan", 1], WEIGHTS))


def test_the_release_is_made_from_held_models_as_from_their_bytes(trained):
    request = trained.asked["make"]
    held = holding(request, *(name for name in request.arrays if name.partition(":")[2].startswith("spectral/")))
    assert len(held.held) == 15, "the five arrays that every stage was sent are part of each of three models"
    assert trained.ask(held).status == "ok"
    assert trained.ask(request).status == "ok", "the same request"
    assert trained.ask(holding(request, *request.arrays)).status == "ok"
    moved = {name: array_digest(name, value + np.float32(1.0)) for name, value in request.arrays.items()}
    assert is_missing(trained, dataclasses.replace(request, arrays={}, held=moved))


@pytest.mark.parametrize("kind", ["hello", "send"])
def test_a_request_without_arrays_holds_none_back(midway, kind):
    records = encode(midway.request(kind))
    records[CONFIG_KEY] = ConfigRecord({**records[CONFIG_KEY], "held": f"a {'0' * 64}"})
    midway.refused(read(midway.message(records)), "verification-failed", "brings arrays")


@pytest.mark.parametrize(
    "held",
    [
        0, b"", ["a", "0" * 64], "a", f"a {'0' * 63}", f"a {'0' * 64} ", f" a {'0' * 64}", f"a {'0' * 64} a {'1' * 64}",
        f"a {'0' * 64} b", f"../x {'A' * 64}", f"a ../../{'0' * 58}", f"{WEIGHTS} {'0' * 64}", "a " + "0" * 64 + "\n",
    ],
)  # fmt: skip
def test_a_malformed_list_of_held_arrays_is_refused(midway, held):
    records = encode(midway.asked["gan", 2])
    records[CONFIG_KEY] = ConfigRecord({**records[CONFIG_KEY], "held": held})
    before = midway.charges()
    reply = read(midway.message(records))
    assert (reply.status, reply.code) == ("refused", "verification-failed")
    assert midway.charges() == before
