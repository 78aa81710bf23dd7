"""Several ranks at a site: one answer, one charge, noise once; an end in time where a rank dies or hangs."""

import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from support.homes import make_home
from support.studies import PLAN, POLICY

from sfumato_client.flower import ranks as module
from sfumato_client.flower.ranks import LocalRanks, check_secret, device_count, ranks_of
from sfumato_client.site.handler import Site
from sfumato_client.site.home import SiteHome
from sfumato_client.training.dp.engines import ENGINES
from sfumato_client.training.dp.shared import SharedSums
from sfumato_common.errors import ConfigError, WorkerLost
from sfumato_common.generators.gan.discriminator import Discriminator, real_loss
from sfumato_common.mechanisms.recorder import NoiseRecorder
from sfumato_common.protocol.messages import PROTOCOL, Request
from sfumato_common.strict import parse
from sfumato_common.study.plan import Plan
from sfumato_server.rounds.strategies import strategy_of

ONE = {**PLAN, "sites": {"alder": {"nominal_patients": 40}}, "federation": {**PLAN["federation"], "quorum": 1}}
FLOW = {**ONE, "stages": [PLAN["stages"][0], PLAN["stages"][2]], "release": PLAN["release"][:1]}


class Asked:
    """A site, and the first questions of its study; `ranks` shares its training."""

    def __init__(self, root, ranks, values=FLOW):
        self.plan = parse(values, Plan, "plan")
        self.home = make_home(root, "alder", self.plan, POLICY, 40)
        self.site = Site(self.home, lambda data, plan: None, ranks=lambda: ranks(self.home))
        spectral = strategy_of(self.plan, self.plan.stages[0], {})
        reply = self.ask("spectral", {})
        assert reply.status == "ok"
        spectral.absorb(1, {"alder": reply.arrays}, torch.Generator().manual_seed(0))
        self.released = {"spectral": spectral.released()}

    def ask(self, stage, arrays):
        return self.site.handle(Request(PROTOCOL, self.plan.digest, "stage", stage, 1, arrays))

    def train(self):
        stage = self.plan.stages[1]
        return self.ask(stage.kind, strategy_of(self.plan, stage, self.released).outbound(1, "alder"))

    def rows(self):
        with self.home.open_ledger() as ledger:
            ledger.verify()
            charges = [(entry.purpose, entry.round, entry.event) for entry in ledger.entries()]
            return charges, ledger.unsettled_charges()


def two(home):
    return ranks_of(home, 2, 60.0)


def one(home):
    return ranks_of(home, 1)


def test_a_whole_stage_on_two_ranks_is_that_of_one_with_the_noise_of_one(tmp_path, monkeypatch):
    drawn = []
    plain = NoiseRecorder.sampled_gaussian

    def counted(self, value, *terms):
        drawn.append(value.shape)
        return plain(self, value, *terms)

    monkeypatch.setattr(NoiseRecorder, "sampled_gaussian", counted)
    replies, ledgers = [], []
    for name, ranks in (("one", one), ("two", two)):
        drawn.clear()
        asked = Asked(tmp_path / name, ranks)
        replies.append(asked.train())
        ledgers.append(asked.rows())
        assert len(drawn) == asked.plan.stages[1].local_steps, "once a step, by this process alone"
    assert [reply.status for reply in replies] == ["ok", "ok"]
    alone, shared = (reply.arrays["update"] for reply in replies)
    values = [np.frombuffer(part.tobytes(), np.uint16).astype(np.uint32) << 16 for part in (alone, shared)]
    first, second = (part.view(np.float32) for part in values)
    # test noise is the same, so that updates differ by roundings, to which bfloat16 adds one of its last bits
    assert np.allclose(first, second, rtol=2.0**-6, atol=1e-6)
    assert ledgers[0] == ledgers[1]
    assert ledgers[1][1] == []


