"""Text drawn into pictures as devices and archives burn it in: names, dates and numbers that nobody has."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont

_SYLLABLES = [
    "ba",
    "de",
    "ki",
    "lo",
    "mu",
    "na",
    "pe",
    "ri",
    "so",
    "tu",
    "va",
    "we",
    "xo",
    "ya",
    "ze",
    "cha",
    "dro",
    "fle",
    "gri",
    "mor",
    "sten",
    "vik",
    "hal",
    "jun",
    "or",
    "el",
    "an",
]
FONTS = ("plain", "bold", "bitmap", "slanted", "narrow")
TONES = ("light", "dark", "grey", "white box", "black box", "outlined")
PLACES = ("top left", "top right", "bottom left", "bottom right", "top", "bottom", "middle", "upright left")
MARKERS = ("L", "R", "L AP", "R PA", "PA", "AP", "L LAT", "RT", "ERECT", "SUPINE", "PORTABLE", "L MLO", "R CC")


@dataclass(frozen=True)
class Drawn:
    """How a text was drawn: its words line by line, font, tone, place, height in pixels; and where, [H, W]."""

    lines: tuple[str, ...]
    font: str
    tone: str
    place: str
    height: int
    where: np.ndarray


def some_text(rng: np.random.Generator) -> tuple[str, ...]:
    """One to three lines as they stand on films, of random syllables and digits."""
    name = lambda: "".join(rng.choice(_SYLLABLES, int(rng.integers(2, 4)))).capitalize()  # noqa: E731
    digits = lambda count: "".join(map(str, rng.integers(0, 10, count)))  # noqa: E731
    day, month, year = rng.integers(1, 29), rng.integers(1, 13), rng.integers(1920, 2026)
    forms = (
        f"{name()}, {name()}",
        f"{name()} {name()}".upper(),
        f"{name()}^{name()}".upper(),
        f"{name()} [{rng.choice(['M', 'F'])}]".upper(),
        f"{day:02d}.{month:02d}.{year}",
        f"DOB: {month:02d}/{day:02d}/{year}",
        f"{year}-{month:02d}-{day:02d}",
        f"ID {digits(8)}",
        f"Acc# {digits(7)}",
        digits(int(rng.integers(6, 11))),
        f"{name()} Hospital",
    )
    return tuple(forms[at] for at in rng.permutation(len(forms))[: int(rng.integers(1, 4))])


def _glyphs(lines: tuple[str, ...], font: str, height: int) -> Image.Image:
    """The lines as an 8-bit mask; `height` is that of a capital letter, about."""
    if font == "bitmap":
        own = ImageFont.load_default_imagefont()
        size, grow = 11, max(1, round(height / 7))
    else:
        size, grow = max(6, round(height * 1.4)), 1
        own = ImageFont.truetype(font, size) if font.endswith(".ttf") else ImageFont.load_default(size)
    stroke = max(1, height // 12) if font == "bold" else 0
    step = round(size * 1.25) + 2 * stroke
    widths = [own.getbbox(line)[2] + 2 * stroke + 2 for line in lines]
    mask = Image.new("L", (int(max(widths)), step * len(lines)), 0)
    pen = ImageDraw.Draw(mask)
    for number, line in enumerate(lines):
        options = {"stroke_width": stroke} if stroke else {}
        pen.text((stroke, number * step), line, fill=255, font=own, **options)
    if grow > 1:
        mask = mask.resize((mask.width * grow, mask.height * grow), Image.Resampling.NEAREST)
    if font == "slanted":
        wide = mask.width + mask.height // 4
        mask = mask.transform((wide, mask.height), Image.Transform.AFFINE, (1, 0.2, -0.2 * mask.height, 0, 1, 0))
    if font == "narrow":
        mask = mask.resize((round(mask.width * 0.75), mask.height), Image.Resampling.BILINEAR)
    return mask


def draw_text(
    picture: np.ndarray, lines: tuple[str, ...], font: str, tone: str, place: str, height: int
) -> tuple[np.ndarray, Drawn]:
    """`picture` [H, W] or [H, W, 3] of 0..1 with the lines drawn in; smaller where they would not fit."""
    rows, columns = picture.shape[:2]
    mask = _glyphs(lines, font, height)
    if "upright" in place:
        mask = mask.rotate(90, expand=True)
    if mask.width > columns * 0.9 or mask.height > rows * 0.9:
        shrink = min(columns * 0.9 / mask.width, rows * 0.9 / mask.height)
        mask = mask.resize((max(1, int(mask.width * shrink)), max(1, int(mask.height * shrink))))
        height = max(1, int(height * shrink))
    gap = max(2, min(rows, columns) // 100)
    across, down = columns - mask.width - gap, rows - mask.height - gap
    left = gap if "left" in place else across if "right" in place else across // 2
    top = gap if "top" in place else down if "bottom" in place else down // 2
    alpha = np.zeros((rows, columns), np.float32)
    alpha[top : top + mask.height, left : left + mask.width] = np.asarray(mask, np.float32) / 255
    out = picture.astype(np.float32).copy()
    box = (slice(max(0, top - gap), top + mask.height + gap), slice(max(0, left - gap), left + mask.width + gap))
    value = {"light": 1.0, "dark": 0.0, "white box": 0.0, "black box": 1.0, "outlined": 1.0}.get(tone)
    if tone in ("white box", "black box"):
        out[box] = 1.0 if tone == "white box" else 0.0
    if tone == "outlined":
        from scipy.ndimage import maximum_filter

        out[maximum_filter(alpha, max(3, height // 6)) > 0.3] = 0.0
    ground = float(np.mean(out[box]))
    if value is None:
        value = ground + 0.35 if ground < 0.5 else ground - 0.35
    elif tone in ("light", "dark") and abs(value - ground) < 0.3:  # nobody could read it
        value = 1.0 - value
    fade = alpha[..., None] if out.ndim == 3 else alpha
    out = out * (1 - fade) + np.float32(value) * fade
    return out, Drawn(lines, font, tone, place, height, alpha > 0.5)


def random_text(
    picture: np.ndarray,
    rng: np.random.Generator,
    share: tuple[float, float] = (0.008, 0.03),
    fonts: Sequence[str] = FONTS,
) -> tuple[np.ndarray, Drawn]:
    """`picture` with some text of random words, font, tone and place; `share` of the longer side is a capital high."""
    height = max(9, round(max(picture.shape[:2]) * float(rng.uniform(*share))))
    how = [str(rng.choice(kinds)) for kinds in (fonts, TONES, PLACES)]
    return draw_text(picture, some_text(rng), *how, height)


def random_marker(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """`picture` with a side marker, as of lead, on a quarter of them turned or mirrored."""
    height = max(10, round(max(picture.shape[:2]) * float(rng.uniform(0.02, 0.05))))
    word, tone = str(rng.choice(MARKERS)), str(rng.choice(["light", "black box"]))
    place = str(rng.choice(PLACES[:6]))
    turned = rng.random() < 0.25
    base = picture[:, ::-1] if turned else picture
    out, _ = draw_text(np.ascontiguousarray(base), (word,), str(rng.choice(["plain", "bold"])), tone, place, height)
    return np.ascontiguousarray(out[:, ::-1]) if turned else out


def film(seed: int, number: int, side: int) -> np.ndarray:
    """A phantom film of so many pixels, 0..1 [side, side]: enlarged, with the noise of a detector."""
    from sfumato_common.phantom import DEVICES, draw_patient

    names = sorted(DEVICES)
    device = DEVICES[names[number % len(names)]]
    drawn = draw_patient(seed, "film", number + 1, device, ("PA", "LL")[number % 4 == 3]).images[0]
    large = Image.fromarray(drawn.astype(np.float32)).resize((side, side), Image.Resampling.BICUBIC)
    noise = np.random.default_rng([seed, number]).normal(0, 0.01, (side, side)).astype(np.float32)
    return np.clip(np.asarray(large) + noise, 0, 1)
