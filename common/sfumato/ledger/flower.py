"""A mod for a plain Flower ClientApp (flwr 1.41): charged before the app sees a message, clipped and noised after it.

    app = ClientApp(mods=[ledger_mod(open_site, WholeUpdate(clipping_norm=1.0, noise_multiplier=4.0))])

It stands first in `mods`, so that nothing is outside it. Whatever goes wrong, in the app or here, leaves as an error of
a fixed form: Flower itself would send the text of an exception, which may hold a patient's data.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import AbstractContextManager

from flwr.app import Array, ArrayRecord, Context, Error, Message, MetricRecord, RecordDict
from flwr.common.constant import ErrorCode

from sfumato.ledger.update import WholeUpdate, tool
from sfumato_client.ledger.runs import Run
from sfumato_common.errors import EgressRefused, PolicyRefusal, SfumatoError

TOOL = tool(
    "sfumato.ledger.flower on flwr 1.41",
    "The site runs the app bundle that it read: in plain Flower the code of an app travels, and one without this mod "
    "charges nothing.",
)
App = Callable[[Message, Context], Message]
Mod = Callable[[Message, Context, App], Message]
_LOG = logging.getLogger(__name__)


def ledger_mod(open_site: Callable[[Context], AbstractContextManager[Run]], mechanism: WholeUpdate) -> Mod:
    """The mod. `open_site` opens the site's run, by `sfumato.ledger.open_run(..., tool=flower.TOOL)`.

    A `train` message must hold one ArrayRecord, the model. The reply holds the noised one under the same name, and
    `num-examples` 1 for all sites, as FedAvg asks for a number. The app's metrics are dropped, and messages of other
    kinds refused, as what they tell is of patients and was not charged.
    A refusal is a Message with Error(MOD_FAILED_PRECONDITION, CODE), CODE one of `sfumato_common.errors`' wire codes.
    """

    def mod(message: Message, context: Context, app: App) -> Message:
        try:
            return _answer(message, context, app, open_site, mechanism)
        except SfumatoError as error:
            _LOG.error("refused: %s", error)
            code = error.wire_code
        except Exception as error:
            _LOG.error("the app failed (%s); its words stay here", type(error).__name__, exc_info=error)
            code = SfumatoError.wire_code
        return Message(Error(ErrorCode.MOD_FAILED_PRECONDITION, code), reply_to=message)

    return mod


def _answer(
    message: Message,
    context: Context,
    app: App,
    open_site: Callable[[Context], AbstractContextManager[Run]],
    mechanism: WholeUpdate,
) -> Message:
    if message.metadata.message_type.split(".")[0] != "train":
        raise PolicyRefusal("only 'train' is charged for; other messages do not reach the app")
    if len(message.content.array_records) != 1:
        raise PolicyRefusal("a message holds one ArrayRecord, the model; this one does not")
    ((name, came),) = message.content.array_records.items()
    before = came.to_numpy_ndarrays()
    with open_site(context) as run:
        if run.statement.tool != TOOL.name:
            raise PolicyRefusal("open the run with tool=sfumato.ledger.flower.TOOL: its certificate says what it is")
        with run.charged([mechanism.event]) as charge:
            made = app(message, context)
            if made.has_error() or len(made.content.array_records) != 1:
                raise EgressRefused("the app gave an error, or not one ArrayRecord; nothing was sent")
            (gone,) = made.content.array_records.values()
            if list(gone.keys()) != list(came.keys()):
                raise EgressRefused("the app gave other arrays than it was sent; nothing was sent")
            noised = mechanism.release(charge.recorder, before, gone.to_numpy_ndarrays())
            sealed = charge.seal({str(at): part for at, part in enumerate(noised)})
    arrays = ArrayRecord({key: Array(sealed.result[str(at)]) for at, key in enumerate(came)})
    content = RecordDict({name: arrays, "metrics": MetricRecord({"num-examples": 1})})
    return Message(content, reply_to=message)
