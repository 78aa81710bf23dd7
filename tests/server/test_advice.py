"""`sfumato plan advise`: the rule by which it advises, what it names its figures by, and what it runs."""

import numpy as np
import pytest
import yaml
from support.plans import dp_sgd, small_plan

from sfumato_common.metrics.utility import auc
from sfumato_common.strict import parse
from sfumato_common.study.plan import Plan
from sfumato_common.study.simulated import IndexCohort, PhantomCohort
from sfumato_server.simulate.advice import Size, advised, drowned, guess_limit, sentences
from sfumato_server.simulate.cells import asked_cells, sizes_of
from sfumato_server.simulate.cohorts import IndexSource, PhantomSource, Spread, fewer, patients_of
from sfumato_server.simulate.effort import real_effort, study_effort
from sfumato_server.simulate.plans import real_plan, without_noise
from sfumato_server.simulate.run import Question

LIMIT = 0.56
# a flow, and a choice between it and the spectral model, which needs patients enough to say anything
CHOSEN = [dp_sgd(kind="flow"), {"kind": "choice", "noise_multiplier": 1.0}]


def sizes(*figures):
    return [Size(sites, patients, values) for sites, patients, values in figures]


def test_the_smallest_cohort_within_the_spread_of_the_best_is_advised():
    found = sizes((3, 100, [0.70, 0.71, 0.72]), (3, 200, [0.79, 0.80, 0.81]), (3, 400, [0.78, 0.82, 0.83]))
    chosen, best = advised(found, LIMIT)
    assert (chosen.cohort, best.cohort) == (600, 1200)
    # not within the spread by a hair: the best itself
    chosen, best = advised([*found[:1], Size(3, 200, [0.79, 0.7799, 0.77]), found[2]], LIMIT)
    assert chosen is best and chosen.cohort == 1200


def test_of_cohorts_as_large_the_one_with_fewer_sites_is_advised():
    chosen, _ = advised(sizes((6, 100, [0.8, 0.9]), (3, 200, [0.8, 0.9]), (6, 200, [0.8, 0.92])), LIMIT)
    assert (chosen.sites, chosen.patients) == (3, 200)


def test_a_size_that_noise_drowns_is_never_advised_and_its_reason_is_told():
    loud = Size(2, 20, [0.5, 0.58], noiseless=0.9)
    dumb = Size(2, 30, [0.5, 0.58], noiseless=0.5)
    good = Size(2, 40, [0.57, 0.9], real=[0.95], noiseless=0.93)
    assert drowned(loud, LIMIT) and not drowned(good, LIMIT)
    assert advised([loud, dumb, good], LIMIT) == (good, good)
    said = sentences([loud, dumb, good], LIMIT)
    assert "noise drowns it" in said[0] and "nor without noise" in said[1]
    assert "Ask for 2 sites of 40 patients, 80 in all" in said[2]
    assert "0.950" in said[3] and "0.930" in said[3]
    assert "largest cohort that ran" in said[4]
    assert "No size that ran gives a figure" in sentences([loud], LIMIT)[-1]


def test_what_cannot_be_run_is_told_with_its_reason_and_is_not_the_largest():
    good, refused = Size(2, 40, [0.8, 0.9]), Size(2, 400, refused="too few patients")
    said = sentences([good, refused], LIMIT)
    assert said[0] == "2 sites of 400 patients: cannot be run: too few patients"
    assert "largest cohort that ran" in said[-1]
    assert sentences([refused], LIMIT) == said[:1]
    both = sentences([refused, Size(3, 400, refused="too few patients")], LIMIT)
    assert both == ["2 sites of 400 patients, 3 sites of 400 patients: cannot be run: too few patients"]


def test_a_guess_stays_below_its_limit_19_times_of_20():
    rng, labels = np.random.default_rng(1), np.arange(120) < 40
    reached = [auc(rng.random(120), labels) for _ in range(2000)]
    below = np.mean(np.array(reached) <= guess_limit(40, 80))
    assert 0.965 < below < 0.99  # two deviations, one side
    assert guess_limit(400, 400) < guess_limit(40, 80)


@pytest.fixture
def plan_file(tmp_path):
    values = small_plan(released="spectral", sites={"alder": 40}, noise=0.7)
    (tmp_path / "plan.yaml").write_text(yaml.safe_dump(values))
    return tmp_path / "plan.yaml"


def asked(plan_file, out, anchors=True, **overrides):
    question = Question(plan_file, "phantom", *overrides.pop("sizes", ([2, 1], [20, 40])), repeats=2, **overrides)
    return asked_cells(question, real_plan(plan_file), PhantomSource(), out, 2, anchors=anchors)


