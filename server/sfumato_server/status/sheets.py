"""Contact sheets of training: after every round a small grid of the current model's images, with fixed latents.

Latents and components come from the plan alone, so that what differs between two sheets is the model. All of it is
post-processing of what the sites released. The figures beside a sheet need no real image: the spread of the images
about their component's mean, the share of clamped pixels, and how far the mean image is from the spectral model's.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from sfumato_common.files import write_atomic, write_json
from sfumato_common.generators import GENERATORS
from sfumato_common.generators.components import component_count, component_names
from sfumato_common.generators.sampling import sample_images
from sfumato_common.mechanisms.draws import TorchDraws
from sfumato_common.pictures import COLUMNS, GAP_GREY, data_uri, grid, png
from sfumato_common.study.plan import Plan
from sfumato_common.types import AnyArray, Arrays, ByteImages

log = logging.getLogger(__name__)
FOLDER, INDEX = "sheets", "index.json"
MOST_ROWS = 12
# pixels drawn a round: what keeps a sheet under half a second on one core with the shipped models
_MOST_PIXELS = 2**20
_REFERENCE_COLUMNS = 32
# how much a change is enlarged, to be seen
CHANGE_GAIN = 4


@dataclass(frozen=True)
class RoundSheet:
    """One sheet: its file, what its rows show, and figures in grey levels (0 to 255) or shares.

    `spread`, `clamped` and `distance` are explained above; `usual_spread` and `usual_clamped` are the spectral model's.
    `remark` is empty while all is as usual. `change` is the file of what changed since the round before, '' for the
    first; `moved` is the root mean square of that, in grey levels.
    """

    stage: str
    round: int
    file: str
    rows: list[str]
    spread: float
    clamped: float
    distance: float
    usual_spread: float
    usual_clamped: float
    remark: str
    change: str = ""
    moved: float | None = None


class RoundSheets:
    """Draws into `home/sheets` and keeps the list of what it drew; a drawing that fails is logged, never raised."""

    def __init__(self, home: Path, plan: Plan) -> None:
        self._folder, self._plan = home / FOLDER, plan
        self.sheets = read_sheets(home, plan.study_digest)
        self._usual: tuple[AnyArray, float, float] | None = None

    def draw(self, stage: str, number: int, released: Arrays) -> RoundSheet | None:
        """Draw the model of `stage` after round `number`; None for a stage without a model, or when it failed."""
        if stage not in GENERATORS:
            return None
        try:
            # models are built before weights are loaded: torch's own generator must not notice
            with torch.random.fork_rng(devices=[]):
                sheet = self._draw(stage, number, released)
        except Exception:
            log.exception("no contact sheet of stage '%s', round %d; the study goes on", stage, number)
            return None
        return sheet

    def _draw(self, stage: str, number: int, released: Arrays) -> RoundSheet:
        shown = components_shown(self._plan)
        columns = _columns(self._plan, len(shown))
        drawn = draw_components(self._plan, stage, released, shown, columns)
        images = _grey_levels(drawn)
        if self._usual is None:
            self._usual = self._spectral_figures(released, shown)
        mean, usual_spread, usual_clamped = self._usual
        spread, clamped = _spread(images, columns), _clamp_level(images)
        own_mean = images.reshape(len(shown), columns, *images.shape[1:]).mean(axis=1)
        distance = float(np.sqrt(np.square(own_mean - mean).mean()))
        sound = all(bool(np.isfinite(value).all()) for value in released.values())
        file, picture = f"{stage}-{number:04d}.png", grid(drawn, columns)
        change, moved = self._change(stage, number, picture, grid(np.zeros_like(drawn), columns) == 0)
        sheet = RoundSheet(
            stage,
            number,
            file,
            component_names(self._plan, shown),
            round(spread, 2),
            round(clamped, 4),
            round(distance, 2),
            round(usual_spread, 2),
            round(usual_clamped, 4),
            _remark(sound, spread, clamped, distance, usual_spread, usual_clamped),
            change,
            moved,
        )
        write_atomic(self._folder / file, png(picture))
        self.sheets = [other for other in self.sheets if other.file != file] + [sheet]
        write_json(
            self._folder / INDEX,
            {"plan_hash": self._plan.study_digest, "sheets": [asdict(item) for item in self.sheets]},
        )
        return sheet

    def _change(self, stage: str, number: int, picture: ByteImages, inside: AnyArray) -> tuple[str, float | None]:
        """Draw what changed since the sheet of the round before, grey where nothing did; its file, and how much.

        Only the pixels `inside` the tiles are counted. Both are drawn from released models: it costs no epsilon.
        """
        before = self._folder / f"{stage}-{number - 1:04d}.png"
        if number == 1 or not before.exists():
            return "", None
        with Image.open(before, formats=["PNG"]) as opened:
            earlier = np.asarray(opened)
        if earlier.shape != picture.shape:  # of another plan
            return "", None
        moved = picture.astype(np.int16) - earlier
        file = f"{stage}-{number:04d}-change.png"
        shown = np.clip(GAP_GREY + CHANGE_GAIN * moved, 0, 255).astype(np.uint8)
        write_atomic(self._folder / file, png(shown))
        return file, round(float(np.sqrt(np.square(moved[inside], dtype=np.float64).mean())), 2)

    def _spectral_figures(self, released: Arrays, shown: Sequence[int]) -> tuple[AnyArray, float, float]:
        """Mean image of each component shown, spread and clamped share of the spectral model, from many draws."""
        columns = min(_REFERENCE_COLUMNS, 4 * _columns(self._plan, len(shown)))
        images = _grey_levels(draw_components(self._plan, self._plan.base, released, shown, columns))
        mean = images.reshape(len(shown), columns, *images.shape[1:]).mean(axis=1)
        return mean, _spread(images, columns), _clamp_level(images)


def read_sheets(home: Path, plan_hash: str) -> list[RoundSheet]:
    """The sheets that were drawn under `home` for this plan, in order; none when there are none or they misread."""
    try:
        value = json.loads((home / FOLDER / INDEX).read_text())
        return [RoundSheet(**item) for item in value["sheets"]] if value["plan_hash"] == plan_hash else []
    except (OSError, ValueError, TypeError, KeyError):
        return []


def training_pictures(home: Path, plan_hash: str, most: int = 4) -> list[dict[str, Any]]:
    """For the report: at most `most` sheets a stage, the first and the last among them, each with a data URI."""
    by_stage: dict[str, list[RoundSheet]] = {}
    for sheet in read_sheets(home, plan_hash):
        by_stage.setdefault(sheet.stage, []).append(sheet)
    return [
        {**asdict(sheet), "uri": _uri(home / FOLDER / sheet.file)}
        for sheets in by_stage.values()
        for sheet in _evenly(sheets, most)
        if (home / FOLDER / sheet.file).is_file()
    ]


def components_shown(plan: Plan) -> list[int]:
    """Components in the sheet's rows: all, or the first MOST_ROWS."""
    return list(range(min(component_count(plan), MOST_ROWS)))


