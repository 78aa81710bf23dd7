"""Text that is burned into pixels: found on the whole picture, before it is reduced to a study's form.

The detector gives places; the reader says what stands there, which is how anatomy is told from letters. A picture has
text where the reader is sure of three letters or digits that are no marker: sides, projections and positions stand on
almost every film and say nothing of who it is. What was read is dropped: no report, note or error has it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from sfumato_client.ingest.records import TextPolicy
from sfumato_client.ingest.text_networks import LONGEST, Box, Bytes, networks
from sfumato_common.dicom.elements import Note
from sfumato_common.dicom.unreadable import UnreadableError
from sfumato_common.types import AnyArray

REASON = "text is burned into the pixels"
SMALLEST_SIDE = 32  # of a picture that is looked at: smaller ones hold four letters at most
# longer sides at which the detector looks for what is painted over: it misses other lines at each
_SCALES = (LONGEST, 512, 1024)
_ROWS = 256
_FEWEST = 3  # letters and digits of a picture, in places of two and more, beside its markers
_MOST_PLACES = 200  # that are read, at some 15 ms each
# how sure of them the reader has to be; more of a place as tall as a tenth of the picture, which mostly is anatomy
_SURE, _SURE_OF_LARGE, _LARGE = 0.5, 0.9, 0.1
_LONGEST_MARKER = 12
_MARGIN, _RING = 4, 6  # painted around a place: a fourth of its height; pixels around that give the value
_MARKERS = (
    "L R LT RT LEFT RIGHT AP PA LAT LATERAL LL RL OBL OBLIQUE AXIAL CC MLO LCC RCC LMLO RMLO ML LM XCCL OD OS"
    " SUPINE PRONE ERECT UPRIGHT SEMI SEMIUPRIGHT SEMIERECT SITTING STANDING DECUB DECUBITUS"
    " PORTABLE PORT MOBILE BEDSIDE INSP EXP WB STRESS"
)
_MARKER = re.compile(f"({'|'.join(sorted(_MARKERS.split(), key=len, reverse=True))})+")


def cleared(display: AnyArray, policy: TextPolicy, note: Note) -> AnyArray:
    """Display values 0..1, [H, W] or [H, W, 3], without burned-in text; painted over where `policy` says so.

    Raises UnreadableError for an image that has text, or has some left after painting.
    """
    if policy == "allow" or max(display.shape[:2]) < SMALLEST_SIDE or not has_text(display):
        return display
    if policy == "reject":
        raise UnreadableError(f"{REASON}; write 'text: mask' in the source to have it painted over")
    painted = painted_over(display)
    if has_text(painted, _SCALES):
        raise UnreadableError(f"{REASON}, and some of it is left after painting over")
    note(f"{REASON}: painted over")
    return painted


def has_text(display: AnyArray, scales: Sequence[int] = (LONGEST,)) -> bool:
    """Whether text that is no marker stands in display values 0..1, [H, W] or [H, W, 3].

    `scales` are the longer sides at which the detector looks.
    """
    picture = _bytes(display)
    return any(_is_text(picture, networks().find(picture, scale)) for scale in scales)


def painted_over(display: AnyArray) -> AnyArray:
    """`display` where all that may be text, markers too, has the value that is around it."""
    picture = _bytes(display)
    out = np.array(display)
    for place in [place for scale in _SCALES for place in networks().find(picture, scale)]:
        if place.shortest <= _tallest(picture):
            inside = _with_its_ends(place, picture.shape)
            ring = inside.grown(_RING, _RING, picture.shape)
            around = np.ones(picture.shape[:2], bool)[ring.rows, ring.columns]
            top, left = inside.top - ring.top, inside.left - ring.left
            around[top : top + inside.bottom - inside.top, left : left + inside.right - inside.left] = False
            values = out[ring.rows, ring.columns][around]
            out[inside.rows, inside.columns] = np.median(values, axis=0) if len(values) else 0.0
    return out


def _with_its_ends(place: Box, shape: tuple[int, ...]) -> Box:
    """Grown along the line, too: its first and last letters may be lost in what is as bright."""
    across, along = place.shortest // _MARGIN + 1, 3 * place.shortest // 2
    upright = place.bottom - place.top > place.right - place.left
    return place.grown(along, across, shape) if upright else place.grown(across, along, shape)


def _is_text(picture: Bytes, places: Sequence[Box]) -> bool:
    if len(places) > _MOST_PLACES:  # no look could be had at all of them
        return True
    letters = 0
    for place in sorted(places, key=lambda box: box.left - box.right):
        letters += _letters_of_text(picture[place.rows, place.columns], _tallest(picture))
        if letters >= _FEWEST:
            return True
    return False


def _bytes(display: AnyArray) -> Bytes:
    """Some rows at a time: a large film's copies would take more than one file may."""
    picture = np.empty(display.shape, np.uint8)
    for first in range(0, len(display), _ROWS):
        part = np.clip(display[first : first + _ROWS], 0.0, 1.0)
        picture[first : first + _ROWS] = np.rint(part * np.float32(255))
    return picture


def _tallest(picture: Bytes) -> float:
    return _LARGE * float(max(picture.shape[:2]))


def _letters_of_text(part: Bytes, tallest: float) -> int:
    """How many letters and digits of text are read in a place; 0 for a marker, for one sign alone, and for anatomy."""
    said, sure = networks().read(part)
    count = len(_letters(said))
    if count < 2 or sure < (_SURE if min(part.shape[:2]) <= tallest else _SURE_OF_LARGE) or _is_marker(said):
        return 0
    return 0 if count <= _LONGEST_MARKER and _is_turned_marker(part) else count


def _letters(said: str) -> str:
    return "".join(sign for sign in said.upper() if sign.isalnum())


def _is_marker(said: str) -> bool:
    """Whether all of it is words of markers, also those that run into each other: LAP is L and AP."""
    return _MARKER.fullmatch(_letters(said)) is not None


def _is_turned_marker(part: Bytes) -> bool:
    """Lead letters lie on a film as they fell: mirrored or upside down."""
    for turned in (part[:, ::-1], part[::-1, ::-1], part[::-1]):
        said, sure = networks().read(turned)
        if sure >= _SURE and _is_marker(said):
            return True
    return False
