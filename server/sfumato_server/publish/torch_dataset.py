"""A published set as a `torch.utils.data.Dataset`: what torchvision's and MONAI's transforms and loaders take."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from sfumato_common.errors import ConfigError
from sfumato_server.publish.reading import open_folder
from sfumato_server.publish.tables import SPLITS, Split, split_of


class PublishedDataset(Dataset[tuple[Any, int]]):
    """The images of a published set with their labels; nothing is verified (`verify_dataset` does that).

    An item is (image, label): float32 [C, S, S] in [0, 1], or what `transform` makes of it, and the label's place in
    `classes`, which are the plan's labels in its order. `split` is `train`, `test`, or None for all. `targets` has
    every label. Files are read when they are asked for; in memory is one path an image.

    Raises ConfigError when the folder holds no published set or the split is none, VerificationError when it is
    malformed.
    """

    def __init__(
        self, folder: str | Path, split: Split | None = None, transform: Callable[[torch.Tensor], Any] | None = None
    ) -> None:
        if split not in (None, *SPLITS):
            raise ConfigError(f"there is no split '{split}': choose one of {', '.join(SPLITS)}, or none for all images")
        self._published = open_folder(Path(folder))
        self.classes = list(self._published.plan.labels)
        self.transform = transform
        places = {label: place for place, label in enumerate(self.classes)}
        self.files: list[str] = []
        self.targets: list[int] = []
        for entry in self._published.entries():
            if split is None or split_of(entry) == split:
                self.files.append(entry.file)
                self.targets.append(places[entry.label])
        self._largest = float(2**self._published.plan.image.bits - 1)

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, at: int) -> tuple[Any, int]:
        pixels = self._published.pixels(self.files[at]).astype(np.float32) / self._largest
        # [S, S] or [S, S, 3] -> [C, S, S]
        image = torch.from_numpy(np.ascontiguousarray(np.moveaxis(np.atleast_3d(pixels), -1, 0)))
        return (self.transform(image) if self.transform else image), self.targets[at]
