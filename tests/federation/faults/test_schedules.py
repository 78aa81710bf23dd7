"""Studies by random schedules of kills, full disks and lost messages: each publishes, and pays for nothing twice."""

import pytest
from support.faults import Schedule, make_homes, play

# about how many writes and messages a study without faults has: schedules draw their places from them
STEPS, MESSAGES = 709, 21


@pytest.fixture(scope="module")
def homes(tmp_path_factory):
    return make_homes(tmp_path_factory.mktemp("faults") / "homes")


def test_without_faults_a_study_publishes_in_one_run(homes, tmp_path):
    outcome = play(homes, tmp_path / "study", Schedule())
    assert outcome.whole and outcome.runs == 1 and outcome.messages == MESSAGES
    assert 0.9 * outcome.steps <= STEPS <= 1.1 * outcome.steps


# each was lost once: a round, and figures, to a full disk
@pytest.mark.parametrize("seed", [6, 13, 49])
def test_a_schedule_that_once_lost_something_loses_nothing(homes, tmp_path, seed):
    outcome = play(homes, tmp_path / "study", Schedule.drawn(seed, STEPS, MESSAGES))
    assert outcome.met and outcome.whole, outcome


def test_a_figure_that_was_paid_for_is_not_lost_with_the_coordinator(homes, tmp_path):
    """Killed after the sites answered, it must ask with the very same classifier again."""
    last = play(homes, tmp_path / "clean", Schedule()).steps - 3
    outcome = play(homes, tmp_path / "study", Schedule(kills=frozenset({last})))
    assert outcome.met == ("kill coordinator",) and outcome.whole, outcome


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("first", range(1000, 1040, 10))
def test_random_schedules_publish_and_pay_once(homes, tmp_path, first):
    for seed in range(first, first + 10):
        outcome = play(homes, tmp_path / str(seed), Schedule.drawn(seed, STEPS, MESSAGES))
        assert outcome.whole, (seed, outcome)
