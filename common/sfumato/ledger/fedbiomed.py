"""A mixin for Fed-BioMed (6.4) training plans: a round is charged before it trains, and its model leaves noised.

    class Plan(ChargedPlan, TorchTrainingPlan):
        ledger = {"ledger": "book.sqlite", "study": "lungs", "purpose": "a model", "patients": "patients.txt",
                  "clipping_norm": 1.0, "noise_multiplier": 4.0}

It stands before the plan's own class, and overrides the two methods that a node calls: `training_routine`, before which
the charge is on disk, and `after_training_params`, whose model is what leaves. A plan's text comes from the researcher
and is approved at the node: whoever approves it approves these numbers. Nothing of Fed-BioMed is imported. Its pins and
Sfumato's do not go into one environment: put `sfumato-common` and `sfumato-site` there without their dependencies.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from sfumato.ledger import open_run
from sfumato.ledger.hooks import UpdateHook
from sfumato.ledger.update import WholeUpdate, tool
from sfumato_common.errors import ConfigError, EgressRefused

TOOL = tool(
    "sfumato.ledger.fedbiomed on fedbiomed 6.4",
    "The plan class has ChargedPlan before Fed-BioMed's own class, overrides neither of its two methods, and its "
    "'postprocess' reads no patient.",
    "Fed-BioMed sends, beside the model, how many samples the training data have, and the text of what goes wrong: "
    "neither is charged. It sends a validation's figures where a researcher asks for one: set test_ratio to 0.",
    "The plan's optimizer has no auxiliary variables (declearn), which Fed-BioMed sends beside the model.",
)
_WORDS = frozenset(WholeUpdate.__dataclass_fields__) | {"ledger", "study", "purpose", "patients"}


class ChargedPlan:
    """Both methods around a round. `ledger` names the ledger's file, the study, the patients' file, and the mechanism.

    `patients` is a file with an identifier a line: of all patients whose records the training data have.
    """

    ledger: ClassVar[Mapping[str, Any]] = {}
    _charged_round: tuple[UpdateHook, list[str], contextlib.ExitStack] | None = None

    def training_routine(self, history_monitor: Any = None, node_args: Any = None) -> Any:
        """Train under a charge; losses go to nobody. Raises BudgetExceeded before any record is read."""
        self._charged_close()
        hook, ends = self._charged_open()
        weights = self._charged_arrays()
        try:
            hook.before(list(weights.values()))
        except BaseException:
            ends.close()
            raise
        self._charged_round = hook, list(weights), ends
        try:
            return super().training_routine(history_monitor=None, node_args=node_args)  # type: ignore[misc]
        except BaseException:
            self._charged_close()  # its charge stays, and nothing of it leaves
            raise

    def after_training_params(self, flatten: bool = False) -> Any:
        """The noised model, as the plan's own class gives it. Raises EgressRefused where no round was charged."""
        if self._charged_round is None:
            raise EgressRefused("nothing was charged for this model: it was not trained by 'training_routine'")
        hook, names, _ = self._charged_round
        made = self._charged_arrays()
        if list(made) != names:
            raise EgressRefused("the model that was trained has other parts than the one that came; nothing was sent")
        noised = hook.after(list(made.values()))
        self._charged_close()
        self._charged_put(dict(zip(names, noised, strict=True)))
        return super().after_training_params(flatten)  # type: ignore[misc]

    def _charged_open(self) -> tuple[UpdateHook, contextlib.ExitStack]:
        if set(self.ledger) != _WORDS:
            raise ConfigError(f"a charged plan's 'ledger' has exactly: {', '.join(sorted(_WORDS))}")
        said, ends = self.ledger, contextlib.ExitStack()
        names = Path(said["patients"]).read_text(encoding="utf-8").split()
        opened = open_run(Path(said["ledger"]), study=said["study"], purpose=said["purpose"], patients=names, tool=TOOL)
        mechanism = WholeUpdate(said["clipping_norm"], said["noise_multiplier"])
        return UpdateHook(ends.enter_context(opened), mechanism, TOOL), ends

    def _charged_close(self) -> None:
        if self._charged_round is not None:
            self._charged_round[2].close()
        self._charged_round = None

    def _charged_arrays(self) -> dict[str, Any]:
        """All of the model that can leave, buffers too, by name: numpy arrays of a plan's own order."""
        values: Mapping[str, Any] = self.get_model_params(  # type: ignore[attr-defined]
            only_trainable=False, exclude_buffers=False, local_params=None
        )
        return {
            name: np.array(value.detach().cpu() if hasattr(value, "detach") else value)
            for name, value in values.items()
        }

    def _charged_put(self, arrays: Mapping[str, Any]) -> None:
        """Into the model, each part of the kind and place that it was."""
        values: Mapping[str, Any] = self.get_model_params(  # type: ignore[attr-defined]
            only_trainable=False, exclude_buffers=False, local_params=None
        )
        put = {}
        for name, old in values.items():
            put[name] = (
                old.new_tensor(arrays[name]) if hasattr(old, "new_tensor") else np.asarray(arrays[name], old.dtype)
            )
        self.set_model_params(put)  # type: ignore[attr-defined]
