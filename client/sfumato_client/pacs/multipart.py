"""The one part of a WADO-RS answer (multipart/related, RFC 2387, PS3.18 8.7) into a file, in constant memory.

Unlike in dicomweb-client a part that the answer's end cuts off is no part.
"""

from __future__ import annotations

from collections.abc import Iterable
from email.parser import HeaderParser
from typing import BinaryIO

_HEADERS = 16 * 1024


class BrokenAnswerError(Exception):
    """What came is no whole multipart answer. Its text is a sentence."""


def boundary_of(content_type: str) -> bytes:
    """The boundary that a Content-Type names. Raises BrokenAnswerError for another type."""
    message = HeaderParser().parsestr(f"Content-Type: {content_type or 'none/none'}\n\n")
    if message.get_content_type() != "multipart/related":
        kind = "a web page" if message.get_content_type() == "text/html" else "something else"
        raise BrokenAnswerError(f"the PACS answered with {kind} in place of DICOM")
    found = message.get_param("boundary")
    if not isinstance(found, str) or not 0 < len(found) <= 200:
        raise BrokenAnswerError("the PACS's multipart answer names no boundary")
    return found.encode("latin-1", "replace")


def write_part(pieces: Iterable[bytes], boundary: bytes, out: BinaryIO) -> None:
    """Write the content of the one part. Raises BrokenAnswerError where there is none, several, or half of one."""
    delimiter = b"\r\n--" + boundary
    held, inside = bytearray(b"\r\n"), False  # the first delimiter may lack its line break
    after: bytearray | None = None  # the two bytes behind the part's end, which say whether another follows
    for piece in pieces:
        if after is not None:
            after += piece[: 2 - len(after)]
            continue  # an epilogue, which the session bounds
        held += piece
        if not inside:
            start = held.find(delimiter)
            blank = held.find(b"\r\n\r\n", start + len(delimiter)) if start >= 0 else -1
            if blank < 0:
                if len(held) > _HEADERS:
                    raise BrokenAnswerError("the PACS's multipart answer does not begin like one")
                continue
            del held[: blank + 4]
            inside = True
        end = held.find(delimiter)
        if end >= 0:
            out.write(held[:end])
            after = held[end + len(delimiter) :][:2]
        elif len(held) > len(delimiter):
            out.write(held[: -len(delimiter)])
            del held[: -len(delimiter)]
    if after is None:
        raise BrokenAnswerError("the PACS's answer ended in the midst of an object")
    if bytes(after) != b"--":
        raise BrokenAnswerError("the PACS sent several objects where one was asked for, or its answer has no end")
