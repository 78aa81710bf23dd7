"""What a caller of the intake may learn from a failure: a gRPC status and a short code, never a text."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from typing import Any

import grpc

from sfumato_common.errors import NoRoomError, SfumatoError

log = logging.getLogger(__name__)


class RefusedError(Exception):
    """A call ends with this status and short code."""

    def __init__(self, status: grpc.StatusCode, code: str) -> None:
        super().__init__(code)
        self.status, self.code = status, code


def guard_method(call: Callable[[Any, Any, Any], Any]) -> Callable[[Any, Any, Any], Any]:
    """Wrap a service method (gRPC would send an exception's text): every failure leaves as status and short code."""

    @functools.wraps(call)
    def inner(service: Any, request: Any, context: Any) -> Any:
        try:
            return call(service, request, context)
        except RefusedError as refused:
            status, code = refused.status, refused.code
            log.warning("%s refused: %s", call.__name__, code)
        except NoRoomError as error:
            # ours, not the package's: the site tries again
            status, code = grpc.StatusCode.RESOURCE_EXHAUSTED, error.wire_code
            log.error("%s failed: %s", call.__name__, error)
        except SfumatoError as error:
            status, code = grpc.StatusCode.INVALID_ARGUMENT, error.wire_code
            log.warning("%s refused: %s", call.__name__, error)
        except Exception as error:
            if not context.is_active():
                # the caller went away in the middle: nobody is left to answer
                raise
            status, code = grpc.StatusCode.INTERNAL, SfumatoError.wire_code
            log.error("%s failed (%s)", call.__name__, type(error).__name__, exc_info=error)
        return context.abort(status, code)

    return inner
