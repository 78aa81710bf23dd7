"""All that three sites write to sockets during a study, taken before encryption, holds nothing of what is theirs.

A whole study with real processes and planted canaries (`study.py`, `canaries.py`) runs behind a relay that ends TLS
(`relay.py`); what it carried is decoded layer by layer (`layers.py`) and scanned (`scan.py`). A second study has sites
that leak on purpose: the scan must say so. Not seen by any scan: a canary that is encrypted, or spread thinner than a
block, and the bytes of the TLS handshakes; what else than the relay a site reaches, strace shows (`sockets.py`).
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass

import pytest
from safetensors.numpy import load_file
from support.processes import wait_for
from support.studies import PLAN, POLICY
from support.traffic import leaky_node
from support.traffic.layers import Layer
from support.traffic.scan import SEVERAL, Hit, Scanner
from support.traffic.sockets import can_trace, outward
from support.traffic.study import PATIENTS, Study, recorded_study

from sfumato_server.intake.admission import package_path
from sfumato_server.status.board import read_board

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="looks at processes through /proc"),
    pytest.mark.timeout(420),
]
# no reply counts for more than twice as many patients
SITES = {site: {"nominal_patients": 100} for site in PLAN["sites"]}
TERMS = {"quorum": 2, "round_deadline_s": 90, "join_deadline_s": 90}


@dataclass
class Recorded:
    """A study that has ended: what the sites wrote, decoded, and all canaries."""

    study: Study
    layers: list[Layer]
    scanner: Scanner
    hits: list[Hit]

    def exchanges(self) -> list[dict]:
        return read_board(self.study.coordinator.status_file)["exchanges"]

    def named(self, *parts: str) -> list[Layer]:
        return [layer for layer in self.layers if all(part in layer.name for part in parts)]


def read(study: Study) -> Recorded:
    layers, scanner = study.layers(), study.scanner()
    return Recorded(study, layers, scanner, [hit for layer in layers for hit in scanner.scan(layer)])


@pytest.fixture(scope="module")
def honest(tmp_path_factory):
    """Every stage, release and utility; one request fails at one site, with the site's path in the exception's text."""
    stages = [{**stage, "rounds": 1} if "rounds" in stage else stage for stage in PLAN["stages"]]
    plan = {**PLAN, "sites": SITES, "stages": stages, "federation": TERMS}
    policy = {**POLICY, "noise": "secure"}
    outbox = lambda study: study.home("cedar").outbox  # noqa: E731
    with recorded_study(
        tmp_path_factory.mktemp("honest"), plan, policy, before=lambda study: outbox(study).write_text("in the way")
    ) as study:
        failed = wait_for(lambda: list(study.home("cedar").steward_folder.glob("errors/*.txt")), 120)
        assert failed, study.log("coordinator").read_text()
        outbox(study).unlink()
        assert study.finish() == 0, study.log("coordinator").read_text()
        yield read(study)


def test_nothing_that_the_sites_hold_is_in_what_they_wrote(honest):
    assert honest.hits == []
    # the search was one: all kinds of canaries, and the error that was provoked is among them
    assert len(honest.scanner) > 500_000
    assert {count for count in PATIENTS.values()} <= set(honest.scanner.counts)
    texts = (honest.study.home("cedar").steward_folder / "errors").glob("*.txt")
    assert any(str(honest.study.home("cedar").root) in path.read_text() for path in texts)
    words = [exchange["sites"]["cedar"] for exchange in honest.exchanges()]
    assert [word.partition(" ")[0] for word in words].count("failed") == 1


def test_the_counts_that_are_canaries_are_no_public_numbers(honest):
    public = json.dumps([honest.study.plan.model_dump(mode="json"), honest.study.policy])
    assert not [count for count in honest.scanner.counts if str(count) in public]


def test_the_recording_is_whole(honest):
    study = honest.study
    assert study.problems == []
    for site in study.plan.sites:
        answered = [exchange for exchange in honest.exchanges() if site in exchange["sites"]]
        pushed = honest.named(f"{site}/superlink", "/v1/fleet/push-messages/head")
        assert len([layer for layer in pushed if layer.kind == "text"]) == len(answered) > 5
        # byte for byte: the package that the coordinator has, and every array that the site kept of what it sent
        package = package_path(study.coordinator.root, site, "formal").read_bytes()
        assert package in [layer.data for layer in honest.named(f"{site}/intake", "/package")]
        sent = {layer.data for layer in honest.named(f"{site}/superlink", "/values")}
        kept = [load_file(path) for path in study.home(site).outbox.glob("*.safetensors")]
        assert len(kept) == len(study.plan.stages) + 1 - (site == "cedar"), "stages and utility; one failed"
        assert {value.tobytes() for arrays in kept for value in arrays.values()} <= sent
    assert len(honest.named("/zip images/", "/pixels")) > 3 * 28


def test_the_sites_reach_nothing_but_the_relay(honest):
    if not can_trace():
        pytest.skip("strace is not installed, or may not trace here")
    for site, port in honest.study.ports.items():
        log = honest.study.calls(site)
        assert outward(log, {port}) == set()
        # the record is one: without the exception for the relay, exactly its door is left
        assert {peer.port for peer in outward(log, set())} == {port}


def test_leaks_that_are_planted_in_the_sites_are_found(tmp_path):
    plan = {
        **PLAN,
        "sites": SITES,
        "stages": PLAN["stages"][:1],
        "release": [{"model": "spectral", "images": 12}],
        "utility": None,
        "federation": {**TERMS, "quorum": 1},
    }
    kinds = {"alder": "pixels", "birch": "exception", "cedar": "count"}
    nodes = {site: leaky_node.command(kind) for site, kind in kinds.items()}
    with recorded_study(tmp_path, plan, {**POLICY, "noise": "secure"}, nodes) as study:
        assert study.finish() == 0, study.log("coordinator").read_text()
        leaky = read(study)
    found = {(hit.layer.partition("/")[0], hit.what) for hit in leaky.hits}
    assert {site for site, _ in found} == set(kinds)
    # nothing is blamed on the wrong site, and each site's leak is seen for what it is
    assert all(what.startswith((f"{site}: ", SEVERAL)) for site, what in found)
    whats = {site: {what.partition(": ")[2] for owner, what in found if owner == site} for site in kinds}
    assert "pixels as float32 -1..1" in whats["alder"], "inside an array that passed the schema"
    assert "pixels as uint8" in whats["alder"], "as a picture among the released"
    assert "a path" in whats["birch"]
    assert {"patients, as text", "patients, as a field"} <= whats["cedar"]
