"""What the programs log: text, or one JSON object a line with `--log json` (`SFUMATO_LOG`), which is for machines.

A JSON line says when, how serious, which logger, and what our own code or Flower's node and link say, who never see a
patient's record. Whatever other libraries say (a reader of images may quote a header) is left out, and of an exception
everything but its class and the places in code that it passed: its text may hold a path or a name.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
import traceback
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

VARIABLE = "SFUMATO_LOG"
Form = Literal["text", "json"]
_TEXT = "%(asctime)s %(levelname)s %(name)s %(message)s"
_OURS, _FLOWER = ("sfumato_common", "sfumato_client", "sfumato_server"), ("flwr", "uvicorn")


class JsonLines(logging.Formatter):
    """One JSON object a line; `trusted` are the loggers whose messages are taken over."""

    def __init__(self, trusted: tuple[str, ...] = _OURS) -> None:
        super().__init__()
        self._trusted = trusted

    def format(self, record: logging.LogRecord) -> str:
        """The line: `time` (UTC), `level`, `logger`, `process`, and where there are some `message`, fields and `error`.

        Fields are what our code gives beside a message, as `extra={"fields": ...}`: words of plans, numbers, codes.
        """
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "process": record.process,
        }
        if record.name.partition(".")[0] in self._trusted:
            line["message"] = record.getMessage().strip()
            line |= getattr(record, "fields", {})
        if record.exc_info and record.exc_info[1] is not None:
            line["error"] = _error(record.exc_info[1])
        return json.dumps(line)


def _error(error: BaseException) -> dict[str, object]:
    passed = traceback.extract_tb(error.__traceback__)
    return {"class": type(error).__name__, "at": [f"{Path(frame.filename).name}:{frame.lineno}" for frame in passed]}


def log_form() -> Form:
    """What was asked for, by `--log` of this command or of the one that started it."""
    return "json" if os.environ.get(VARIABLE) == "json" else "text"


def choose_log(form: Form | None) -> None:
    """Let this process, and those that it starts, log as asked; None leaves what was said before."""
    if form is not None:
        os.environ[VARIABLE] = form
    if log_form() == "json":
        start_log()


def start_log(*, flower: bool = False) -> None:
    """Log to standard error from INFO on. With `flower` the process is a node or a link, whose messages are kept."""
    handler = logging.StreamHandler()
    handler.setLevel(logging.INFO)
    trusted = (*_OURS, *(_FLOWER if flower else ()))
    handler.setFormatter(JsonLines(trusted) if log_form() == "json" else logging.Formatter(_TEXT))
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    logging.getLogger("httpx").setLevel(logging.WARNING)  # it tells every poll
    if log_form() == "json":
        logging.captureWarnings(True)
        sys.excepthook = _log_exception
        threading.excepthook = lambda ended: _log_exception(ended.exc_type, ended.exc_value, None)


def take_over_flower(uvicorn: Any = None, *, messages: bool = True) -> None:
    """Have what Flower and its server, `uvicorn`, say come out of `start_log`'s handler, as JSON, alone.

    Without `messages` it says when and how serious alone: where work on patients' records runs.
    """
    if log_form() != "json":
        return
    from flwr.supercore.logger import FLOWER_LOGGER

    FLOWER_LOGGER.handlers.clear()
    FLOWER_LOGGER.propagate = True
    FLOWER_LOGGER.setLevel(logging.INFO)
    if uvicorn is not None:
        uvicorn.Config.configure_logging = lambda self: None
    logging.getLogger("uvicorn.access").setLevel(logging.WARNING)
    start_log(flower=messages)


def _log_exception(kind: type[BaseException], error: BaseException | None, trace: object) -> None:
    del kind, trace
    logging.getLogger(__name__).error("the process ends by an exception", exc_info=error)
