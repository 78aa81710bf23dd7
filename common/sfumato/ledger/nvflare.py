"""Two filters for NVFLARE (2.9): one charges before the executor sees a task, one clips and noises its result.

In a job: `job.to(ChargeTask(...), site, filter_type=FilterType.TASK_DATA, tasks=["train"])`, and `NoiseResult()` with
FilterType.TASK_RESULT for the same tasks. A job's filters are matched by the task's exact name: `tasks=["*"]` names no
task, and filters nothing, without a word. In a site's own `local/privacy.json` they stand for every task of every job.
What goes wrong leaves as NVFLARE's return code for a filter, without words. Where NVFLARE's pins do not agree with
Sfumato's, its environment needs numpy, scipy, pydantic, cryptography, packaging, ruamel.yaml, pillow and dp-accounting.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

import numpy as np
from nvflare.apis.dxo import DXO, DataKind, MetaKey, from_shareable
from nvflare.apis.filter import Filter
from nvflare.apis.fl_constant import ReturnCode
from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import Shareable
from nvflare.app_common.app_constant import AppConstants

from sfumato.ledger import open_run
from sfumato.ledger.update import WholeUpdate, tool
from sfumato_client.ledger.charged import Charge
from sfumato_common.errors import EgressRefused, PolicyRefusal
from sfumato_common.types import AnyArray

TOOL = tool(
    "sfumato.ledger.nvflare on nvflare 2.9",
    "Both filters stand on every task whose executor reads patients, by the task's exact name (NVFLARE matches '*' to "
    "none) or in the site's privacy.json; the charging one first, the noising one last.",
    "The executor keeps and sends nothing beside its result: no event, no stream, no file.",
)
_OPEN = "sfumato_ledger_open_task"


class _Task:
    """A task under way: its charge, the model that came, and the mechanism."""

    def __init__(self, charge: Charge, before: dict[str, AnyArray], mechanism: WholeUpdate) -> None:
        self.charge, self.before, self.mechanism = charge, before, mechanism


class ChargeTask(Filter):  # type: ignore[misc]
    """Charges one update before the task's executor runs; a filter of task data.

    `ledger` is the ledger's path, `patients` a file with an identifier a line: of all patients whose records the
    executor reads. A task that is no model, or does not fit the budget, never reaches the executor.
    """

    def __init__(
        self, ledger: str, study: str, purpose: str, patients: str, clipping_norm: float, noise_multiplier: float
    ) -> None:
        super().__init__()
        self.ledger, self.study, self.purpose, self.patients = ledger, study, purpose, patients
        self.clipping_norm, self.noise_multiplier = clipping_norm, noise_multiplier

    def process(self, shareable: Shareable, fl_ctx: FLContext) -> Shareable:
        """The task as it came, once it is paid for."""
        dxo = from_shareable(shareable)
        if dxo.data_kind != DataKind.WEIGHTS or not dxo.data:
            raise PolicyRefusal(
                "a task holds the weights of a model; this one does not, and does not reach the executor"
            )
        before = {str(name): np.array(value) for name, value in dxo.data.items()}
        names = Path(self.patients).read_text(encoding="utf-8").split()
        mechanism, ends = WholeUpdate(self.clipping_norm, self.noise_multiplier), contextlib.ExitStack()
        opened = open_run(Path(self.ledger), study=self.study, purpose=self.purpose, patients=names, tool=TOOL)
        run = ends.enter_context(opened)
        task = _Task(ends.enter_context(run.charged([mechanism.event])), before, mechanism)
        fl_ctx.set_prop(_OPEN, (task, ends), private=True, sticky=False)
        return shareable


class NoiseResult(Filter):  # type: ignore[misc]
    """Clips and noises what an executor made under a charge, and lets nothing else of it leave; of task results."""

    def process(self, shareable: Shareable, fl_ctx: FLContext) -> Shareable:
        """The noised model in a message of its own: metrics, counts and headers of the executor's are dropped."""
        open_task, _ = fl_ctx.get_prop(_OPEN), fl_ctx.set_prop(_OPEN, None, private=True, sticky=False)
        if open_task is None:
            raise EgressRefused("a result without a charge; the filter of task data did not run before")
        task, ends = open_task
        if shareable.get_return_code() != ReturnCode.OK:
            raise EgressRefused("the executor failed: its charge stays, and its words do not leave")
        dxo = from_shareable(shareable)
        kinds = {
            DataKind.WEIGHTS: task.before,
            DataKind.WEIGHT_DIFF: {n: np.zeros_like(v) for n, v in task.before.items()},
        }
        before = kinds.get(dxo.data_kind)
        if before is None or set(map(str, dxo.data)) != set(before):
            raise EgressRefused("the executor gave something else than a model of the form that came; nothing was sent")
        names, made = sorted(before), {str(name): value for name, value in dxo.data.items()}
        noised = task.mechanism.release(
            task.charge.recorder, [before[name] for name in names], [np.asarray(made[name]) for name in names]
        )
        sealed = task.charge.seal(dict(zip(names, noised, strict=True)))
        ends.close()
        # a number of steps is asked for by averaging, and is the same at every site
        reply = DXO(dxo.data_kind, dict(sealed.result), {MetaKey.NUM_STEPS_CURRENT_ROUND: 1}).to_shareable()
        asked = shareable.get_header(AppConstants.CURRENT_ROUND)
        if isinstance(asked, int):
            reply.set_header(AppConstants.CURRENT_ROUND, asked)
        return reply