def draw_components(plan: Plan, stage: str, arrays: Arrays, shown: Sequence[int], columns: int) -> AnyArray:
    """`columns` images of each component [R * columns, S, S(, 3)]; the latents come from the plan's hash."""
    draws = TorchDraws(torch.Generator().manual_seed(int(plan.study_digest[:15], 16)))
    components: npt.NDArray[np.int64] = np.repeat(np.asarray(shown, dtype=np.int64), columns)
    return sample_images(plan, stage, arrays, components, draws)


def _remark(
    sound: bool, spread: float, clamped: float, distance: float, usual_spread: float, usual_clamped: float
) -> str:
    """Signposts for the eye, round numbers that stop nothing: a model may well do right and be named here."""
    if not sound:
        return "the weights are not finite"
    if clamped > usual_clamped + 0.25:
        return "more than a quarter of the pixels more than usual are clamped: training may be diverging"
    if spread < 0.5 * usual_spread:
        return "the images vary less than half as much as the spectral model's: it may be collapsing"
    if spread > 2.0 * usual_spread:
        return "the images vary more than twice as much as the spectral model's: training may be diverging"
    if distance > usual_spread:
        return "the mean image is further from the spectral model's than its images are: look at the sheet"
    return ""


def _columns(plan: Plan, rows: int) -> int:
    return int(np.clip(_MOST_PIXELS // (rows * plan.image.size**2), 2, COLUMNS))


def _grey_levels(images: AnyArray) -> npt.NDArray[np.float64]:
    top = np.iinfo(images.dtype).max
    return np.asarray(images.astype(np.float64) * (255.0 / top))


def _spread(images: npt.NDArray[np.float64], columns: int) -> float:
    by_row = images.reshape(-1, columns, *images.shape[1:])
    return float(np.sqrt(by_row.var(axis=1, ddof=1).mean()))


def _clamp_level(images: npt.NDArray[np.float64]) -> float:
    return float(((images <= 0.0) | (images >= 255.0)).mean())


def _evenly(sheets: Sequence[RoundSheet], most: int) -> Iterator[RoundSheet]:
    for at in sorted({round(x) for x in np.linspace(0, len(sheets) - 1, min(most, len(sheets)))}):
        yield sheets[at]


def _uri(path: Path) -> str:
    with Image.open(path, formats=["PNG"]) as picture:
        return data_uri(np.asarray(picture))
