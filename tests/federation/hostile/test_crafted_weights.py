"""Crafted weights in a request: of another form, beyond all numbers, or where the plan's training cannot lead."""

import dataclasses

import numpy as np
import pytest

D = "discriminator/features.0.weight"
G = "generator/last.weight"
HEAD = "discriminator/head.bias"


def poisoned(value, number):
    value = value.copy()
    value.flat[0] = number
    return value


def without(arrays, name):
    return {key: value for key, value in arrays.items() if key != name}


FORMS = {
    "not a number": lambda a: {**a, D: poisoned(a[D], np.nan)},
    "infinite": lambda a: {**a, D: poisoned(a[D], -np.inf)},
    "1e30": lambda a: {**a, D: poisoned(a[D], 1e30)},
    "-1e30": lambda a: {**a, G: poisoned(a[G], -1e30)},
    "not a number in the spectral model": lambda a: {**a, "spectral/tail": poisoned(a["spectral/tail"], np.nan)},
    "1e30 in the spectral model": lambda a: {**a, "spectral/factor": poisoned(a["spectral/factor"], 1e30)},
    "float64": lambda a: {**a, D: a[D].astype(np.float64)},
    "integers": lambda a: {**a, D: a[D].astype(np.int64)},
    "transposed": lambda a: {**a, D: np.ascontiguousarray(a[D].T)},
    "flat": lambda a: {**a, D: a[D].ravel()},
    "a dimension more": lambda a: {**a, D: a[D][None]},
    "empty": lambda a: {**a, D: a[D][:0]},
    "a scalar": lambda a: {**a, D: np.zeros((), np.float32)},
    "missing": lambda a: without(a, D),
    "one too many": lambda a: {**a, "discriminator/extra": a[D]},
    "renamed": lambda a: {**without(a, D), D + ".": a[D]},
    "the flow's in their place": lambda a: {name: v for name, v in a.items() if not name.startswith("generator/")},
}
FORM_REASONS = ("not those of the accepted plan", "another form than", "no training leads to")


@pytest.mark.parametrize("fault", FORMS)
def test_weights_of_another_form_are_refused(midway, fault):
    request = midway.asked["gan", 2]
    changed = dataclasses.replace(request, arrays=FORMS[fault](request.arrays))
    before = midway.charges()
    reply = midway.ask(changed)
    reason = next((text for text in FORM_REASONS if text in midway.reason(reply)), FORM_REASONS[0])
    midway.refused(reply, "verification-failed", reason)
    assert midway.charges() == before
    assert midway.ask(request).status == "ok", "the honest request is still answered"


def shifted(request, name, amount):
    value = poisoned(request.arrays[name], request.arrays[name].flat[0] + amount)
    return dataclasses.replace(request, arrays={**request.arrays, name: value})


@pytest.mark.parametrize("name", [D, G, HEAD])
@pytest.mark.parametrize("amount", [1e-3, -1e-3, 0.5, 9000.0])
def test_the_first_round_starts_at_the_plans_public_start(fresh, name, amount):
    reason = "not where the plan's training could have led"
    fresh.refuses(shifted(fresh.asked["gan", 1], name, amount), "verification-failed", reason)


@pytest.mark.parametrize("key", [("gan", 2), ("gan", 3)])
@pytest.mark.parametrize(("name", "amount"), [(D, 0.2), (HEAD, -0.2), (G, 0.2)])
def test_later_rounds_stay_within_the_plans_reach(midway, key, name, amount):
    reason = "not where the plan's training could have led"
    midway.refuses(shifted(midway.asked[key], name, amount), "verification-failed", reason)


def test_the_flow_starts_at_its_public_start_too(fresh):
    name = next(name for name in sorted(fresh.asked["flow", 1].arrays) if name.startswith("flow/"))
    reason = "not where the plan's training could have led"
    fresh.refuses(shifted(fresh.asked["flow", 1], name, 1e-3), "verification-failed", reason)


@pytest.mark.parametrize("part", ["shares", "mean", "factor", "signal", "tail"])
@pytest.mark.parametrize("key", [("gan", 2), ("flow", 1)])
def test_the_spectral_model_does_not_change_within_a_study(midway, key, part):
    request = shifted(midway.asked[key], f"spectral/{part}", 1e-6)
    midway.refuses(request, "verification-failed", "another one than in this study's earlier requests")


@pytest.mark.parametrize(
    ("part", "make"),
    [
        ("factor", np.zeros_like),  # cannot be inverted
        ("shares", np.zeros_like),
        ("shares", lambda value: -np.abs(value)),
        ("tail", np.zeros_like),
        ("mean", lambda value: np.full_like(value, 9999.0)),
        ("factor", lambda value: np.full_like(value, 1e-30)),
    ],
)
def test_a_broken_spectral_model_costs_at_most_what_was_reserved(fresh, part, make):
    # the first request fixes the spectral model, so nothing can be held against it: whatever it breaks is paid for
    for key in (("gan", 1), ("flow", 1)):
        request = fresh.asked[key]
        arrays = {**request.arrays, f"spectral/{part}": make(request.arrays[f"spectral/{part}"])}
        reply = fresh.ask(dataclasses.replace(request, arrays=arrays))
        if reply.status != "ok":
            assert reply.code in {"failed", "egress-refused", "verification-failed"}
            assert fresh.reason(reply)
    purposes = [item[:2] for item in fresh.charges()]
    assert len(purposes) == len(set(purposes))
    assert set(purposes) <= {("gan", 1), ("flow", 1)}
