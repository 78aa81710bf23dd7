"""Rounds of Fed-BioMed's own training plan, in the order in which its node calls it; run by its environment's Python.

run.py FOLDER ROUNDS FLATTEN: ledger and patients' file lie in FOLDER; a line a round is written to rounds.jsonl.
"""

import json
import sys
from pathlib import Path
from typing import ClassVar

import torch
from fedbiomed.common.dataloader import PytorchDataLoader
from fedbiomed.common.training_args import TrainingArgs
from fedbiomed.common.training_plans import TorchTrainingPlan
from torch.utils.data import TensorDataset

from sfumato.ledger.fedbiomed import ChargedPlan

FOLDER, ROUNDS, FLATTEN = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3] == "flatten"


class Plan(ChargedPlan, TorchTrainingPlan):
    ledger: ClassVar = {
        "ledger": str(FOLDER / "book.sqlite"), "study": "lungs", "purpose": "a test",
        "patients": str(FOLDER / "patients.txt"), "clipping_norm": 1.0, "noise_multiplier": 4.0,
    }  # fmt: skip

    def init_model(self, model_args):
        return torch.nn.Sequential(torch.nn.Linear(40, 10), torch.nn.BatchNorm1d(10), torch.nn.Linear(10, 2))

    def init_optimizer(self, optimizer_args):
        return torch.optim.SGD(self.model().parameters(), lr=1000.0)

    def init_dependencies(self):
        return []

    def training_step(self, data, target):
        with (FOLDER / "seen").open("a") as file:
            file.write("seen\n")
        return torch.nn.functional.cross_entropy(self.model()(data), target)

    def training_data(self):
        raise NotImplementedError


class Monitor:
    def add_scalar(self, *words, **more):
        with (FOLDER / "told").open("a") as file:
            file.write("told\n")


def one_round(number):
    plan = Plan()
    asked = {"epochs": 1, "loader_args": {"batch_size": 16}, "log_interval": 1, "optimizer_args": {"lr": 1000.0}}
    plan.post_init({}, TrainingArgs(asked, only_required=False), {}, node_id="node", round=number)
    data = TensorDataset(torch.randn(64, 40), torch.randint(0, 2, (64,)))
    plan.set_data_loaders(PytorchDataLoader(data, batch_size=16), None)
    before = {name: value.clone() for name, value in plan.model().state_dict().items()}
    plan.training_routine(history_monitor=Monitor(), node_args=None)
    made = {name: value.clone() for name, value in plan.model().state_dict().items()}
    left = plan.after_training_params(flatten=FLATTEN)
    if FLATTEN:
        return {"numbers": len(left)}
    numbers = [name for name in before if before[name].is_floating_point()]
    moved, own = (torch.cat([(now[name] - before[name]).flatten() for name in numbers]) for now in (left, made))
    return {"std": float(moved.std()), "own": float(own.norm()), "names": sorted(left), "wanted": sorted(before)}


for number in range(ROUNDS):
    try:
        said = one_round(number)
    except Exception as error:
        said = {"error": type(error).__name__}
    with (FOLDER / "rounds.jsonl").open("a") as file:
        file.write(json.dumps(said) + "\n")