def test_every_size_has_its_repeats_and_anchors_smallest_first(plan_file, tmp_path):
    cells = asked(plan_file, tmp_path).cells
    assert [cell.size for cell in cells] == [size for size in [(1, 20), (1, 40), (2, 20), (2, 40)] for _ in range(5)]
    assert [(cell.what, cell.repeat) for cell in cells[:5]] == [
        ("plan", 1), ("real", 1), ("plan", 2), ("real", 2), ("noiseless", 1),
    ]  # fmt: skip
    assert len({cell.key for cell in cells}) == len(cells)
    assert {cell.what for cell in asked(plan_file, tmp_path, anchors=False).cells} == {"plan"}
    assert all(cell.plan.study.startswith("simulated-") for cell in cells)
    assert not any(cell.plan.private for cell in cells if cell.what == "noiseless")


def test_a_figure_is_kept_under_all_that_decides_it(plan_file, tmp_path):
    def keys(**overrides):
        return {(cell.size, cell.what, cell.repeat): cell.key for cell in asked(plan_file, tmp_path, **overrides).cells}

    first = keys()
    assert keys() == first
    for other in ({"seed": 1}, {"spread": Spread(0.5)}, {"spread": Spread(by_device=True)}):
        assert not set(keys(**other).values()) & set(first.values())
    released = keys(release=True)
    assert {name[1] for name, key in released.items() if first[name] != key} == {"plan"}
    # 13 and 12 patients both have ten that train, by the plan: they are other figures all the same
    some, more = keys(sizes=([1], [12])), keys(sizes=([1], [13]))
    assert not set(some.values()) & set(more.values())
    values = yaml.safe_load(plan_file.read_text())
    values["stages"][0]["noise_multiplier"] = 0.8
    plan_file.write_text(yaml.safe_dump(values))
    changed = keys()
    assert {name[1] for name, key in changed.items() if first[name] != key} >= {"plan", "real"}


def test_a_size_that_no_study_could_have_is_told_before_anything_runs(tmp_path):
    values = small_plan(*CHOSEN, released="best", sites={"alder": 400}, epsilon=90.0, noise=0.7)
    (tmp_path / "plan.yaml").write_text(yaml.safe_dump(values))
    found = asked(tmp_path / "plan.yaml", tmp_path, sizes=([1], [11, 20, 400]))
    assert set(found.refused) == {(1, 11), (1, 20)}
    assert "at least 12 patients" in found.refused[1, 11]
    assert "no figure" in found.refused[1, 20]
    bare = next(cell.plan for cell in found.cells if cell.what == "noiseless")
    assert [stage.kind for stage in bare.stages] == [s["kind"] for s in values["stages"] if s["kind"] != "choice"]


def test_an_index_that_is_too_small_for_a_size_is_told(plan_file, tmp_path):
    rows = [f"all,{n},a,p{n},{'train' if n < 30 else 'val'},{n % 2}" for n in range(40)]
    (tmp_path / "index.csv").write_text("\n".join(["set,row,site,patient_id,split,abnormal", *rows]) + "\n")
    data = tmp_path / "index.csv"
    question = Question(plan_file, str(data), [1, 2], [20], 2)
    found = asked_cells(question, real_plan(plan_file), IndexSource(data), tmp_path, 1, anchors=True)
    assert set(found.refused) == {(2, 20)} and {cell.size for cell in found.cells} == {(1, 20)}


def test_real_images_are_of_as_many_patients_as_train():
    cohort = PhantomCohort(seed=1, site="a", patients=20, devices=["aurora"], ill=None)
    assert patients_of(fewer(cohort, 16)) == 16 and patients_of(fewer(cohort, 30)) == 20
    index = fewer(IndexCohort(folder="", rows=[["s", str(n), f"p{n // 2}", "0"] for n in range(10)]), 2)
    assert [row[2] for row in index.rows] == ["p0", "p0", "p1", "p1"]


def test_without_noise_nothing_of_the_privacy_is_left():
    values = small_plan(*CHOSEN, released="best", sites={"simulated-001": 400}, noise=0.7)
    bare = without_noise(parse({**values, "study": "simulated-x-1"}, Plan, "plan"))
    assert (bare.private, bare.chooses, bare.budget) == (False, False, None)
    assert max(stage.noise_multiplier for stage in bare.stages) <= 0.001


def test_more_work_is_more_effort():
    one, two = (
        parse(small_plan(released="spectral", sites={f"s{n}": 40 for n in range(k)}), Plan, "p") for k in (1, 2)
    )
    assert study_effort(two, 40, 1) > study_effort(one, 40, 1) > 0
    assert study_effort(two, 40, 2) < study_effort(two, 40, 1)
    assert study_effort(one, 80, 1) > study_effort(one, 40, 1)
    assert real_effort(one, 80, 1) > real_effort(one, 40, 1) > 0


def test_sizes_are_in_the_order_of_their_cohorts():
    assert sizes_of(Question("", "phantom", [3, 10], [60, 200])) == [(3, 60), (3, 200), (10, 60), (10, 200)]
    assert sizes_of(Question("", "phantom", [2, 4], [10, 20])) == [(2, 10), (2, 20), (4, 10), (4, 20)]
