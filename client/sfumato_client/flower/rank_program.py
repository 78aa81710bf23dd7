"""`python -m sfumato_client.flower.rank_program`: a rank other than 0 of a training step; see `ranks.py`.

It has no ledger, no key, no noise and no file of the home. It ends when its pipe does, and with its parent.
"""

from __future__ import annotations

import argparse
import logging
import os
import pickle
import sys
from pathlib import Path

import torch

from sfumato_client.flower.ranks import READY, add_up, check_secret, device_of, join_group
from sfumato_client.training.dp.engines import ENGINES
from sfumato_client.training.dp.shared import part_of_step
from sfumato_common.generators.device import training_device
from sfumato_common.logs import start_log
from sfumato_common.protocol.frames import read_frame

log = logging.getLogger(__name__)


def main() -> None:
    """Entry point: which rank of how many, and where they meet; all else comes through standard input."""
    parser = argparse.ArgumentParser(description="Share the training steps of this site's worker.")
    parser.add_argument("--rank", type=int, required=True, help="which one this is, from 1")
    parser.add_argument("--world", type=int, required=True, help="how many there are")
    parser.add_argument("--store", type=Path, required=True, help="the file at which they meet")
    parser.add_argument("--seconds", type=float, required=True, help="how long one waits for another")
    given = parser.parse_args()
    start_log()
    try:
        _work(given.rank, given.world, given.store, given.seconds)
    except Exception as error:
        log.error("rank %d ends: %s: %s", given.rank, type(error).__name__, error)
        os._exit(1)
    os._exit(0)  # gloo's threads are not waited for


def _work(rank: int, world: int, store: Path, seconds: float) -> None:
    source = sys.stdin.buffer
    first = read_frame(source)
    if first is None:
        return
    training_device()  # the exact arithmetic that it switches on
    device = device_of(rank)
    if device.type == "cpu":
        torch.set_num_threads(max(1, torch.get_num_threads() // world))
    header, arrays = first
    module, loss = pickle.loads(arrays["module"].tobytes())  # noqa: S301 - of our own parent, through its pipe
    module.to(device)
    engine = ENGINES[header["engine"]](module, loss)
    os.write(1, READY)
    group = join_group(store, rank, world, seconds)
    check_secret(group, bytes.fromhex(header["secret"]), rank, world)
    while (frame := read_frame(source)) is not None:
        header, arrays = frame
        add_up(group, part_of_step(module, engine, arrays, header["clipping_norm"]))


if __name__ == "__main__":
    main()
