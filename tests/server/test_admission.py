"""What a site's package must be to enter: of the plan's depth, and of any one model where the plan says 'best'."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from sfumato_client.ledger.certificate import certificate
from sfumato_common.errors import VerificationError
from sfumato_common.imaging import encode_png
from sfumato_common.study.plan import Plan
from sfumato_server.intake.admission import admit, largest_package


def test_a_package_of_another_depth_is_refused(consortium: Any) -> None:
    site = next(iter(consortium.plan.sites))
    record = consortium.registry.record_in_force(site)
    admit(consortium.package(site), consortium.plan, record)
    rng = np.random.default_rng(0)
    deep = [
        dataclasses.replace(image, png=encode_png(rng.integers(0, 1 << 16, (16, 16)).astype(np.uint16)))
        for image in consortium.images(1)
    ]
    with pytest.raises(VerificationError, match="depth"):
        admit(consortium.package(site, images=deep), consortium.plan, record)


def test_sixteen_bits_may_take_twice_the_bytes(consortium: Any) -> None:
    plan = consortium.plan
    deep = plan.model_copy(update={"image": plan.image.model_copy(update={"bits": 16})})
    images = sum(item.images for item in plan.release)
    assert largest_package(deep) - largest_package(plan) >= images * plan.image.size**2


def test_best_enters_as_any_one_model_of_the_plan(consortium: Any) -> None:
    values = consortium.plan.model_dump(mode="json")
    dp = {"rounds": 1, "local_steps": 1, "sampling_rate": 0.1, "clipping_norm": 1.0, "learning_rate": 0.001}
    values["stages"] = [
        values["stages"][0],
        {"kind": "gan", "noise_multiplier": 1.0, **dp},
        {"kind": "choice", "noise_multiplier": 1.0},
    ]
    values["release"] = [{"model": "best", "images": 6}]
    plan = Plan.model_validate(values)
    site = next(iter(plan.sites))
    record = consortium.registry.record_in_force(site)

    stated = certificate(plan, [], [], "secure")

    def package(*models: str) -> bytes:
        images = [
            dataclasses.replace(image, facts=image.facts.model_copy(update={"model": model}))
            for image, model in zip(consortium.images(1), models * (6 // len(models)), strict=True)
        ]
        return consortium.package(site, images=images, plan_hash=plan.digest, certificate=stated)

    for model in ("spectral", "gan"):
        assert {image.facts.model for image in admit(package(model), plan, record).images()} == {model}
    for models in (("flow",), ("best",), ("spectral", "gan")):
        with pytest.raises(VerificationError, match="release"):
            admit(package(*models), plan, record)
