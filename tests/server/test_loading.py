"""A published set loads in one line, offline, with the people's tools; the lines are those of the documentation."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.carded import published_set

import sfumato
from sfumato_common.errors import ConfigError
from sfumato_server.publish import open_folder
from sfumato_server.publish.tables import split_of

ROOT = Path(__file__).resolve().parents[2]
IMAGES = 60


@pytest.fixture(scope="module")
def beside(founded: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which `published` lies."""
    folder = tmp_path_factory.mktemp("loading")
    published_set(founded, folder, IMAGES)
    return folder


def alone(beside: Path, code: str) -> str:
    """What `code` prints in a process of its own that may not reach the hub."""
    own = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(beside / "cache"), "CROISSANT_CACHE": str(beside / "cache")}
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=beside,
        env={**os.environ, **own},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def needs(name: str) -> None:
    pytest.importorskip(name, reason=f"{name} is not installed")


def shown(word: str) -> str:
    """The one example of docs/researcher.md that imports `word`."""
    page = (ROOT / "docs" / "researcher.md").read_text()
    (found,) = [block for block in re.findall(r"```python\n(.*?)```", page, re.S) if f"import {word}\n" in block]
    return found


def test_hugging_face_loads_the_folder_with_labels_and_splits(beside: Path) -> None:
    needs("datasets")
    said = alone(
        beside,
        shown("datasets") + "for name in images: print(name, len(images[name]), images[name].features['label'].names)\n"
        "first = images['train'][0]; print(first['image'].size, first['epsilon'], first['unit'], first['guarantee'])\n"
        "print(sorted(r['image'].tobytes().hex() for s in images.values() for r in s)[0])\n",
    ).splitlines()
    published = open_folder(beside / "published")
    train = sum(split_of(entry) == "train" for entry in published.entries())
    assert said[0] == f"train {train} ['abnormal', 'normal']" and said[1].startswith(f"test {3 * IMAGES - train} ")
    assert said[2] == "(16, 16) 1.6981 patient formal"
    assert said[3] == sorted(image.pixels.tobytes().hex() for image in published.images())[0]


def test_every_label_is_its_own_image_s(beside: Path) -> None:
    needs("datasets")
    code = shown("datasets") + (
        "for s in images.values():\n"
        "    for row in s: print(row['image'].tobytes().hex(), s.features['label'].int2str(row['label']))\n"
    )
    found = dict(line.split() for line in alone(beside, code).splitlines())
    expected = {own.pixels.tobytes().hex(): own.entry.label for own in open_folder(beside / "published").images()}
    assert found == expected


def test_croissant_is_valid_and_its_records_are_loaded(beside: Path) -> None:
    needs("mlcroissant")
    said = alone(
        beside,
        "import mlcroissant\n"
        "found = mlcroissant.Dataset(jsonld='published/croissant.json')\n"
        "issues = found.metadata.issues; print(len(issues.errors), len(issues.warnings))\n"
        "print(found.metadata.data_limitations is not None and found.metadata.data_use_cases is not None)\n"
        "for row in found.records('images'):\n"
        "    print(row['images/file'].decode(), row['images/label'].decode(), row['images/image'].size)\n",
    ).splitlines()
    assert said[:2] == ["0 0", "True"]
    published = open_folder(beside / "published")
    assert sorted(said[2:]) == sorted(f"{own.file} {own.label} (16, 16)" for own in published.entries())


def test_pandas_reads_the_table(beside: Path) -> None:
    needs("pandas")
    code = shown("pandas") + "print(len(rows), rows.epsilon.max(), rows.split.nunique(), *set(rows.unit))\n"
    assert alone(beside, code).split() == [str(3 * IMAGES), "1.6981", "2", "patient"]


def test_torch_has_a_dataset_of_tensors_and_labels(beside: Path) -> None:
    published = open_folder(beside / "published")
    every = sfumato.PublishedDataset(beside / "published")
    parts = [sfumato.PublishedDataset(beside / "published", split=split) for split in ("train", "test")]
    assert len(every) == 3 * IMAGES == sum(map(len, parts)) and every.classes == ["abnormal", "normal"]
    assert not set(parts[0].files) & set(parts[1].files)
    for at, image in enumerate(published.images()):
        pixels, label = every[at]
        assert every.classes[label] == image.entry.label and label == every.targets[at]
        assert pixels.dtype == torch.float32 and pixels.shape == (1, 16, 16)
        assert np.array_equal((pixels[0].numpy() * 255).round().astype(np.uint8), image.pixels)
    with pytest.raises(ConfigError, match="train, test"):
        sfumato.PublishedDataset(beside / "published", split="validation")  # type: ignore[arg-type]


def test_torchvision_s_transforms_fit(beside: Path) -> None:
    try:
        import torchvision.transforms.v2  # noqa: F401
    except (ImportError, RuntimeError):  # it loads operators of its own, built for one build of torch
        pytest.skip("torchvision is not installed, or is of another build than torch")
    code = shown("torchvision.transforms.v2") + "print(len(images), images[0][0].shape, images[0][1])\n"
    train = len(sfumato.PublishedDataset(beside / "published", split="train"))
    assert alone(beside, code).startswith(f"{train} torch.Size([1, 224, 224])")


def test_monai_s_transforms_fit(beside: Path) -> None:
    needs("monai")
    said = alone(beside, shown("monai") + "print(len(images), images[0][0].shape, images[0][1])\n")
    assert "torch.Size([1, 64, 64])" in said


def test_monai_s_table_of_files_reads_the_set(beside: Path) -> None:
    needs("monai")
    code = "import os\nos.chdir('published')\n" + shown("monai.data")
    code += "print(len(images), [int(images[at]['file'].sum()) for at in range(5)], images[0]['label'])\n"
    first = [image for image, _ in zip(open_folder(beside / "published").images(), range(5), strict=False)]
    sums = [int(image.pixels.sum()) for image in first]
    assert f"{3 * IMAGES} {sums} {first[0].entry.label}" in alone(beside, code)
