"""A small folder of pictures and its table, which a test changes between ingests."""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sfumato_client.ingest import Answers
from sfumato_client.ingest import pool as pools
from sfumato_client.ingest.sources import AnySource, PngSource


class Ward:
    """A folder of pictures whose table changes; counts the files that a reader was asked for."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self.rows, self.asked = folder, dict[str, tuple[str, ...]](), list[str]()
        self.columns = ("patient_id", "label")
        folder.mkdir()
        original = pools._Reader.ask

        def ask(reader, job):
            self.asked.append(job.row["file"])
            return original(reader, job)

        monkeypatch.setattr(pools._Reader, "ask", ask)

    def put(self, name: str, patient: str, label: str = "normal", picture: int | None = None, *more: str) -> None:
        seed = zlib.crc32(name.encode()) if picture is None else picture
        pixels = np.random.default_rng(seed).integers(0, 256, (24, 24)).astype(np.uint8)
        if not (self.folder / name).exists() or picture is not None:
            Image.fromarray(pixels).save(self.folder / name)
        self.rows[name] = (patient, label, *more)

    def source(self, withdrawn: list[str] | Path = [], **answers: object) -> AnySource:  # noqa: B006
        lines = [",".join(("file", *self.columns)), *(",".join((name, *row)) for name, row in self.rows.items())]
        (self.folder / "labels.csv").write_text("\n".join(lines) + "\n")
        self.asked.clear()
        table = self.folder / "labels.csv"
        said = Answers(**answers)  # type: ignore[arg-type]
        return PngSource(kind="png", folder=self.folder, labels=table, withdrawn=withdrawn, answers=said)
