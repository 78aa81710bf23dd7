"""A published set is read by entries and pictures; whoever reads it knows no file name of its layout."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sfumato_common.errors import ConfigError, VerificationError
from sfumato_common.imaging import pixel_hash
from sfumato_server.pool import pool_packages
from sfumato_server.publish import open_folder, publish


@pytest.fixture
def folder(founded: Any, tmp_path: Path) -> Path:
    consortium = founded.copied(tmp_path / "coordinator")
    (consortium.home / "intake").mkdir(exist_ok=True)
    for site in consortium.plan.sites:
        (consortium.home / "intake" / f"{site}.formal.sfumato").write_bytes(consortium.package(site))
    pool = pool_packages(consortium.home, consortium.plan, consortium.registry)
    return publish(pool, consortium.plan, tmp_path, consortium.authority, {}, None).folder


def test_every_image_is_the_one_that_its_entry_names(folder: Path) -> None:
    published = open_folder(folder)
    found = list(published.images())
    assert [image.entry for image in found] == list(published.entries()) and len(found) == 18
    assert all(pixel_hash(image.pixels) == image.entry.pixel_sha256 for image in found)
    assert all(image.pixels.shape == (16, 16) and image.pixels.dtype == np.uint8 for image in found)
    assert all((folder / image.file).is_file() for image in found)
    assert published.plan.study == published.manifest.study


def test_what_is_no_set_is_said(folder: Path, tmp_path: Path) -> None:
    published = open_folder(folder)
    (folder / published.image(next(published.entries())).file).unlink()
    with pytest.raises(VerificationError, match="missing"):
        next(published.images())
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match="not a published data set"):
        open_folder(tmp_path / "empty")
