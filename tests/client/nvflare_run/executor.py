"""NVFLARE's site: adds a million to every number, and tells a count, a loss and a name."""

import os
from pathlib import Path

import nvflare.client as flare

flare.init()
while flare.is_running():
    model = flare.receive()
    with Path(os.environ["SFUMATO_TEST_SEEN"]).open("a") as stream:
        stream.write("seen\n")
    made = {"x": model.params["x"] + 1e6}
    flare.send(flare.FLModel(params=made, metrics={"loss": 0.25}, meta={"patients": 217, "who": "anna"}))
