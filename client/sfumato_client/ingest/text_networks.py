"""Networks that find and read text in a picture: PP-OCRv6 small of PaddleOCR, as the package `rapidocr` has them.

Only its files of weights are used (Apache-2.0), by onnxruntime, in one thread: no code of the package runs, and nothing
is fetched.
The detector is a DB network (Liao et al. 2020): a map of probabilities, whose connected parts are lines of text.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from sfumato_common.errors import ConfigError

Bytes = npt.NDArray[np.uint8]

PACKAGE = "rapidocr"
_WEIGHTS = {
    "PP-OCRv6_det_small.onnx": "090f04abcd9d9a7498bc4ebf677e4cb9bdce1fe4197ddb7e529f1ef44e1ff94f",
    "PP-OCRv6_rec_small.onnx": "6f327246b50388f3c176ae304bd95767ea6dc0c9ae92153ef8cbe210b3c14884",
}
# the longer side that the detector sees, its authors' own, and how much small pictures grow; it is trained on lines of
# some ten pixels, and finds fewer in pictures of 1280 than of 736
LONGEST, _ENLARGED = 736, 2.0
_STEP = 32  # sides that the detector takes are multiples of it
_LIKELY, _MEAN, _THINNEST = 0.3, 0.5, 3  # of a pixel, of a part on average; pixels across
_UNCLIP = 1.6  # a part is a shrunken line: its area over its circumference, so often, is what it lost
_READ_HEIGHT, _READ_WIDEST = 48, 1600
_NOTHING = 0  # the class of CTC that stands for no character


@dataclass(frozen=True)
class Box:
    """A part of a picture, in its pixels: rows `top` to `bottom`, columns `left` to `right`, ends not included."""

    top: int
    bottom: int
    left: int
    right: int

    @property
    def rows(self) -> slice:
        """Its rows."""
        return slice(self.top, self.bottom)

    @property
    def columns(self) -> slice:
        """Its columns."""
        return slice(self.left, self.right)

    @property
    def shortest(self) -> int:
        """Its shorter side."""
        return min(self.bottom - self.top, self.right - self.left)

    def grown(self, rows: int, columns: int, shape: tuple[int, ...]) -> Box:
        """The box with so many rows and columns more on each side, within a picture of `shape`."""
        top, left = max(0, self.top - rows), max(0, self.left - columns)
        return Box(top, min(shape[0], self.bottom + rows), left, min(shape[1], self.right + columns))


def require_networks() -> None:
    """Raises ConfigError unless onnxruntime and the very weights that were measured are installed."""
    if importlib.util.find_spec("onnxruntime") is None or importlib.util.find_spec(PACKAGE) is None:
        raise ConfigError(
            "the source looks for text that is burned into pixels, and what finds it is not installed: "
            "pip install onnxruntime rapidocr==3.10.0; or write 'text: allow' to take images without a look"
        )
    for name in _WEIGHTS:
        _weights(name)


@lru_cache(maxsize=1)
def networks() -> Networks:
    """The networks of this process. Raises ConfigError as `require_networks` does."""
    require_networks()
    return Networks()


def _weights(name: str) -> bytes:
    found = importlib.util.find_spec(PACKAGE)
    assert found is not None and found.submodule_search_locations
    path = Path(found.submodule_search_locations[0]) / "models" / name
    data = path.read_bytes() if path.is_file() else b""
    if hashlib.sha256(data).hexdigest() != _WEIGHTS[name]:
        raise ConfigError(
            f"the installed {PACKAGE} has another '{name}' than was measured: pip install --force-reinstall "
            f"{PACKAGE}==3.10.0; or write 'text: allow' in the source to take images without a look for text"
        )
    return data


class Networks:
    """Both networks, loaded once a process."""

    def __init__(self) -> None:
        # its library tells its makers of every session, over the network, unless this is said before it is loaded
        os.environ["ORT_DISABLE_TELEMETRY"] = "1"
        import onnxruntime

        onnxruntime.disable_telemetry_events()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        self._find, self._read = (
            onnxruntime.InferenceSession(_weights(name), options, providers=["CPUExecutionProvider"])
            for name in _WEIGHTS
        )
        characters = self._read.get_modelmeta().custom_metadata_map["character"].split("\n")
        self._characters = ["", *characters, " "]

    def warm(self) -> None:
        """Take the memory of a look, which is kept from then on: asking the system for it anew is a fifth of a look."""
        self.find(np.zeros((LONGEST, LONGEST, 3), np.uint8))

    def find(self, picture: Bytes, longest: int = LONGEST) -> list[Box]:
        """Where lines of text may be in `picture`, uint8 [H, W] or [H, W, 3], looked at with such a longer side."""
        from scipy import ndimage  # a third of what a reader that does not look would load

        height, width = picture.shape[:2]
        scale = min(longest / max(height, width), _ENLARGED)
        inner = max(1, round(width * scale)), max(1, round(height * scale))
        small = Image.fromarray(picture).resize(inner, Image.Resampling.BILINEAR, reducing_gap=3.0)
        likely = self._likely(np.asarray(small.convert("RGB")))
        parts, _ = ndimage.label(likely > _LIKELY, np.ones((3, 3), int))
        found = list[Box]()
        for number, place in enumerate(ndimage.find_objects(parts), 1):
            inside = parts[place] == number
            sides = inside.shape
            if min(sides) < _THINNEST or likely[place][inside].mean() < _MEAN:
                continue
            lost = float(inside.sum()) * _UNCLIP / (2 * sum(sides))
            rows, columns = place
            edges = [rows.start - lost, rows.stop + lost, columns.start - lost, columns.stop + lost]
            top, bottom, left, right = (int(np.rint(edge / scale)) for edge in edges)
            found.append(Box(top, bottom, left, right).grown(0, 0, picture.shape))
        return found

    def read(self, part: Bytes) -> tuple[str, float]:
        """What stands in `part`, uint8 [h, w] or [h, w, 3], and how sure that is, 0 to 1; upright parts both ways."""
        if part.shape[0] > 1.5 * part.shape[1]:
            return max((self._line(np.rot90(part, turns)) for turns in (1, 3)), key=lambda found: found[1])
        return self._line(part)

    def _line(self, part: Bytes) -> tuple[str, float]:
        width = round(part.shape[1] * _READ_HEIGHT / part.shape[0])
        size = min(max(width, 16), _READ_WIDEST), _READ_HEIGHT
        line = Image.fromarray(np.ascontiguousarray(part)).convert("RGB").resize(size, Image.Resampling.BILINEAR)
        said = self._read.run(None, {"x": _tensor(np.asarray(line))})[0][0]
        best, sure = said.argmax(axis=1), said.max(axis=1)
        new = (best != _NOTHING) & (best != np.concatenate([[_NOTHING], best[:-1]]))
        text = "".join(self._characters[one] for one in best[new])
        return text, float(sure[new].mean()) if new.any() else 0.0

    def _likely(self, small: Bytes) -> npt.NDArray[np.float32]:
        """How likely each pixel of `small` [h, w, 3] belongs to text."""
        height, width = small.shape[:2]
        padded = np.zeros((-(-height // _STEP) * _STEP, -(-width // _STEP) * _STEP, 3), np.uint8)
        padded[:height, :width] = small
        found: Any = self._find.run(None, {"x": _tensor(padded)})[0]
        likely: npt.NDArray[np.float32] = found[0, 0, :height, :width]
        return likely


def _tensor(picture: Bytes) -> npt.NDArray[np.float32]:
    """uint8 [h, w, 3] -> float32 [1, 3, h, w] in -1..1."""
    values = picture.astype(np.float32) / np.float32(127.5) - np.float32(1.0)
    return np.ascontiguousarray(values.transpose(2, 0, 1)[None])
