"""Probing by size and time: a reply is as long for a small cohort as for a large one, and leaves on the site's grid."""

import numpy as np
import pytest
import yaml
from support.hospital import GATE, ONE_SITE, make_hospital, size_on_the_wire

from sfumato_client.site import handler as site_module
from sfumato_common.errors import BudgetExceeded, DataError, EgressRefused, LedgerError
from sfumato_common.exchanges import EXCHANGES
from sfumato_common.generators.starts import initial_model
from sfumato_common.generators.weights import to_arrays
from sfumato_common.protocol.messages import Reply


@pytest.fixture(scope="module")
def crowd(tmp_path_factory):
    """The same plan at a hospital with three times the patients."""
    return make_hospital(tmp_path_factory.mktemp("crowd") / "alder", patients=120)


@pytest.mark.parametrize("key", [("spectral", 1), ("gan", 1), ("flow", 1), "utility"])
def test_a_reply_is_as_long_whatever_the_cohort(fresh, crowd, key):
    assert crowd.patients() > 2 * fresh.patients()
    few, many = fresh.ask(fresh.asked[key]), crowd.ask(fresh.asked[key])
    assert few.status == many.status == "ok"
    assert size_on_the_wire(few) == size_on_the_wire(many)
    assert form(few) == form(many)


def form(reply):
    return {name: (value.dtype, value.shape) for name, value in reply.arrays.items()}


@pytest.mark.parametrize("kind", ["spectral", "gan", "flow"])
def test_a_replys_length_follows_from_the_plan_alone(fresh, kind):
    reply = fresh.ask(fresh.asked[kind, 1])
    schema = EXCHANGES[kind].returned(fresh.plan)
    assert {name: value.nbytes for name, value in reply.arrays.items()} == {n: spec.bytes for n, spec in schema.items()}


def test_rounds_whose_batches_are_empty_look_like_any_other(tmp_path, fresh):
    stages = [{**stage, "sampling_rate": 1e-6} if stage["kind"] == "gan" else stage for stage in ONE_SITE["stages"]]
    quiet = make_hospital(tmp_path / "quiet", plan_values={**ONE_SITE, "stages": stages})
    arrays = dict(fresh.asked["gan", 1].arrays)
    for name in ("generator", "discriminator"):  # another plan has another public start
        arrays |= to_arrays(name, initial_model(name, quiet.plan))
    none, some = quiet.ask(quiet.request("stage", "gan", 1, arrays)), fresh.ask(fresh.asked["gan", 1])
    assert none.status == some.status == "ok"
    assert size_on_the_wire(none) == size_on_the_wire(some)
    assert np.count_nonzero(none.arrays["update"]) > 0.5 * none.arrays["update"].size, "noised like any other"


CAUSES = [
    BudgetExceeded("x" * 10_000),
    LedgerError(""),
    EgressRefused("47 patients"),
    DataError("/archive/DOE^JANE.dcm"),
    ZeroDivisionError("x"),
    MemoryError(),
    UnicodeDecodeError("utf-8", b"DOE", 0, 1, "x"),
]


def overhead(reply: Reply) -> int:
    assert reply.status != "ok"
    return size_on_the_wire(reply) - len(reply.code) - len(reply.status)


def test_refusals_are_equally_long_up_to_their_words(tmp_path, fresh, monkeypatch):
    replies = []
    for index, error in enumerate(CAUSES):

        def broken(job, error=error):
            raise error

        monkeypatch.setattr("sfumato_client.training.spectral.release_moments", broken)
        site = make_hospital(tmp_path / f"site{index}", patients=30)
        replies.append(site.ask(site.request("stage", "spectral", 1)))
    replies.append(fresh.ask(fresh.request("stage", "gan", 9)))
    replies.append(fresh.ask(fresh.request("hello", plan_hash="0" * 64)))
    assert len({overhead(reply) for reply in replies}) == 1
    assert len({reply.reference for reply in replies}) == len(replies)


def test_data_that_cannot_be_used_looks_like_any_fault(tmp_path, monkeypatch):
    said = set()
    for index, error in enumerate((DataError("too few patients"), RuntimeError("a fault of ours"))):

        def broken(job, error=error):
            raise error

        monkeypatch.setattr("sfumato_client.training.spectral.release_moments", broken)
        site = make_hospital(tmp_path / f"site{index}", patients=30)
        reply = site.ask(site.request("stage", "spectral", 1))
        said.add((reply.status, reply.code))
    assert said == {("failed", "failed")}


class Watch:
    """A pace whose clock stands still; it notes what was waited for."""

    def __init__(self, held):
        self._held = held

    def hold(self, interval_s):
        self._held.append(interval_s)


@pytest.fixture
def watch(monkeypatch):
    held = []
    monkeypatch.setattr(site_module, "Pace", lambda: Watch(held))
    return held


def slow_policy(hospital, seconds):
    path = hospital.home.root / "policy.yaml"
    path.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text()), "answer_interval_s": seconds}))


def test_every_answer_and_every_refusal_waits_for_the_sites_own_interval(trained, watch):
    slow_policy(trained, 7.5)
    for request in (
        trained.asked["spectral", 1],  # kept
        trained.request("hello"),
        trained.request("stage", "gan", 9),
        trained.asked["utility"],  # computed
        trained.request("utility", brought={}),
    ):
        watch.clear()
        trained.ask(request)
        assert watch == [7.5]


def test_a_package_leaves_on_the_grid_and_so_does_the_word_that_it_left(trained, watch):
    slow_policy(trained, 7.5)
    before, sent = trained.charges(), []
    deliver = lambda data, plan: sent.append(list(watch))  # noqa: E731
    site = site_module.Site(trained.home, deliver)
    assert site.handle(trained.asked["make"]).status == "ok"
    assert (sent, watch) == ([], [7.5])
    assert site.handle(trained.asked["send"]).status == "ok"
    assert sent == [[7.5, 7.5]], "held once before anything was uploaded"
    assert watch == [7.5, 7.5, 7.5]
    assert trained.charges() == [*before, *GATE]


def test_a_plan_that_is_unknown_is_refused_on_a_grid_too(fresh, watch, monkeypatch):
    monkeypatch.setattr(site_module, "DEFAULT_ANSWER_INTERVAL_S", 3.25)
    fresh.ask(fresh.request("hello", plan_hash="0" * 64))
    assert watch == [3.25]
