"""Studies that start from pinned public weights: the sites take them, the certificate and the report declare them."""

import copy

import numpy as np
import pytest
from safetensors.numpy import save
from support.federations import make_federation
from support.studies import PLAN, POLICY

from sfumato_common.errors import VerificationError
from sfumato_common.generators.codec.schemas import AUTOENCODER
from sfumato_common.generators.starts import initial_model
from sfumato_common.generators.weights import to_arrays
from sfumato_common.protocol.pack import array_digest
from sfumato_common.strict import parse
from sfumato_common.study.plan import Plan
from sfumato_common.study.starts import keep_start
from sfumato_common.types import fingerprint
from sfumato_server.coordinator.pretraining import pretrain
from sfumato_server.coordinator.study import run_study
from sfumato_server.enrol import Registry, load_authority
from sfumato_server.pool import pool_packages
from sfumato_server.publish import publish
from sfumato_server.publish.report import foreign_details


def brings(request, name, value):
    """Whether the site gets that array, or the digest by which it has it."""
    if name in request.held:
        return request.held[name] == array_digest(name, value)
    return np.array_equal(request.arrays[name], value)


def values_of():
    values = copy.deepcopy(PLAN)
    values["stages"] = [stage for stage in values["stages"] if stage["kind"] != "gan"]
    values["stages"][1]["rounds"] = 2
    values["release"] = [item for item in values["release"] if item["model"] != "gan"]
    del values["utility"]
    return values


@pytest.fixture(scope="module")
def start():
    plan = parse(values_of(), Plan, "plan")
    return pretrain(plan, "flow", "textures", steps=3, patients=20)[0]


@pytest.fixture
def federation(tmp_path, start):
    values = values_of()
    values["stages"][1]["start"] = {"source": "textures", "sha256": fingerprint(start)}
    federation = make_federation(tmp_path, values)
    keep_start(federation.coordinator.starts, federation.plan, save(start))
    return federation


def run(federation):
    return run_study(federation.coordinator, federation, seed=1, classifier_steps=5)


def test_a_study_starts_from_what_its_plan_pins_and_declares_it(federation, start, tmp_path):
    assert run(federation) == "completed"
    first = next(request for _, request, _ in federation.sent if (request.stage, request.round) == ("flow", 1))
    assert fingerprint({name: first.arrays[name] for name in start}) == fingerprint(start)
    home = federation.coordinator.root
    pool = pool_packages(home, federation.plan, Registry(home))
    declared = {"flow": {"source": "textures", "sha256": fingerprint(start)}}
    assert all(
        {kind: pin.model_dump() for kind, pin in certificate.starts.items()} == declared
        for certificate in pool.certificates.values()
    )
    published = publish(pool, federation.plan, tmp_path / "out", load_authority(home), {"exchanges": []}, None)
    report = published.report.read_text()
    assert "started from weights declared public (textures" in report
    assert report.count(fingerprint(start)) >= 2


def test_a_whole_study_of_a_diffusion_releases_its_images(tmp_path):
    values, policy = values_of(), copy.deepcopy(POLICY)
    flow = values["stages"].pop()
    dp = {key: value for key, value in flow.items() if key not in {"kind", "levels", "steps_per_level", "hidden"}}
    values["stages"].append({**dp, "kind": "diffusion", "width": 16, "depth": 1, "sampling_steps": 3})
    values["release"] = [{"model": "diffusion", "images": 12}]
    policy["allowed_stages"].append("diffusion")
    weights, _ = pretrain(parse(values, Plan, "plan"), "diffusion", "textures", steps=3, patients=20)
    values["stages"][1]["start"] = {"source": "textures", "sha256": fingerprint(weights)}
    federation = make_federation(tmp_path, values, policy)
    keep_start(federation.coordinator.starts, federation.plan, save(weights))
    assert run(federation) == "completed"
    rounds = [request for _, request, _ in federation.sent if request.stage == "diffusion"]
    frozen = {name: value for name, value in weights.items() if name.startswith("denoiser/")}
    assert {request.round for request in rounds} == {1, 2} and frozen
    assert all(brings(request, name, value) for request in rounds for name, value in frozen.items())
    pool = pool_packages(federation.coordinator.root, federation.plan, Registry(federation.coordinator.root))
    assert len(pool.items) == 12 * len(federation.plan.sites)
    ((_, said),) = foreign_details(pool, federation.plan)
    assert "learned from public images" in said


