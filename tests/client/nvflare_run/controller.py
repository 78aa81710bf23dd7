"""NVFLARE's server: asks every site so many times, and writes down what came back."""

import json
from pathlib import Path

import numpy as np
from nvflare.app_common.abstract.fl_model import FLModel
from nvflare.app_common.workflows.model_controller import ModelController


class Asking(ModelController):
    """Each reply as a line of JSON: its spread, its mean, its metrics and its meta."""

    def __init__(self, rounds: int, out: str):
        super().__init__(persistor_id="")
        self.rounds, self.out = rounds, out

    def run(self):
        for _ in range(self.rounds):
            replies = self.send_model_and_wait(data=FLModel(params={"x": np.zeros(400, np.float32)}), timeout=60)
            said = [
                {
                    "std": float(np.std(one.params["x"])),
                    "mean": float(np.mean(one.params["x"])),
                    "metrics": one.metrics,
                    "meta": sorted(map(str, one.meta or {})),
                }
                for one in replies
            ]
            with Path(self.out).open("a") as stream:
                stream.write(json.dumps(said) + "\n")
