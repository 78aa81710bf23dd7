"""Fed-BioMed's training plan under the ledger: a plan's two methods as its node calls them, and Fed-BioMed itself."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch

from sfumato import ledger
from sfumato.ledger.fedbiomed import TOOL, ChargedPlan
from sfumato_client.ledger.standalone import open_ledger
from sfumato_common.errors import BudgetExceeded, ConfigError, EgressRefused

ROOT = Path(__file__).resolve().parents[2]
# a Python with fedbiomed 6.4 and the ledger's packages; its own pins and ours do not go into one environment
PYTHON = Path(os.environ.get("SFUMATO_FEDBIOMED", ROOT / "bench-out" / "fedbiomed" / "bin" / "python"))
HERE = Path(__file__).with_name("fedbiomed_run")


class TrainingPlan:
    """What the mixin asks of Fed-BioMed's own class, as version 6.4 has it: its model, and the node's two calls."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.net = torch.nn.Sequential(torch.nn.Linear(40, 10), torch.nn.BatchNorm1d(10))
        self.told: list[Any] = []
        self.seen = 0

    def get_model_params(self, only_trainable: bool, exclude_buffers: bool, local_params: Any) -> dict[str, Any]:
        assert (only_trainable, exclude_buffers, local_params) == (False, False, None)
        return {name: value.detach().clone() for name, value in self.net.state_dict().items()}

    def set_model_params(self, params: dict[str, Any]) -> None:
        self.net.load_state_dict(params)

    def training_routine(self, history_monitor: Any = None, node_args: Any = None) -> int:
        self.seen += 1
        if history_monitor is not None:
            self.told.append("a loss")
        with torch.no_grad():
            for value in self.net.state_dict().values():
                value += 1_000_000
        return 64

    def after_training_params(self, flatten: bool = False) -> Any:
        state = self.net.state_dict()
        return torch.cat([value.flatten().float() for value in state.values()]).tolist() if flatten else state


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    ledger.create_ledger(tmp_path / "book.sqlite", site="alder", epsilon=1.8, delta=1e-5)
    (tmp_path / "patients.txt").write_text("\n".join(f"p{number}" for number in range(64)))
    return tmp_path


def plan_of(folder: Path, base: type = TrainingPlan, **more: Any) -> Any:
    said = {
        "ledger": str(folder / "book.sqlite"), "study": "lungs", "purpose": "a test",
        "patients": str(folder / "patients.txt"), "clipping_norm": 1.0, "noise_multiplier": 4.0, **more,
    }  # fmt: skip

    class Plan(ChargedPlan, base):  # type: ignore[misc]
        ledger: ClassVar[dict[str, Any]] = said

    return Plan()


def charges(folder: Path) -> tuple[int, int]:
    with open_ledger(folder / "book.sqlite") as book:
        return len(book.entries()), len(book.unsettled_charges())


def test_a_round_is_charged_before_it_trains_and_its_model_leaves_noised(folder: Path) -> None:
    plan = plan_of(folder)
    before = plan.get_model_params(False, False, None)
    assert plan.training_routine(history_monitor=object(), node_args={}) == 64
    assert charges(folder) == (1, 1) and plan.told == [], "no loss goes to the researcher"
    left = plan.after_training_params()
    moved = torch.cat([(left[name] - before[name]).flatten().float() for name in before])
    assert 6.5 < float(moved.std()) < 9.5, "noise of 4 x 2 clipping norms, and no update of a million"
    assert {name: value.dtype for name, value in left.items()} == {name: value.dtype for name, value in before.items()}
    assert charges(folder) == (1, 0)
    assert len(plan_of(folder).net.state_dict()) == len(left)


def test_what_the_node_flattens_for_secure_aggregation_is_noised_too(folder: Path) -> None:
    plan = plan_of(folder)
    plan.training_routine()
    assert np.std(plan.after_training_params(flatten=True)) < 20


def test_over_budget_nothing_trains_and_no_model_leaves_twice(folder: Path) -> None:
    plan = plan_of(folder)
    with pytest.raises(EgressRefused, match="nothing was charged"):
        plan.after_training_params()
    for _ in range(3):
        plan.training_routine()
        plan.after_training_params()
        with pytest.raises(EgressRefused):
            plan.after_training_params()
    with pytest.raises(BudgetExceeded):
        plan.training_routine()
    assert plan.seen == 3 and charges(folder) == (3, 0)
    with pytest.raises(EgressRefused):
        plan.after_training_params()


def test_a_training_that_fails_stays_charged_and_gives_nothing(folder: Path) -> None:
    class Failing(TrainingPlan):
        def training_routine(self, history_monitor: Any = None, node_args: Any = None) -> int:
            raise RuntimeError("a patient's name")

    plan = plan_of(folder, Failing)
    with pytest.raises(RuntimeError):
        plan.training_routine()
    assert charges(folder) == (1, 1)
    with pytest.raises(EgressRefused):
        plan.after_training_params()


def test_a_model_of_other_parts_does_not_leave(folder: Path) -> None:
    plan = plan_of(folder)
    plan.training_routine()
    plan.net.register_buffer("patients", torch.ones(64))
    with pytest.raises(EgressRefused, match="other parts"):
        plan.after_training_params()


def test_settings_are_exact_and_the_certificate_says_what_the_ledger_cannot_see(folder: Path) -> None:
    with pytest.raises(ConfigError, match="exactly: clipping_norm, ledger"):
        plan_of(folder, noise=4.0).training_routine()
    assert any("how many samples" in sentence for sentence in TOOL.rests_on)


@pytest.mark.slow
@pytest.mark.parametrize("flatten", ["no", "flatten"])
def test_fed_biomeds_own_training_plan(folder: Path, flatten: str) -> None:
    if not PYTHON.exists():
        pytest.skip("Fed-BioMed is not installed here: SFUMATO_FEDBIOMED names a Python that has it")
    given = {"PATH": "/usr/bin:/bin", "HOME": str(folder), "OMP_NUM_THREADS": "1"}
    given["PYTHONPATH"] = f"{ROOT / 'common'}:{ROOT / 'client'}"
    command = [str(PYTHON), str(HERE / "run.py"), str(folder), "4", flatten]
    done = subprocess.run(command, capture_output=True, text=True, timeout=270, env=given)
    assert done.returncode == 0, done.stderr[-2000:]
    rounds = [json.loads(line) for line in (folder / "rounds.jsonl").read_text().splitlines()]
    assert [set(one) for one in rounds[:3]] == [set(rounds[0])] * 3 and rounds[3] == {"error": "BudgetExceeded"}
    if flatten == "no":
        assert all(6.5 < one["std"] < 9.5 and one["own"] > 1000 and one["names"] == one["wanted"] for one in rounds[:3])
    assert (folder / "seen").read_text().count("seen") == 3 * 4 and not (folder / "told").exists()
    assert charges(folder) == (3, 0)
