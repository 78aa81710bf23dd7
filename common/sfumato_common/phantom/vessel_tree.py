"""The vessel tree of an eye: four pairs of artery and vein from the disc, whose temporal arcades go round the macula.

A vessel is grown step by step: its direction turns at its own rate and wavers, side branches leave it and take calibre
with them. Coordinates are those of `retina`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

_STEP = 0.03
_THINNEST = 0.0045
_FAR = 1.75
_AVASCULAR = 0.13  # no vessel enters the fovea
_BRANCH_CHANCE = 0.17


@dataclass(frozen=True)
class Vessel:
    """A path of points (x, y) with the calibre at each, in half fields; `vein` is darker and wider than an artery."""

    vein: bool
    points: tuple[tuple[float, float], ...]
    calibres: tuple[float, ...]


@dataclass(frozen=True)
class _Tip:
    """Where a vessel begins: place, direction (0 temporal, pi / 2 up), turn (radians a half field), calibre, depth."""

    x: float
    y: float
    heading: float
    turn: float
    calibre: float
    vein: bool
    depth: int


def grow_tree(rng: np.random.Generator, disc: tuple[float, float], disc_radius: float) -> tuple[Vessel, ...]:
    """Draw an eye's vessels: trunks of the arcades and the nasal side, small ones from the disc, and all branches."""
    waiting = []
    for vein in (False, True):
        for up in (1.0, -1.0):
            temporal = up * (1.38 + 0.14 * rng.standard_normal())
            nasal = up * (math.pi - 0.85 + 0.15 * rng.standard_normal())
            small = up * rng.uniform(0.25, 0.6)
            turn, outward = -up * (1.62 + 0.16 * rng.standard_normal()), up * (0.30 + 0.25 * rng.standard_normal())
            for heading, bend, calibre in ((temporal, turn, 0.027), (nasal, outward, 0.019), (small, -0.2 * up, 0.008)):
                wide = calibre * (1.15 if vein else 0.85) * math.exp(0.10 * rng.standard_normal())
                x, y = disc[0] + disc_radius * 0.15 * rng.standard_normal(), disc[1] + 0.12 * up * disc_radius
                waiting.append(_Tip(x, y, heading, bend, wide, vein, 0))
    found = []
    while waiting:
        vessel, branches = _grow(rng, waiting.pop())
        found.append(vessel)
        waiting += branches
    return tuple(found)


def _grow(rng: np.random.Generator, tip: _Tip) -> tuple[Vessel, list[_Tip]]:
    """One vessel from its tip to where it thins out, and the tips of its branches."""
    x, y, heading, calibre, turn = tip.x, tip.y, tip.heading, tip.calibre, tip.turn
    points, calibres, branches = [(x, y)], [calibre], []
    waver, side, least = 0.0, 1.0 if rng.random() < 0.5 else -1.0, 0.0
    left = math.inf if tip.depth == 0 else rng.uniform(8.0, 14.0) * (calibre / 0.012) ** 0.6
    while calibre > _THINNEST and left > 0 and math.hypot(x, y) < _FAR:
        waver = 0.75 * waver + 0.085 * float(rng.standard_normal())
        # an arcade bends until it runs to the temporal side, then goes on nearly straight
        if tip.depth == 0 and math.copysign(1.0, turn) * heading > 0.12:
            turn *= 0.6
        heading += turn * _STEP + waver * 0.55
        x, y = x + _STEP * math.cos(heading), y - _STEP * math.sin(heading)
        if math.hypot(x, y) < _AVASCULAR:
            break
        calibre *= 0.991
        least += 1.0
        left -= 1.0
        points.append((x, y))
        calibres.append(calibre)
        if tip.depth < 4 and least > 3 and rng.random() < _BRANCH_CHANCE:
            share = rng.uniform(0.45, 0.78)
            angle = side * rng.uniform(0.45, 0.95)
            branches.append(_Tip(x, y, heading + angle, -0.5 * angle, calibre * share, tip.vein, tip.depth + 1))
            calibre *= 1.0 - 0.10 * share
            heading -= 0.10 * angle
            side, least = -side if rng.random() < 0.8 else side, 0.0
    return Vessel(tip.vein, tuple(points), tuple(calibres)), branches
