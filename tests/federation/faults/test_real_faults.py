"""Real processes that are killed, cut off, slow or wrong about the time: the study publishes, and pays once.

The quorum is all sites, so that a charge whose answer did not count would stop the study. A supervisor starts dead
processes again; nothing else helps.
"""

import sys
import time

import pytest
from support import clocks
from support.links import Link
from support.real_faults import RealStudy, make_real_homes, real_study

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="looks at processes through /proc"),
    pytest.mark.timeout(1200),
]
SECONDS = 900.0  # on a busy machine; a minute or two on an idle one
MODEM, MEGABIT, LATE_S = 7000.0, 125_000.0, 0.3


@pytest.fixture(scope="module")
def homes(tmp_path_factory):
    return make_real_homes(tmp_path_factory.mktemp("real") / "homes")


@pytest.fixture
def study(homes, tmp_path):
    with real_study(homes, tmp_path / "study") as found:
        yield found


def assert_whole(study: RealStudy) -> None:
    said = study.said()
    study.stop()
    assert study.counts() == (True, 0, 0), said


@pytest.mark.parametrize(
    "kills",
    [
        [("spectral", "superlink"), ("gan", "rounds"), ("send", "superlink"), ("utility", "coordinator")],
        [("hello", "rounds"), ("gan", "coordinator"), ("make", "rounds"), ("utility", "superlink")],
    ],
    ids=["superlink first", "rounds first"],
)
def test_a_study_outlives_every_process_of_its_coordinator(study, kills):
    code = study.run([(stage, kind, "coordinator") for stage, kind in kills], SECONDS)
    assert (code, study.left) == (0, []), study.said()
    assert_whole(study)


@pytest.mark.parametrize(
    "kills",
    [
        [("hello", "worker", "alder"), ("spectral", "task", "birch"), ("gan", "supernode", "cedar")],
        [("spectral", "site", "alder"), ("make", "task", "birch"), ("send", "supernode", "cedar")],
    ],
    ids=["early", "late"],
)
def test_a_study_outlives_every_process_of_its_sites(study, kills):
    code = study.run(kills, SECONDS)
    assert (code, study.left) == (0, []), study.said()
    assert_whole(study)


@pytest.mark.parametrize("resets", [False, True], ids=["silent", "reset"])
def test_a_site_that_is_cut_off_in_mid_round_takes_part_again(study, resets):
    """For longer than every heartbeat of Flower's: its node counts as gone, and is asked again."""
    with Link(("127.0.0.1", study.port)) as link:
        study.lines["cedar"] = link.port
        cut, mended = [], []

        def look():
            if study.stage() == "gan" and not cut:
                link.cut(resets)
                cut.append(time.monotonic())
            if cut and not mended and time.monotonic() > cut[0] + 100.0:
                link.mend()
                mended.append(True)

        code = study.run([], SECONDS, look)
        assert code == 0 and mended, study.said()
    assert_whole(study)


@pytest.mark.parametrize("rate", [MEGABIT, MODEM], ids=["1 Mbit/s", "56 kbit/s"])
def test_a_site_on_a_slow_line_takes_part(study, rate):
    with Link(("127.0.0.1", study.port), rate, LATE_S) as link:
        study.lines["cedar"] = link.port
        code = study.run([], SECONDS)
        assert code == 0, study.said()
    assert_whole(study)


def test_sites_whose_clocks_are_off_by_an_hour_take_part(study):
    for site, hours in (("alder", 1), ("birch", -1)):
        study.commands[site] = clocks.command(study.home(site))
        study.environments[site] = clocks.environment(hours)
    code = study.run([], SECONDS)
    assert code == 0, study.said()
    assert_whole(study)
