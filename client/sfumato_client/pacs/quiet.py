"""Libraries that speak to a PACS quote what they read in logs and warnings; here they keep silent."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

_LOGGERS = ("pynetdicom", "pydicom", "dicomweb_client", "urllib3", "requests", "retrying")


@contextmanager
def quiet() -> Iterator[None]:
    """Let nothing of what these libraries say, which may hold a patient's values or a URL's, reach a screen or log."""
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    before = [logger.propagate for logger in loggers]
    nothing = logging.NullHandler()
    for logger in loggers:
        logger.propagate = False
        logger.addHandler(nothing)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, propagated in zip(loggers, before, strict=True):
            logger.propagate = propagated
            logger.removeHandler(nothing)
