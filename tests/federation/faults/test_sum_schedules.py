"""Studies whose releases are sums, by random schedules of faults: each publishes, and pays for nothing twice.

The quorum is all sites: a charge whose answer did not count would stop the study.
"""

import copy

import pytest
from support.faults import Schedule, play
from support.federations import make_federation, with_keys
from support.studies import PLAN, POLICY

STEPS, MESSAGES = 1156, 57


@pytest.fixture(scope="module")
def homes(tmp_path_factory):
    root = tmp_path_factory.mktemp("sums") / "homes"
    values = copy.deepcopy(PLAN)
    values["stages"], values["release"] = values["stages"][:1], values["release"][:1]
    values["federation"]["quorum"] = 3
    make_federation(root, with_keys(root, values), {**POLICY, "secure_sum": "allowed"})
    return root


def test_without_faults_a_study_publishes_in_one_run(homes, tmp_path):
    outcome = play(homes, tmp_path / "study", Schedule())
    assert outcome.whole and outcome.runs == 1
    assert outcome.messages == MESSAGES
    assert 0.9 * outcome.steps <= STEPS <= 1.1 * outcome.steps


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_schedule_of_faults_loses_nothing(homes, tmp_path, seed):
    outcome = play(homes, tmp_path / "study", Schedule.drawn(seed, STEPS, MESSAGES))
    assert outcome.whole, outcome


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("first", range(2000, 2040, 10))
def test_random_schedules_publish_and_pay_once(homes, tmp_path, first):
    for seed in range(first, first + 10):
        outcome = play(homes, tmp_path / str(seed), Schedule.drawn(seed, STEPS, MESSAGES))
        assert outcome.whole, (seed, outcome)
