"""NVFLARE's site: answers with the array that it was sent, and a random number."""

import random

import nvflare.client as flare

flare.init()
while flare.is_running():
    model = flare.receive()
    array = model.params["x"]
    flare.send(flare.FLModel(params={"x": array + array.dtype.type(random.random())}))