def test_where_a_rank_dies_nothing_leaves_and_the_work_is_done_again_under_its_charge(tmp_path, monkeypatch):
    plain, killed = LocalRanks.hand_out, []

    def kill_first(self, rank, arrays, clipping_norm):
        plain(self, rank, arrays, clipping_norm)
        if not killed:
            killed.append(self.processes[0])
            os.kill(self.processes[0], signal.SIGKILL)

    monkeypatch.setattr(LocalRanks, "hand_out", kill_first)
    asked = Asked(tmp_path / "home", two)
    began = time.monotonic()
    lost = asked.train()
    assert lost.code == "busy"
    assert not lost.arrays
    assert time.monotonic() - began < 60
    charges, open_ = asked.rows()
    assert len(charges) == 2
    assert len(open_) == 1, "the charge stands"
    assert asked.train().status == "ok"
    again, open_ = asked.rows()
    assert again == charges, "and pays for the second try"
    assert open_ == []


@pytest.fixture
def started(tmp_path):
    """Two ranks that wait for each other 5 s, and the engine that they share."""
    ranks, model = LocalRanks(SiteHome(tmp_path), 2, 5.0), Discriminator(1, 2, 8)
    ranks.begin(model, real_loss, "vmap")
    yield ranks, SharedSums(ENGINES["vmap"](model, real_loss), model, ranks)
    ranks.stop()


ROWS = [torch.ones(8, 1, 16, 16), torch.eye(2)[torch.arange(8) % 2]]


def test_a_rank_that_hangs_is_waited_for_so_long_and_no_longer(started):
    ranks, shared = started
    shared.clipped_sum(ROWS, 1.0)
    os.kill(ranks.processes[0], signal.SIGSTOP)
    began = time.monotonic()
    with pytest.raises(WorkerLost, match="died or hangs"):
        shared.clipped_sum(ROWS, 1.0)
    assert 3.0 < time.monotonic() - began < 30.0


def test_a_rank_that_died_is_seen_at_once(started):
    ranks, shared = started
    os.kill(ranks.processes[0], signal.SIGKILL)
    began = time.monotonic()
    with pytest.raises(WorkerLost, match="died or hangs"):
        shared.clipped_sum(ROWS, 1.0)
    assert time.monotonic() - began < 4.0


def test_a_rank_that_cannot_start_is_told_at_once(tmp_path):
    ranks = LocalRanks(SiteHome(tmp_path), 2, 120.0)
    began = time.monotonic()
    with pytest.raises(WorkerLost, match="ended at its start"):
        ranks.begin(Discriminator(1, 2, 8), real_loss, "no engine")
    assert time.monotonic() - began < 60
    ranks.stop()
    assert "no engine" in (tmp_path / "logs" / "ranks.log").read_text()


def test_who_does_not_hold_the_secret_is_given_nothing():
    class Others:
        """A group whose other rank shows the mark of another secret."""

        def allreduce(self, tensors):
            tensors[0][1] += torch.arange(32.0)
            return self

        def wait(self):
            pass

    with pytest.raises(WorkerLost, match="none of this work's"):
        check_secret(Others(), b"s" * 32, 0, 2)


def test_the_secret_and_the_records_stand_in_no_command_line(started):
    ranks, _ = started
    words = Path(f"/proc/{ranks.processes[0]}/cmdline").read_bytes().split(b"\0")
    assert {word for word in words if word.startswith(b"--")} == {b"--rank", b"--world", b"--store", b"--seconds"}


def test_how_many_devices(monkeypatch):
    assert device_count(0) == max(1, torch.cuda.device_count())
    monkeypatch.setattr(module.torch.cuda, "device_count", lambda: 4)
    assert (device_count(0), device_count(2)) == (4, 2)
    with pytest.raises(ConfigError, match="may use 4 CUDA devices"):
        device_count(5)
    monkeypatch.setattr(module.torch.cuda, "device_count", lambda: 0)
    assert (device_count(0), device_count(3)) == (1, 3)
