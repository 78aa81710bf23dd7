"""Flower's entry into the site: one action, records in, records out; everything else is in site.handler.

Runs in the fork that the worker makes for each message. The home folder comes from the site's own environment,
never from the message or the run configuration.
"""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import NoReturn

from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from sfumato_client.egress.guard import refusal
from sfumato_client.egress.supernode import DEVICES_VARIABLE, HOME_VARIABLE, LAUNCHER_VARIABLE, STUDY_VARIABLE
from sfumato_client.flower.launcher import Launcher
from sfumato_client.flower.ranks import ranks_of
from sfumato_client.flower.upload import uploader
from sfumato_client.site.handler import Site
from sfumato_client.site.home import SiteHome
from sfumato_client.site.watch import HUNG_CODE
from sfumato_common.errors import PolicyRefusal
from sfumato_common.protocol.flower import decode_request, encode

ACTION = "train"


def _home() -> SiteHome:
    return SiteHome(Path(os.environ[HOME_VARIABLE]), os.environ.get(STUDY_VARIABLE, ""))


def _end() -> NoReturn:
    """As after a kill: Flower misses this task, and the coordinator asks again."""
    os._exit(HUNG_CODE)


class _OneAction(ClientApp):
    """Flower's ClientApp, refusing all other actions in our way: Flower would send an exception's text back."""

    def __call__(self, message: Message, context: Context) -> Message:
        home = _home()
        try:
            if message.metadata.message_type != ACTION:
                raise PolicyRefusal("the message asks for an action that this site does not have: it evaluates nothing")
            return super().__call__(message, context)
        except Exception as error:
            # decoding failed, for example: a code and a local reference leave and nothing else
            return Message(encode(refusal(error, home.steward_folder)), reply_to=message)


app = _OneAction()


@app.train()
def answer(message: Message, context: Context) -> Message:
    """Answer one coordinator message; `context` (run configuration, node state) is the coordinator's, so not read."""
    del context
    home, devices = _home(), int(os.environ.get(DEVICES_VARIABLE, "0"))
    template = os.environ.get(LAUNCHER_VARIABLE, "")
    launcher = Launcher(home, template, devices) if template else None
    site = Site(home, uploader(home), partial(ranks_of, home, devices), elsewhere=launcher, lost=_end)
    reply = site.handle(decode_request(message.content))
    return Message(encode(reply), reply_to=message)
