"""Two plain functions around anybody's training, as frameworks call them: before it, and after it.

    hook = UpdateHook(run, WholeUpdate(clipping_norm=1.0, noise_multiplier=4.0))
    hook.before(arrays)                 # charged; raises before any record is read
    arrays = hook.after(trained)        # clipped, noised, sealed: what may leave

No framework is imported. Fed-BioMed's plans have a mixin that calls them (`sfumato.ledger.fedbiomed`).
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from sfumato.ledger import Tool
from sfumato.ledger.update import WholeUpdate, tool
from sfumato_client.ledger.charged import Charge
from sfumato_client.ledger.runs import Run
from sfumato_common.errors import EgressRefused, PolicyRefusal
from sfumato_common.types import AnyArray

TOOL = tool(
    "sfumato.ledger.hooks", "The framework calls 'before' before it trains, and sends what 'after' gives alone."
)


class UpdateHook:
    """Both functions of one run. One training at a time; one that fails stays charged, and `reset` forgets it.

    The run has to be opened with `adapter`, whose caller says more of what its claim rests on.
    """

    def __init__(self, run: Run, mechanism: WholeUpdate, adapter: Tool = TOOL) -> None:
        if run.statement.tool != adapter.name:
            raise PolicyRefusal("open the run with tool=sfumato.ledger.hooks.TOOL: its certificate says what it is")
        self._run, self._mechanism = run, mechanism
        self._charge: Charge | None = None
        self._before: list[AnyArray] = []
        self._ends = contextlib.ExitStack()

    def before(self, arrays: Sequence[AnyArray]) -> None:
        """Charge one update of the model `arrays`, on disk. Raises BudgetExceeded; EgressRefused for a second one."""
        if self._charge is not None:
            raise EgressRefused("a training is under way; call 'after' with what it made, or 'reset'")
        before = [np.array(one) for one in arrays]
        self._charge = self._ends.enter_context(self._run.charged([self._mechanism.event]))
        self._before = before

    def after(self, arrays: Sequence[AnyArray]) -> list[npt.NDArray[np.float32]]:
        """What may leave instead of the trained `arrays`. Raises EgressRefused where nothing was charged."""
        if self._charge is None:
            raise EgressRefused("nothing was charged for this training; call 'before' first")
        noised = self._mechanism.release(self._charge.recorder, self._before, arrays)
        self._charge.seal({str(at): part for at, part in enumerate(noised)})
        self._ends.close()
        self.reset()
        return noised

    def reset(self) -> None:
        """Forget a training that failed; its charge stays."""
        self._charge, self._before, self._ends = None, [], contextlib.ExitStack()
