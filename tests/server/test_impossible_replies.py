"""What one hostile site may answer: nothing that its patients cannot have led to, and nothing that ends the study."""

from __future__ import annotations

import copy
from functools import partial

import numpy as np
import pytest
import torch
from support.answers import Answers, reply, study_run
from support.plans import dp_sgd

from sfumato_common.errors import FederationError, VerificationError
from sfumato_common.exchanges import EXCHANGES
from sfumato_common.generators.displacement import update_displacement
from sfumato_common.generators.flow.displacement import BETAS
from sfumato_common.generators.replies import PATIENT_SLACK, check_histograms
from sfumato_common.generators.spectral.layout import COUNT_WEIGHT, TOTAL_WEIGHT
from sfumato_common.generators.update import UPDATE
from sfumato_common.strict import parse
from sfumato_common.study.plan import Plan
from sfumato_server.rounds.absorbing import absorb_replies
from sfumato_server.rounds.utility import ask_utility

pytestmark = pytest.mark.filterwarnings("ignore:TestNoise")
VALUES = {
    "study": "small",
    "image": {"size": 16},
    "labels": ["normal", "opacity"],
    "sites": {site: {"nominal_patients": 40} for site in ("alder", "birch", "cedar")},
    "privacy": {"epsilon": 100.0, "delta": 1e-5},
    "stages": [
        {"kind": "spectral", "bandwidth": 4, "clip_radius": 2.0, "noise_multiplier": 0.5, "radii": "charged"},
        {"kind": "embedding", "noise_multiplier": 1.0, "width": 8, "generator_steps": 2},
        dp_sgd(kind="gan", width=8, generator_steps=2, fakes=8),
        dp_sgd(kind="flow", levels=1, steps_per_level=1, hidden=8),
        {"kind": "choice", "noise_multiplier": 2.0, "bins": 8, "images": 60},
    ],
    "release": [{"model": "best", "images": 4}],
    "utility": {"bins": 8, "noise_multiplier": 2.0},
    "federation": {"quorum": 2},
}
KINDS = [stage["kind"] for stage in VALUES["stages"]]


@pytest.fixture(scope="module")
def plan() -> Plan:
    return parse(copy.deepcopy(VALUES), Plan, "test")


@pytest.fixture(scope="module", autouse=True)
def quick():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sfumato_server.rounds.strategies.choice._STEPS", 3)
        patch.setattr("sfumato_common.generators.embedding.features._REFERENCE_IMAGES", 8)
        yield


@pytest.fixture(scope="module")
def honest(plan, tmp_path_factory):
    """An honest study: (kind, round) -> site -> what it answered, and the state that it ended in."""
    channel, found = Answers(plan), {}

    def answer(site):
        def inner(request):
            said = channel.honest(site, request)
            if request.kind == "stage":
                found.setdefault((request.stage, request.round), {})[site] = dict(said.arrays)
            return said

        return inner

    channel.others = {site: answer(site) for site in plan.sites}
    run = study_run(tmp_path_factory.mktemp("honest"), plan, channel)
    run.join()
    run.train()
    return found


def bfloat16(value: float) -> int:
    return int(np.float32(value).view(np.uint32) >> np.uint32(16))


def crafted(kind: str, arrays: dict, change: str) -> dict:
    """`arrays`, honest, changed into what the audit sent, or near it."""
    evil = {name: np.array(value) for name, value in arrays.items()}
    first = next(iter(evil.values()))
    if change == "absurd":
        first[...] = bfloat16(1.0) if first.dtype == np.uint16 else 1e6
    elif change == "huge":
        first.flat[0] = bfloat16(3e38) if first.dtype == np.uint16 else 3e38
    elif change == "nan":
        first.flat[0] = 0x7FC0 if first.dtype == np.uint16 else np.nan
    elif change == "schema":
        evil["num_examples"] = np.zeros(1, np.float32)
    elif change == "shape":
        evil[next(iter(evil))] = first[:0]
    if UPDATE in evil and change in ("absurd", "huge"):
        spec = EXCHANGES[kind].returned(parse(copy.deepcopy(VALUES), Plan, "test"))[UPDATE]
        evil[UPDATE][spec.filled :] = 0
    return evil


CHANGES = ["absurd", "huge", "nan", "schema", "shape"]


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("kind", KINDS)
def test_an_impossible_reply_is_a_lost_one(plan, honest, tmp_path, kind, change):
    said = {site: reply(honest[kind, 1][site]) for site in plan.sites}
    said["cedar"] = reply(crafted(kind, said["cedar"].arrays, change))
    run = study_run(tmp_path, plan, Answers(plan, {site: lambda request, r=r: r for site, r in said.items()}))
    record = EXCHANGES[kind]
    check = partial(record.check_reply, plan)
    found = run.ask("stage", {}, set(said), stage=kind, number=1, schema=record.returned(plan), check=check)
    assert {site: answer.code for site, answer in found.items()} == {"alder": "", "birch": "", "cedar": "bad-reply"}


