"""Real processes, killed in the middle of secure sums: the study publishes, and pays once."""

import copy
import sys

import pytest
from support.enrolment import enrol_site, keep_grant
from support.federations import make_federation, with_keys
from support.real_faults import real_study
from support.studies import PLAN, POLICY

from sfumato_common.crypto.identity import load_identity

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="looks at processes through /proc"),
    pytest.mark.timeout(900),
]


def test_a_study_by_sums_outlives_the_processes_of_both_sides(tmp_path):
    root = tmp_path / "homes"
    values = copy.deepcopy(PLAN)
    values["stages"], values["release"] = values["stages"][:1], values["release"][:1]
    values["federation"] = {"quorum": 3, "round_deadline_s": 150, "join_deadline_s": 240}
    made = make_federation(root, with_keys(root, values), {**POLICY, "secure_sum": "allowed"})
    for site in made.sites:
        identity = load_identity(made.home(site).identity)
        keep_grant(made.coordinator.root, identity, enrol_site(made.coordinator.root, identity))
    with real_study(root, tmp_path / "study") as study:
        code = study.run([("spectral", "worker", "birch"), ("spectral", "rounds", "coordinator")], 600.0)
        said = study.said()
        assert (code, study.left) == (0, []), said
        study.stop()
        assert study.counts() == (True, 0, 0), said
