"""What a plan's public numbers tell: poor plans are told so, with figures that follow from arithmetic."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from sfumato_common.exchanges import EXCHANGES
from sfumato_common.strict import parse, read_document
from sfumato_common.study.plan import Plan
from sfumato_common.types import ArraySpec
from sfumato_server.coordinator.foresight import foresee

DEMO = read_document(Path(__file__).parents[2] / "configs" / "demo.yaml").value


def demo(noise: float = 1.0, patients: int = 800, **changes: Any) -> Plan:
    stages = [{**stage, "noise_multiplier": noise} for stage in DEMO["stages"]]
    sites = {name: {"nominal_patients": patients} for name in DEMO["sites"]}
    release = [item for item in DEMO["release"] if item.get("method") != "dp-glow"]
    return parse(
        {**DEMO, "budget": None, "stages": stages, "sites": sites, "release": release, **changes}, Plan, "demo"
    )


def told(plan: Plan, about: str) -> list[tuple[str, str]]:
    return [(one.state, one.said) for one in foresee(plan) if one.about == about]


def test_a_plan_with_enough_patients_is_good() -> None:
    assert {one.state for one in foresee(demo())} == {"good"}
    assert {one.about for one in foresee(demo())} == {"signal", "bytes", "time", "memory"}


def test_too_few_patients_for_the_noise_are_told() -> None:
    """Three sites of n patients, two labels, 16 x 16 features: a label's sum is 1.5 n at most, beside sqrt(768)."""
    enough = math.ceil(math.sqrt(3 * 256) / 1.5)
    assert told(demo(patients=enough), "signal")[0][0] == "good"
    state, said = told(demo(patients=enough - 1), "signal")[0]
    assert state == "poor"
    assert "'spectral'" in said and "more patients or a larger epsilon" in said
    assert told(demo(patients=2 * (enough - 1), noise=2.0), "signal")[0][0] == "poor"


def test_steps_whose_noise_is_more_than_their_patients_are_told() -> None:
    """72 patients of 800 a step at rate 0.09."""
    assert [state for state, _ in told(demo(noise=71.0), "signal")][1:] == ["good", "good"]
    assert [state for state, _ in told(demo(noise=73.0), "signal")][1:] == ["poor", "poor"]


@pytest.mark.parametrize(
    ("images", "patients", "words"),
    [
        (81, 800, "80 groups at most"),
        (80, 800, ""),
        (10, 800, ""),
        (6, 800, "gives 6 images at 'alder'"),
        (7, 69, "6 groups"),
    ],
)
def test_groups_that_give_too_little_are_told(images: int, patients: int, words: str) -> None:
    item = {"method": "k-salsa", "images": images, "k": 10}
    found = told(demo(patients=patients, release=[{"model": "spectral", "images": 5}, item]), "release")
    assert len(found) == (3 if words else 0)
    assert not words or words in found[0][1]


def test_bytes_and_exchanges_are_those_of_all_rounds() -> None:
    """What a site sends in all: updates as bfloat16, and everything else of this plan in four bytes a number."""
    plan = demo()
    sent = [
        math.prod(spec.shape) * (2 if spec.dtype == "bfloat16" else 4)
        for stage in plan.stages
        for spec in _returned(plan, stage.kind) * stage.rounds
    ]
    assert f"takes {sum(sent) / 1e6:.1f} MB from it" in told(plan, "bytes")[0][1]
    assert "8 exchanges of training: 16 s at least" in told(plan, "time")[0][1]
    less = parse({**_alone(DEMO), "release": [{"model": "spectral", "images": 5}]}, Plan, "less")
    assert "1 exchange of training" in told(less, "time")[0][1]
    assert not told(less, "memory")


def _returned(plan: Plan, kind: str) -> list[ArraySpec]:
    return list(EXCHANGES[kind].returned(plan).values())


def _alone(demo: dict[str, Any]) -> dict[str, Any]:
    return {**demo, "budget": None, "stages": [{**demo["stages"][0], "noise_multiplier": 1.0}]}


def test_a_plan_without_privacy_has_no_noise_to_tell_of() -> None:
    stages = [stage for stage in DEMO["stages"] if stage["kind"] != "choice"]
    assert not told(
        demo(
            private=False,
            stages=[{**stage, "noise_multiplier": 0.001} for stage in stages],
            release=[{"model": "gan", "images": 5}],
            utility=None,
        ),
        "signal",
    )