def test_an_impossible_reply_is_its_sites_loss_in_every_stage_and_the_study_goes_on(plan, honest, tmp_path):
    channel = Answers(plan)
    channel.others = {site: lambda request, site=site: replay(honest, site, request) for site in plan.sites}
    evil = channel.others["cedar"]

    def attack(request):
        said = evil(request)
        return reply(crafted(request.stage, said.arrays, "absurd")) if request.kind == "stage" else said

    channel.others["cedar"] = attack
    run = study_run(tmp_path, plan, channel)
    run.join()
    run.train()
    stages = run.progress.ended[1:]
    assert len(stages) == 5 and all(sites["cedar"] == "failed bad-reply" for sites in stages)
    assert all(sites["alder"] == sites["birch"] == "ok" for sites in stages)
    assert ("cedar", "lost") in run.progress.words
    assert run.choice.sites in ((), ("alder", "birch"), ("alder",), ("birch",))


def replay(honest, site, request):
    return reply(dict(honest[request.stage, request.round][site]) if request.kind == "stage" else {})


def test_below_the_quorum_impossible_replies_end_the_study_and_say_whose(plan, honest, tmp_path):
    def attack(request):
        said = replay(honest, "cedar", request)
        return reply(crafted(request.stage, said.arrays, "absurd")) if request.kind == "stage" else said

    channel = Answers(plan, {site: lambda request, site=site: replay(honest, site, request) for site in plan.sites})
    channel.others |= {"birch": attack, "cedar": attack}
    run = study_run(tmp_path, plan, channel)
    run.join()
    with pytest.raises(FederationError, match=r"birch: bad-reply, cedar: bad-reply"):
        run.train()


@pytest.mark.parametrize("kind", ["hello", "make", "send"])
def test_arrays_where_none_belong_are_no_reply(plan, tmp_path, kind):
    channel = Answers(plan, {site: lambda request: reply({"x": np.zeros(3, np.float32)}) for site in plan.sites})
    run = study_run(tmp_path, plan, channel)
    assert {said.code for said in run.ask(kind, {}, set(plan.sites), quorum=0).values()} == {"bad-reply"}


def test_a_utility_histogram_of_impossible_counts_is_left_out(plan, tmp_path):
    good = np.zeros((2, 8), np.float32)
    good[0, 4:] = good[1, :4] = 5.0
    fake = np.zeros((2, 8), np.float32)
    fake[0, 0] = fake[1, -1] = 1e7  # the audit's
    answers = {"alder": good, "birch": -100.0 * good, "cedar": fake}
    channel = Answers(plan, {site: lambda request, v=v: reply({"histogram": v}) for site, v in answers.items()})
    run = study_run(tmp_path, plan, channel)
    run.accepted = set(plan.sites)
    assert set(ask_utility(run, {}).counts) == {"alder"}


def drawn(plan, kind, honest) -> list[dict]:
    """Honest replies of all sites, spread by many draws of their noise over again."""
    rng, found = np.random.default_rng(0), []
    sigma = {"spectral": 0.5, "embedding": 1.0, "choice": 2.0 * 4**0.5}[kind]
    for arrays in honest[kind, 1].values():
        for _ in range(200):
            found.append({name: value + rng.normal(0, sigma, value.shape) for name, value in arrays.items()})
    return found


@pytest.mark.parametrize("kind", ["spectral", "embedding", "choice"])
def test_honest_noise_is_never_refused_even_twice_over(plan, honest, kind):
    for arrays in drawn(plan, kind, honest):
        EXCHANGES[kind].check_reply(plan, "alder", arrays)


def full(plan, patients: float) -> dict:
    """A spectral release without noise of so many patients who all look alike, each at the edge of every ball."""
    spec = EXCHANGES["spectral"].returned(plan)
    arrays = {name: np.zeros(item.shape, np.float32) for name, item in spec.items()}
    arrays["centre"][0] = TOTAL_WEIGHT * patients
    arrays["centre"][1] = 0.2 * patients
    arrays["sums"][:, 0], arrays["sums"][:, 1] = COUNT_WEIGHT * patients / 2, 0.42 * patients / 2
    arrays["moments"][:, 0] = 0.85 * patients / 2
    arrays["norms"][:, 0] = 0.08 / 2**0.5 * patients
    return arrays


def test_a_site_counts_for_twice_its_nominal_patients_at_most(plan):
    check = EXCHANGES["spectral"].check_reply
    check(plan, "alder", full(plan, 40 * PATIENT_SLACK))
    with pytest.raises(VerificationError, match="number of patients"):
        check(plan, "alder", full(plan, 40 * PATIENT_SLACK + 150))
    larger = copy.deepcopy(VALUES)
    larger["sites"]["alder"]["nominal_patients"] = 10_000
    check(parse(larger, Plan, "test"), "alder", full(plan, 12_000))


