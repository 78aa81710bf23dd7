"""NVFLARE's server half of an exchange without work. It runs where NVFLARE is, and so do `echo.py` and `submit.py`."""

import time
from pathlib import Path

import numpy as np
from nvflare.app_common.abstract.fl_model import FLModel
from nvflare.app_common.workflows.model_controller import ModelController


class Exchange(ModelController):
    """Sends an array to all sites, `exchanges` times, and writes the seconds of each to the file `out`."""

    def __init__(self, exchanges: int, floats: int, sites: int, out: str):
        super().__init__(persistor_id="")
        self.exchanges, self.floats, self.sites, self.out = exchanges, floats, sites, out

    def run(self):
        first = np.random.default_rng(0).random(self.floats, dtype=np.float32)
        for number in range(self.exchanges):
            payload = first + np.float32(number)
            began = time.monotonic()
            replies = self.send_model_and_wait(data=FLModel(params={"x": payload}))
            assert len(replies) == self.sites
            assert all(np.ptp(reply.params["x"] - payload) < 0.001 for reply in replies)
            with Path(self.out).open("a") as stream:
                stream.write(f"{time.monotonic() - began}\n")
