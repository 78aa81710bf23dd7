"""The colour photograph of a retina: reflectance of each layer, then the camera's light, field and noise.

Light passes the vessels and lesions and comes back from pigment and choroid: layers multiply reflectance, except the
disc, exudates and soft spots, which are white or yellow themselves.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFilter

from sfumato_common.phantom.cameras import Camera
from sfumato_common.phantom.canvas import Canvas, Field, fluff, step
from sfumato_common.phantom.retina import Eye, Gaze, Lesion, Retina
from sfumato_common.phantom.vessel_tree import Vessel

REACH = 1.75  # the eye is drawn this far from the fovea, so that no camera and no gaze sees its edge
_RED_FREE = np.array([0.50, 1.00, 0.85], dtype=np.float32)  # how strongly blood darkens red, green and blue
_TINT = {"exudate": (1.05, 0.80, 0.32), "wool": (1.00, 0.74, 0.42)}
Colour = npt.NDArray[np.float32]


def eye_canvas(density: float) -> Canvas:
    """Square grid of an eye with `density` pixels a half field."""
    half = int(np.ceil(REACH * density))
    axis = ((np.arange(2 * half) - half + 0.5) / density).astype(np.float32)
    return Canvas(axis[None, :], axis[:, None])


def background(retina: Retina, eye: Eye, rng: np.random.Generator, canvas: Canvas) -> Colour:
    """Reflectance [H, W, 3] of pigment, choroid, macula, disc and vessels: what no visit changes."""
    base = np.array([0.96, 0.225, 0.062], dtype=np.float32)
    base = base * np.exp(np.float32(0.13 * retina.pigment) * np.array([0.6, -1.0, -1.3], dtype=np.float32))
    base = base * np.exp(np.float32(0.07 * retina.redness) * np.array([0.3, -1.0, 0.6], dtype=np.float32))
    mottle = 0.022 * fluff(rng, canvas, 9) + 0.016 * fluff(rng, canvas, 34) + 0.012 * fluff(rng, canvas, 110)
    choroid = _choroid(rng, canvas) * np.float32(retina.tessellation)
    depth = mottle[..., None] * np.array([0.7, 1.6, 1.6], dtype=np.float32)
    depth += choroid[..., None] * np.array([0.30, 0.55, 0.60], dtype=np.float32)
    far = np.hypot(canvas.x, canvas.y)
    macula = np.exp(-((far / 0.20) ** 2)) + 0.55 * np.exp(-((far / 0.07) ** 2))
    depth += np.float32(0.36 * eye.macula) * macula[..., None] * np.array([0.75, 1.0, 0.9], dtype=np.float32)
    shown: Colour = base * np.exp(-depth)
    shown += np.float32(0.10) * np.exp(-((far / 0.012) ** 2))[..., None]  # the foveal reflex
    _paint_disc(shown, eye, canvas)
    blood, reflex = draw_vessels(eye.vessels, canvas)
    shown *= np.exp(-blood[..., None] * _RED_FREE)
    shown += reflex[..., None] * np.array([0.05, 0.03, 0.01], dtype=np.float32)
    return shown


def _choroid(rng: np.random.Generator, canvas: Canvas) -> Field:
    """Dark net between choroidal vessels [H, W] about 0: ridges of smooth noise, weaker at the macula."""
    ridges = np.abs(fluff(rng, canvas, 26)) - np.float32(0.5)
    return np.asarray(-0.28 * np.clip(ridges, -0.5, 0.7) * step(np.hypot(canvas.x, canvas.y) / 0.9), dtype=np.float32)


def _paint_disc(shown: Colour, eye: Eye, canvas: Canvas) -> None:
    """Rim, cup and a pale ring around, painted over; the rim is rosier on the nasal side."""
    x, y = canvas.x - np.float32(eye.disc[0]), canvas.y - np.float32(eye.disc[1])
    c, s = np.float32(np.cos(eye.disc_tilt)), np.float32(np.sin(eye.disc_tilt))
    across, down = (c * x + s * y) / eye.disc_radius, (c * y - s * x) / (eye.disc_radius * eye.disc_tall)
    far = np.hypot(across, down)
    halo = np.float32(0.16) * np.exp(-(np.clip(far - 1.0, 0.0, None) ** 2) / 0.06)
    shown *= 1.0 + halo[..., None] * np.array([0.4, 0.8, 0.7], dtype=np.float32)
    rosy = step(0.5 - 0.6 * across)[..., None]
    rim = np.array([1.04, 0.62, 0.22], dtype=np.float32) + rosy * np.array([-0.02, -0.13, -0.06], dtype=np.float32)
    bright = np.float32(1.03) - np.float32(0.06) * far[..., None]
    _blend(shown, rim * bright, 0.92 * step((1.06 - far) / 0.14))
    inner = np.hypot(across - eye.cup_shift, down * 0.95) / eye.cup
    _blend(shown, np.array([1.10, 0.90, 0.50], dtype=np.float32), 0.85 * step((1.25 - inner) / 0.6))


def _blend(shown: Colour, colour: npt.NDArray[np.float32], share: Field) -> None:
    shown += share[..., None] * (colour - shown)


def draw_vessels(vessels: Iterable[Vessel], canvas: Canvas) -> tuple[Field, Field]:
    """Optical depth of blood [H, W] and the light reflex on wide arteries [H, W], the widest vessels drawn last."""
    height, width = canvas.shape
    unit = float(canvas.x[0, 1] - canvas.x[0, 0])
    finer = 2 if width <= 1200 else 1
    pictures = [Image.new("L", (width * finer, height * finer)) for _ in range(3)]
    pens = [ImageDraw.Draw(picture) for picture in pictures]
    parts = sorted(
        (calibre, vessel.vein, start, end)
        for vessel in vessels
        for calibre, start, end in zip(vessel.calibres, vessel.points, vessel.points[1:], strict=False)
    )
    for calibre, vein, *ends in parts:
        line = [(v / unit + (n - 1) / 2) * finer for p in ends for v, n in zip(p, (width, height), strict=True)]
        wide = calibre / unit * finer
        shade = min(1.0, wide) * min(255.0, 110.0 + 5200.0 * calibre)
        _stroke(pens[int(vein)], line, wide, round(shade))
        if not vein and wide > 4.0:
            _stroke(pens[2], line, 0.3 * wide, 255)
    arteries, veins, reflex = (
        np.asarray(
            picture.filter(ImageFilter.GaussianBlur(finer * max(0.3, 0.0022 / unit))).resize((width, height), _BOX),
            dtype=np.float32,
        )
        / np.float32(255.0)
        for picture in pictures
    )
    return np.maximum(np.float32(0.85) * veins, np.float32(0.58) * arteries), reflex


_BOX = Image.Resampling.BOX


def _stroke(pen: ImageDraw.ImageDraw, line: list[float], wide: float, shade: int) -> None:
    """A straight piece with round ends, so that pieces join without a gap."""
    pen.line(line, fill=shade, width=max(1, round(wide)))
    if wide > 3.0:
        half = wide / 2.0 - 0.5
        pen.ellipse((line[2] - half, line[3] - half, line[2] + half, line[3] + half), fill=shade)


def add_lesions(still: Colour, lesions: tuple[Lesion, ...], amount: float, canvas: Canvas) -> Colour:
    """`still` with lesions; `amount` (about 1) is how strong they are at this visit."""
    shown = still.copy()
    order = ("wool", "exudate", "aneurysm", "bleeding")
    for lesion in sorted(lesions, key=lambda one: order.index(one.kind)):
        reach = 2.2 * lesion.radius
        left, right = np.searchsorted(canvas.x[0], (lesion.x - reach, lesion.x + reach))
        top, bottom = np.searchsorted(canvas.y[:, 0], (lesion.y - reach, lesion.y + reach))
        # a lesion smaller than a pixel is that pixel, fainter
        left, top, right, bottom = left - 1, top - 1, right + 1, bottom + 1
        x, y = canvas.x[:, left:right] - np.float32(lesion.x), canvas.y[top:bottom] - np.float32(lesion.y)
        unit = float(canvas.x[0, 1] - canvas.x[0, 0])
        c, s = np.cos(lesion.angle), np.sin(lesion.angle)
        long, short = max(lesion.radius, 0.6 * unit), max(lesion.radius * lesion.ratio, 0.6 * unit)
        fainter = lesion.radius**2 * lesion.ratio / (long * short)
        far = np.hypot((c * x + s * y) / long, (c * y - s * x) / short)
        far = far * (1.0 + 0.18 * np.sin(3.0 * np.arctan2(y, x) + 9.0 * lesion.angle))
        soft = 1.4 if lesion.kind == "wool" else 0.5
        share = (fainter * lesion.strength * step((1.0 + soft / 2 - far) / soft)).astype(np.float32)
        window = shown[top:bottom, left:right]
        if lesion.kind in _TINT:
            strength = 0.62 if lesion.kind == "wool" else 0.85
            _blend(window, np.array(_TINT[lesion.kind], dtype=np.float32), np.float32(strength * amount) * share)
        else:
            window *= np.exp(-np.float32(0.95 * amount) * share[..., None] * _RED_FREE)
    return shown


def photograph(eye: Eye, shown: Colour, gaze: Gaze, retina: Retina, camera: Camera, rng: np.random.Generator) -> Colour:
    """Reflectance [H, W, 3] of the eye -> the camera's picture, float32 [rows, columns, 3] in 0..1."""
    rows, columns = camera.rows, camera.columns
    density = camera.density
    mirror = -1.0 if eye.laterality == "R" else 1.0
    c, s = np.cos(gaze.rotation) / gaze.zoom, np.sin(gaze.rotation) / gaze.zoom
    half = shown.shape[0] / 2.0
    middle = half + density * (gaze.shift_x - camera.centre), half + density * gaze.shift_y
    # output pixel -> eye pixel; mirrored, rotated and zoomed about the middle of the frame
    a, b = mirror * c, s
    d, e = -mirror * s, c
    matrix = (a, b, middle[0] - a * columns / 2 - b * rows / 2, d, e, middle[1] - d * columns / 2 - e * rows / 2)
    planes = []
    for channel in range(3):
        plane = Image.fromarray(np.ascontiguousarray(shown[..., channel]))
        moved = plane.transform((columns, rows), Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR)
        planes.append(np.asarray(moved, dtype=np.float32))
    x = ((np.arange(columns) - (columns - 1) / 2) * (2.0 / rows)).astype(np.float32)[None, :]
    y = ((np.arange(rows) - (rows - 1) / 2) * (2.0 / rows)).astype(np.float32)[:, None]
    picture = np.stack(planes, axis=-1)
    far = np.hypot(x, y) / np.float32(camera.field)
    light = 1.0 - np.float32(camera.falloff) * far**2 + np.float32(gaze.light_x) * x + np.float32(gaze.light_y) * y
    picture *= np.float32(0.98 * gaze.gain) * np.maximum(light, 0.05)[..., None]
    picture += np.float32(retina.haze) * np.array([0.5, 0.5, 0.4], dtype=np.float32) * far[..., None]
    picture *= np.array(camera.colour, dtype=np.float32)
    picture = np.float32(1.0) - np.exp(-np.float32(1.80) * picture)  # a sensor saturates softly
    picture *= np.float32(1.04)
    if gaze.blur * density > 0.2:
        picture = _defocus(picture, gaze.blur * density)
    picture += np.float32(camera.noise) * rng.standard_normal(picture.shape, dtype=np.float32)
    inside = step((1.0 - far) * np.float32(camera.field * rows / 3.0))
    if camera.notch:
        inside *= 1.0 - ((np.abs(x - 0.74 * camera.field) < 0.05) & (np.abs(y + 0.66 * camera.field) < 0.07))
    shown_out: Colour = np.clip(picture * inside[..., None], 0.0, 1.0).astype(np.float32)
    return shown_out


def _defocus(picture: Colour, radius: float) -> Colour:
    planes = [Image.fromarray(np.ascontiguousarray(picture[..., c])) for c in range(3)]
    blurred = [np.asarray(_box_blur(plane, radius), dtype=np.float32) for plane in planes]
    return np.stack(blurred, axis=-1)


def _box_blur(plane: Image.Image, radius: float) -> Image.Image:
    return plane.resize(
        (max(1, round(plane.width / (1.0 + radius))), max(1, round(plane.height / (1.0 + radius)))), _BOX
    ).resize(plane.size, Image.Resampling.BICUBIC)