@pytest.mark.parametrize(
    ("part", "place", "value", "what"),
    [
        ("centre", 0, 40.0, "number of patients"),  # far more in one part than in the others
        ("centre", 1, 60.0, "a sum"),
        ("sums", (0, 0), -20.0, "a count"),
        ("sums", (0, 1), 60.0, "a sum"),
        ("moments", (0, 1), 80.0, "a sum"),
        ("moments", (0, 0), -40.0, "a second moment"),
        ("norms", (0, 0), 60.0, "number of patients"),
        ("norms", (2, 1), 20.0, "a sum"),
    ],
)
def test_parts_of_a_spectral_release_must_fit_each_other(plan, part, place, value, what):
    arrays = full(plan, 40.0)
    EXCHANGES["spectral"].check_reply(plan, "alder", arrays)
    arrays[part][place] = value
    with pytest.raises(VerificationError, match=what):
        EXCHANGES["spectral"].check_reply(plan, "alder", arrays)


def test_an_update_at_the_bound_passes_and_just_above_is_refused(plan):
    stage, spec = plan.stage("flow"), EXCHANGES["flow"].returned(plan)[UPDATE]
    bound = update_displacement(stage, BETAS)
    arrays = {UPDATE: np.zeros(spec.shape, np.uint16)}
    arrays[UPDATE][7] = bfloat16(bound * 0.995)
    EXCHANGES["flow"].check_reply(plan, "alder", arrays)
    arrays[UPDATE][7] = 0x8000 | bfloat16(bound * 1.01)
    with pytest.raises(VerificationError, match="an update"):
        EXCHANGES["flow"].check_reply(plan, "alder", arrays)


def test_histograms_of_one_cohort_count_the_same_patients_of_each_class():
    counts = np.full((3, 2, 8), 5.0)
    check_histograms(counts, 1.0, 100.0)
    moved = counts.copy()
    moved[1, 0] += 10.0
    moved[1, 1] -= 5.0
    with pytest.raises(VerificationError, match="class"):
        check_histograms(moved, 1.0, 200.0)


class Breakable:
    """A strategy that sums; it cannot bear what `breaks` says of a round's replies."""

    def __init__(self, breaks):
        self.breaks, self.total = breaks, np.zeros(1)

    def absorb(self, number, replies, generator):
        self.total = self.total + sum(float(arrays["x"][0]) for arrays in replies.values())
        self.draw = torch.rand(1, generator=generator)
        if self.breaks(set(replies)):
            raise np.linalg.LinAlgError("crafted")

    def released(self):
        return {"x": self.total}


REPLIES = {site: {"x": np.array([value])} for site, value in zip("abcd", (1.0, 10.0, 100.0, 1000.0), strict=True)}


@pytest.mark.parametrize(
    ("breaks", "out"),
    [
        (lambda sites: False, set()),
        (lambda sites: "c" in sites, {"c"}),
        (lambda sites: bool({"b", "d"} & sites), {"b", "d"}),
        (lambda sites: "d" in sites and len(sites) > 1, {"d"}),  # harmless alone
    ],
)
def test_a_reply_that_breaks_the_strategy_is_left_out_and_nothing_of_it_stays(breaks, out):
    generator = torch.Generator().manual_seed(3)
    strategy, broken = absorb_replies(Breakable(breaks), 1, set(REPLIES), REPLIES, generator)
    assert broken == out
    assert strategy.total[0] == sum(v["x"][0] for site, v in REPLIES.items() if site not in out)
    assert torch.equal(strategy.draw, torch.rand(1, generator=torch.Generator().manual_seed(3)))


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e9])
def test_a_reply_that_leads_to_a_model_which_sites_refuse_is_left_out(value):
    replies = {**REPLIES, "c": {"x": np.array([value])}}
    strategy, broken = absorb_replies(Breakable(lambda sites: False), 1, set(replies), replies, torch.Generator())
    assert broken == {"c"} and strategy.total[0] == 1011.0


def test_a_fault_of_our_own_is_no_sites():
    with pytest.raises(np.linalg.LinAlgError):
        absorb_replies(Breakable(lambda sites: True), 1, set(REPLIES), REPLIES, torch.Generator())


def test_a_crafted_reply_that_a_strategy_cannot_bear_leaves_a_study_standing(plan, honest, tmp_path, monkeypatch):
    from sfumato_server.rounds.strategies.spectral import SpectralStrategy

    absorb = SpectralStrategy.absorb

    def fragile(self, number, replies, generator):
        absorb(self, number, replies, generator)
        if "cedar" in replies:
            raise ZeroDivisionError

    monkeypatch.setattr(SpectralStrategy, "absorb", fragile)
    channel = Answers(plan, {site: lambda request, site=site: replay(honest, site, request) for site in plan.sites})
    run = study_run(tmp_path, plan, channel)
    run.join()
    strategy = run._run_round(plan.stage("spectral"), SpectralStrategy(plan, plan.stage("spectral"), {}), 1)
    assert strategy.released()["spectral/mean"].shape[0] == 2
    assert ("cedar", "lost") in run.progress.words
    run.plan = plan.model_copy(update={"federation": plan.federation.model_copy(update={"quorum": 3})})
    channel.others = {site: (lambda request, say=say: say(request)) for site, say in channel.others.items()}
    with pytest.raises(FederationError, match="cedar cannot be used"):
        run._run_round(plan.stage("spectral"), SpectralStrategy(plan, plan.stage("spectral"), {}), 1)