def test_a_whole_study_of_a_flow_and_a_diffusion_on_codes_of_a_pinned_codec(tmp_path):
    values, policy = values_of(), copy.deepcopy(POLICY)
    flow, size = values["stages"].pop(), values["image"]["size"]
    dp = {key: value for key, value in flow.items() if key not in {"kind", "levels", "steps_per_level", "hidden"}}
    form = {"size": size, "cosines": 32, "kept": 16, "width": 8, "encoder_blocks": 1, "decoder_blocks": 1}
    codec = {"kind": "codec", "noise_multiplier": 0.5, "form": form}
    diffusion = {**dp, "kind": "diffusion", "width": 16, "depth": 1, "sampling_steps": 3}
    values["stages"] = [codec, {**flow, "levels": 2}, diffusion]
    values["release"] = [{"model": "flow", "images": 6}, {"model": "diffusion", "images": 6}]
    policy["allowed_stages"] += ["codec", "diffusion"]
    network = to_arrays(AUTOENCODER, initial_model(AUTOENCODER, parse(values, Plan, "plan")))
    codec["start"] = {"source": "phantom", "sha256": fingerprint(network)}
    start = pretrain(parse(values, Plan, "plan"), "flow", "phantom", steps=3, patients=20, network=network)[0]
    values["stages"][1]["start"] = {"source": "phantom", "sha256": fingerprint(start)}
    federation = make_federation(tmp_path, values, policy)
    for weights in (network, start):
        keep_start(federation.coordinator.starts, federation.plan, save(weights))
    assert run(federation) == "completed"
    asked = [request for _, request, _ in federation.sent if request.stage in {"flow", "diffusion"}]
    assert asked and all(brings(request, name, value) for request in asked for name, value in network.items())
    pool = pool_packages(federation.coordinator.root, federation.plan, Registry(federation.coordinator.root))
    assert len(pool.items) == 12 * len(federation.plan.sites)
    said = dict(foreign_details(pool, federation.plan))
    assert said.keys() == {"flow", "diffusion"} and all("drawn by a network" in text for text in said.values())


def test_a_coordinator_without_the_weights_or_with_others_asks_no_site(federation, start):
    (path,) = federation.coordinator.starts.glob("*.safetensors")
    wrong = {name: value + 1 for name, value in start.items()}
    for spoil in (lambda: path.write_bytes(save(wrong)), path.unlink):
        spoil()
        assert run(federation) == "stopped"
    assert "are not here" in federation.result()["reason"]
    assert not any(request.stage == "flow" for _, request, _ in federation.sent)


def test_a_crafted_start_is_refused_before_the_charge(federation, monkeypatch):
    from sfumato_server.rounds.strategies.flow import FlowStrategy

    honest = FlowStrategy.outbound

    def crafted(self, number, site):
        sent = honest(self, number, site)
        name = next(name for name in sorted(sent) if name.startswith("flow/"))
        return {**sent, name: sent[name] + 1e-3}

    monkeypatch.setattr(FlowStrategy, "outbound", crafted)
    assert run(federation) == "stopped"
    replies = [reply for _, request, reply in federation.sent if request.stage == "flow"]
    assert {reply.code for reply in replies} == {VerificationError.wire_code}
    for site in federation.sites:
        with federation.home(site).open_ledger() as ledger:
            assert {entry.purpose for entry in ledger.entries()} == {"spectral"}


def test_a_site_that_missed_the_first_round_stays_out_and_the_others_go_on(federation):
    exchange = federation.exchange

    def absent(requests, *rest):
        request = next(iter(requests.values()))
        if (request.stage, request.round) == ("flow", 1):
            federation.down = {"cedar"}
        replies = exchange(requests, *rest)
        federation.down = set()
        return replies

    federation.exchange = absent
    assert run(federation) == "completed"
    said = {
        (r.kind, r.round): reply.code for site, r, reply in federation.sent if site == "cedar" and r.kind != "hello"
    }
    assert said[("stage", 2)] == VerificationError.wire_code
    assert said[("make", 0)] == VerificationError.wire_code
    (note,) = [
        path.read_text()
        for path in sorted((federation.home("cedar").steward_folder / "errors").glob("*.txt"))
        if "missed the first round" in path.read_text()
    ][:1]
    assert "takes no part in that stage" in note
