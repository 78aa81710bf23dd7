"""A job of one site in NVFLARE's simulator, under the ledger's filters: `run.py FOLDER ROUNDS whole|result`."""

import sys
from pathlib import Path

from controller import Asking
from nvflare.fuel.utils.constants import FrameworkType
from nvflare.job_config.api import FedJob, FilterType
from nvflare.job_config.script_runner import ScriptRunner

from sfumato import ledger
from sfumato.ledger.nvflare import ChargeTask, NoiseResult

if __name__ == "__main__":
    folder, rounds = Path(sys.argv[1]), int(sys.argv[2])
    ledger.create_ledger(folder / "book.sqlite", site="alder", epsilon=1.5, delta=1e-5)
    (folder / "patients.txt").write_text("anna\nberta\n")
    job = FedJob(name="asking", min_clients=1)
    job.to_server(Asking(rounds, str(folder / "replies.jsonl")))
    job.to(ScriptRunner(script=str(Path(__file__).with_name("executor.py")), framework=FrameworkType.NUMPY), "site-1")
    words = {"ledger": str(folder / "book.sqlite"), "study": "hearts", "purpose": "a test"}
    charge = ChargeTask(**words, patients=str(folder / "patients.txt"), clipping_norm=1.0, noise_multiplier=4.0)
    if sys.argv[3] == "whole":
        job.to(charge, "site-1", filter_type=FilterType.TASK_DATA, tasks=["train"])
    job.to(NoiseResult(), "site-1", filter_type=FilterType.TASK_RESULT, tasks=["train"])
    job.simulator_run(str(folder / "work"), threads=1)
