"""NVFLARE's own simulator under the ledger's filters, in the environment that the bench of exchanges installs."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from sfumato_client.ledger.standalone import open_ledger

ROOT = Path(__file__).resolve().parents[2]
PYTHON = Path(os.environ.get("SFUMATO_NVFLARE", ROOT / "bench-out" / "nvflare" / "bin" / "python"))
HERE = Path(__file__).with_name("nvflare_run")
NEEDS = "nvflare, scipy, pydantic, cryptography, packaging, ruamel.yaml, PIL, dp_accounting, isal"


def missing() -> str:
    if not PYTHON.exists():
        return "NVFLARE is not installed here: 'make bench NAME=exchange' does it, or SFUMATO_NVFLARE names its Python"
    done = subprocess.run([PYTHON, "-c", f"import {NEEDS}"], capture_output=True, text=True, timeout=120)
    return f"NVFLARE's environment lacks a package of the ledger: {done.stderr[-200:]}" if done.returncode else ""


pytestmark = pytest.mark.slow


def simulate(folder, rounds, which):
    if why := missing():
        pytest.skip(why)
    paths = [ROOT / "common", ROOT / "client", HERE]
    given = {"PATH": "/usr/bin:/bin", "HOME": str(folder), "SFUMATO_TEST_SEEN": str(folder / "seen")}
    given |= {"PYTHONPATH": ":".join(map(str, paths)), "OMP_NUM_THREADS": "1"}
    command = [str(PYTHON), str(HERE / "run.py"), str(folder), str(rounds), which]
    done = subprocess.run(command, capture_output=True, text=True, timeout=270, env=given)
    lines = (folder / "replies.jsonl").read_text().splitlines() if (folder / "replies.jsonl").exists() else []
    seen = (folder / "seen").read_text().count("seen") if (folder / "seen").exists() else 0
    return [json.loads(line) for line in lines], seen, done.stdout + done.stderr


def test_tasks_are_charged_before_the_executor_and_leave_noised_and_bare(tmp_path):
    rounds, seen, said = simulate(tmp_path, 3, "whole")
    (first,), (second,) = rounds[0], rounds[1]
    for reply in (first, second):
        assert 6.5 < reply["std"] < 9.5, "noise of 4 x 2 clipping norms on 400 numbers, and no update of a million"
        assert reply["metrics"] is None
        assert not {"patients", "who", "initial_metrics"} & set(reply["meta"])
    # the third does not fit the budget of 1.5: the executor never sees it, and a code leaves
    assert seen == 2
    assert "TASK_DATA_FILTER_ERROR" in said
    with open_ledger(tmp_path / "book.sqlite") as book:
        assert len(book.entries()) == 2
        assert not book.unsettled_charges()


def test_a_result_without_a_charge_does_not_leave(tmp_path):
    rounds, seen, said = simulate(tmp_path, 1, "result")
    assert seen == 1
    assert not any(rounds)
    assert "TASK_RESULT_FILTER_ERROR" in said
