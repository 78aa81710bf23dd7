"""Tables of a published set: a row an image, its provenance, the epsilon that covers it, and which split it is of."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

from sfumato_common.package.manifest import ImageFacts, ManifestImage
from sfumato_common.study.certificate import Certificate
from sfumato_common.study.words import GuaranteeLevel, has_epsilon, way_of
from sfumato_server.publish.guarantee import with_training
from sfumato_server.publish.manifest import LABELS, SPLIT_TABLES

Split = Literal["train", "test"]
SPLITS: tuple[Split, ...] = get_args(Split)
COLUMNS = ("file", "label", "site", "model", "method", "guarantee", "split", "epsilon", "delta", "unit")
NO_GUARANTEE = "none"
_TEST_SHARE = 10  # one of so many drawn images is of the test split


class Placed(NamedTuple):
    """A published image of a shard: its file in the set, what it is said to be, and its split."""

    file: str
    entry: ManifestImage
    split: Split


@dataclass(frozen=True)
class Cover:
    """What one patient pays at most for all that left under the plan: the worst site's figure, under add/remove.

    Where models were given, what the study cost that trained them is added: formal images are drawn from those models.
    """

    epsilon: float
    delta: float
    unit: str


def cover_of(certificates: Iterable[Certificate]) -> Cover | None:
    """What covers an image of the set. Sites trained its model together, so it is the worst of all sites' figures.

    None where one site's certificate has no guarantee: then no image has one.
    """
    stated = list(certificates)
    paid = [with_training(own) for own in stated if own.formal]
    if not stated or len(paid) < len(stated) or any(math.isinf(epsilon) for epsilon, _, _ in paid):
        return None
    return Cover(max(epsilon for epsilon, _, _ in paid), max(delta for _, _, delta in paid), stated[0].unit)


def split_of(image: ImageFacts) -> Split:
    """Which split an image is of, by its method and its random name alone: nothing of a patient decides it.

    `test` is one in ten of what was drawn from a released model. Images that are made from patients' codes, of one
    patient or of a group, may share patients with others of their site: all of them are `train`, so that no source
    group is in both. The hash has no key, and whoever has the set computes it again.
    """
    if way_of(image.method) != "dp-sampling":
        return "train"
    number = int.from_bytes(hashlib.sha256(b"sfumato split\0" + image.name.encode("ascii")).digest()[:8], "big")
    return "test" if number % _TEST_SHARE == 0 else "train"


def level_of(guarantee: GuaranteeLevel, cover: Cover | None) -> str:
    """The guarantee level that is left of an image's own: a formal one is none where no epsilon holds for the set."""
    return NO_GUARANTEE if cover is None and has_epsilon(guarantee) else guarantee


def provenance(site: str, image: ImageFacts, split: Split, cover: Cover | None) -> tuple[str, ...]:
    """An image's row without its file, in the order of COLUMNS; the level is the one that its site signed.

    Figures are empty where no epsilon covers its pixels, also beside a formal level: then a site's noise was a test's.
    """
    covered = cover if cover is not None and has_epsilon(image.guarantee) else None
    figures = (f"{covered.epsilon:.4f}", f"{covered.delta:g}", covered.unit) if covered else ("", "", "")
    return image.label, site, image.model, image.method, image.guarantee, split, *figures


def table_headers() -> dict[str, bytes]:
    """The first line of each table: labels.csv has every image, and one table a split has what is of it.

    The latter call the file `file_name`, by which imagefolder readers find files.
    """
    found = ",".join(("file_name", *COLUMNS[1:]))
    lines = {LABELS: ",".join(COLUMNS), **{SPLIT_TABLES[split]: found for split in SPLITS}}
    return {name: f"{line}\n".encode("ascii") for name, line in lines.items()}


def table_rows(site: str, images: Iterable[Placed], cover: Cover | None) -> dict[str, bytes]:
    """The rows of some images of a site in each table, each image twice: as one of all, and as one of its split.

    The level with a comma in it is the only field that is quoted (RFC 4180).
    """
    lines: dict[str, list[str]] = {name: [] for name in table_headers()}
    every, by_split = lines[LABELS], {split: lines[name] for split, name in SPLIT_TABLES.items()}
    ends: dict[tuple[str, ...], str] = {}  # a row but for its file is that of many images
    for file, image, split in images:
        said = image.label, image.model, image.method, image.guarantee, split
        end = ends.get(said)
        if end is None:
            values = provenance(site, image, split, cover)
            end = ends[said] = "".join(f',"{value}"' if "," in value else f",{value}" for value in values) + "\n"
        line = file + end
        every.append(line)
        by_split[split].append(line)
    return {name: "".join(found).encode("ascii") for name, found in lines.items()}
