"""What a site takes for a fitted spectral model: every honest fit, however noisy, and none of the crafted ones."""

from __future__ import annotations

import numpy as np
import pytest
from support.plans import dp_sgd

from sfumato_common.errors import VerificationError
from sfumato_common.generators.components import component_count
from sfumato_common.generators.spectral.fit import fit_release
from sfumato_common.generators.spectral.layout import Layout
from sfumato_common.generators.spectral.limits import (
    LARGEST_EIGENVALUE,
    SMALLEST_EIGENVALUE,
    bound_covariance,
    check_spectral,
)
from sfumato_common.generators.spectral.release import noised_release
from sfumato_common.generators.spectral.structured import Structured
from sfumato_common.strict import parse
from sfumato_common.study.plan import Plan

SITES = ("alder", "birch")


def plan_of(*, radii: str = "fixed", by_site: bool = False, channels: int = 1, bandwidth: int = 4) -> Plan:
    spectral = {"kind": "spectral", "bandwidth": bandwidth, "clip_radius": 1.0, "noise_multiplier": 1.0}
    value = {
        "study": "limits",
        "image": {"size": 16, "channels": channels},
        "labels": ["normal", "opacity"],
        "sites": {site: {"nominal_patients": 40} for site in SITES},
        "privacy": {"epsilon": 50.0, "delta": 1e-5},
        "stages": [{**spectral, "radii": radii, "by_site": by_site}, {"kind": "gan", "width": 8, **dp_sgd()}],
        "release": [{"model": "spectral", "images": 4}],
        "federation": {"quorum": 1},
    }
    return parse(value, Plan, "test")


def fitted(plan: Plan, seed: int, *, patients: int = 60, sites=SITES, kind: str = "noise") -> dict[str, np.ndarray]:
    rng, shape = np.random.default_rng(seed), (patients, *plan.image.shape)
    images = {
        "noise": rng.integers(0, 256, shape),
        "flat": np.broadcast_to(rng.integers(0, 256, (patients, *[1] * (len(shape) - 1))), shape),
        "same": np.full(shape, 255),
        "halves": np.where(rng.random((patients, *[1] * (len(shape) - 1))) < 0.5, 0, 255) + np.zeros(shape, int),
    }[kind].astype(np.uint8)
    labels = rng.integers(0, 2, patients)

    def mechanism(part, sensitivity, multiplier):
        return part + rng.normal(size=part.shape) * sensitivity * multiplier

    layout = Layout.of(plan)
    releases = {site: noised_release(layout, 1.0, images, labels, np.ones(patients), mechanism) for site in sites}
    return {f"spectral/{name}": value for name, value in fit_release(plan, releases).items()}


@pytest.mark.parametrize("kind", ["noise", "flat", "same", "halves"])
@pytest.mark.parametrize(
    "terms",
    [{}, {"radii": "charged"}, {"by_site": True}, {"channels": 3}, {"by_site": True, "radii": "charged"}],
    ids=["fixed", "charged", "by site", "colour", "all"],
)
def test_every_honest_fit_is_taken(kind, terms):
    plan = plan_of(**terms)
    for seed, (patients, sites) in enumerate(((60, SITES), (3, SITES), (60, SITES[:1]))):
        check_spectral(plan, fitted(plan, seed, patients=patients, sites=sites, kind=kind))


def test_a_fit_within_the_bounds_keeps_its_bits_and_one_beyond_is_cut():
    plan = plan_of()
    layout = Layout.of(plan)
    unit = np.sqrt(layout.prior)
    plain = Structured.of_diagonal(layout.prior)
    assert bound_covariance(layout, plain) is plain
    wild = Structured.of_diagonal(layout.prior * np.where(np.arange(16) % 2, 1e9, 1e-9))
    values = np.linalg.eigvalsh(bound_covariance(layout, wild).matrix / np.outer(unit, unit))
    assert values.min() == pytest.approx(SMALLEST_EIGENVALUE)
    assert values.max() == pytest.approx(LARGEST_EIGENVALUE)


def crafted(values: dict[str, np.ndarray], name: str, change) -> dict[str, np.ndarray]:
    array = change(values[f"spectral/{name}"].astype(np.float64).copy())
    return {**values, f"spectral/{name}": np.asarray(array, dtype=np.float32)}


def upper(factor: np.ndarray) -> np.ndarray:
    return np.triu(factor)


def one_direction(scale: float):
    def change(factor: np.ndarray) -> np.ndarray:
        rng = np.random.default_rng(0)
        direction = rng.normal(size=factor.shape[-1])
        direction /= np.linalg.norm(direction)
        factor[1] += (scale - 1.0) * np.outer(direction, direction) * np.linalg.norm(factor[1], 2)
        return factor

    return change


CRAFTED = {
    "singular": ("factor", np.zeros_like),
    "not symmetric": ("factor", upper),
    "negative": ("factor", np.negative),
    "indefinite": ("factor", one_direction(-1.0)),
    "amplifying": ("factor", one_direction(1e3)),
    "shrunk": ("factor", lambda factor: factor * 1e-3),
    "a mean out of reach": ("mean", lambda mean: mean + 9999.0),
    "a mean just out of reach": ("mean", lambda mean: mean * 0 + 4.1 / np.sqrt(mean.shape[1])),
    "a negative tail": ("tail", lambda tail: tail - 5.0),
    "a loud tail": ("tail", lambda tail: tail * 0 + 3.0),
    "a negative share": ("shares", lambda shares: shares - 1.0),
    "no share": ("shares", lambda shares: np.eye(len(shares))[0]),
    "shares beyond one": ("shares", lambda shares: shares * 1.01),
    "a signal that is no projector": ("signal", lambda signal: signal + 2.0 * np.eye(signal.shape[-1])),
    "a signal that is not symmetric": ("signal", lambda signal: signal + np.triu(np.ones_like(signal), 1)),
}


@pytest.mark.parametrize("what", CRAFTED)
def test_what_no_fit_gives_is_refused_by_its_name(what):
    plan, (name, change) = plan_of(), CRAFTED[what]
    values = fitted(plan, 0)
    check_spectral(plan, values)
    with pytest.raises(VerificationError, match=f"'{name}' is not what an honest fit"):
        check_spectral(plan, crafted(values, name, change))


def test_components_of_sites_are_all_looked_at():
    plan = plan_of(by_site=True)
    values = fitted(plan, 0)
    last = component_count(plan) - 1
    factor = values["spectral/factor"].copy()
    factor[last] *= -1.0
    with pytest.raises(VerificationError, match="factor"):
        check_spectral(plan, {**values, "spectral/factor": factor})
