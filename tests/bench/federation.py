"""What an exchange without work costs: Sfumato, Flower as it is shipped, and NVFLARE, in turn on this machine.

    python tests/bench/federation.py [--exchanges 8] [--turns 2] [--kilobytes 100] [--only sfumato,flower,nvflare]

Three sites and a server each, on real processes and TLS. The server sends every site an array of random numbers, and
each sends it back with a number of its own added. A turn starts one framework, exchanges, and ends it; turns of the
frameworks follow each other, so that all meet the same other work of the machine, whose load is printed. Our pace, a
grid on which a hospital lets answers leave, is set to nothing here: a study waits for it besides. NVFLARE is installed
into an environment of its own, where pip has it. Prints a table and writes bench-out/federation.json. Linux only.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import statistics
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from cohorts import ROOT
from exchange_sides import Turn


@dataclass(frozen=True)
class Framework:
    """What its row is called, the module with its `turn`, and what it does otherwise than the others."""

    title: str
    module: str
    notes: str


# To add a framework: one line here, and a module with `turn`, and with `missing` where it may not be installed.
FRAMEWORKS = {
    "sfumato": Framework(
        "Sfumato",
        "exchange_ours",
        "mutual TLS by site certificates, a signed node key, a front before Flower's SuperLink; a fork a message",
    ),
    "flower": Framework(
        "Flower 1.41.0",
        "exchange_flower",
        "TLS of the server alone, no login of sites; `Grid.send_and_receive`; a new process a message",
    ),
    "nvflare": Framework(
        "NVFLARE 2.9.0",
        "exchange_nvflare",
        "mutual TLS as it provisions; `ModelController`, and the in-process client API; one process a site and job",
    ),
}


def main() -> None:
    """Measure in turn, and print the table."""
    parser = argparse.ArgumentParser(description="An exchange without work: ours, Flower's and NVFLARE's")
    parser.add_argument("--exchanges", type=int, default=8)
    parser.add_argument("--turns", type=int, default=2)
    parser.add_argument("--kilobytes", type=int, default=100)
    parser.add_argument("--only", default=",".join(FRAMEWORKS))
    given = parser.parse_args()
    os.environ.setdefault("SFUMATO_CA_PASSPHRASE", "of a bench alone")
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    chosen = {name: FRAMEWORKS[name] for name in given.only.split(",")}
    modules = {name: importlib.import_module(framework.module) for name, framework in chosen.items()}
    absent = {name: why for name, module in modules.items() if (why := _missing(module))}
    turns: dict[str, list[dict]] = {name: [] for name in chosen if name not in absent}
    for number in range(given.turns):
        for name in turns:
            load = os.getloadavg()[0]
            done = _one(modules[name].turn, given.exchanges, given.kilobytes * 250)
            turns[name].append({**asdict(done), "load": round((load + os.getloadavg()[0]) / 2, 1)})
            print(f"{name} {number + 1}: {json.dumps(turns[name][-1])}", flush=True)
    print(table(turns, absent))
    out = ROOT / "bench-out" / "federation.json"
    out.parent.mkdir(exist_ok=True)
    report = {"cores": len(os.sched_getaffinity(0)), "kilobytes": given.kilobytes, "absent": absent, "turns": turns}
    out.write_text(json.dumps(report, indent=2) + "\n")


def _missing(module) -> str:
    return module.missing() if hasattr(module, "missing") else ""


def _one(turn: Callable[[Path, int, int], Turn], exchanges: int, floats: int) -> Turn:
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        return turn(Path(folder), exchanges, floats)


def table(turns: dict[str, list[dict]], absent: dict[str, str]) -> str:
    """A row a framework, as documents have it, and what differs between them below."""
    lines = [
        "| | exchange, median (s) | fastest to slowest | processor s a site | kB down a site | kB up | "
        "processes a site | start-up (s) | load |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, framework in FRAMEWORKS.items():
        if name in absent:
            lines.append(f"| {framework.title} | {absent[name]} |||||||| ")
        if not turns.get(name):
            continue
        own = turns[name]
        seconds = [value for turn in own for value in turn["seconds"]]
        mean = {key: statistics.mean(turn[key] for turn in own) for key in ("processor_s", "down", "up", "start_s")}
        loads = [turn["load"] for turn in own]
        lines.append(
            f"| {framework.title} | {statistics.median(seconds):.2f} | {min(seconds):.2f} to {max(seconds):.2f} | "
            f"{mean['processor_s']:.2f} | {mean['down'] / 1000:.0f} | {mean['up'] / 1000:.0f} | "
            f"{max(turn['processes'] for turn in own)} | {mean['start_s']:.0f} | {min(loads)} to {max(loads)} |"
        )
    return "\n".join([*lines, "", *(f"{f.title}: {f.notes}." for n, f in FRAMEWORKS.items() if turns.get(n))])


if __name__ == "__main__":
    main()
