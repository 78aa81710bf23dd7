"""What a source may say of its files beside where they are: labels that they hold themselves, slices of volumes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from sfumato_common.strict import Strict

FilePath = Annotated[Path, Field(strict=False)]  # YAML has strings, not paths
Word = Annotated[str, Field(min_length=1, max_length=256)]
# which slices of a volume: the one in the middle, all, or every n-th
Slices = Literal["middle", "all"] | Annotated[int, Field(ge=1, le=10_000)]
Axis = Literal["axial", "coronal", "sagittal"]


class ReportCode(Strict):
    """A concept of structured reports, by code and coding scheme; they lie in `folder`, else beside the images."""

    code: Word
    """The concept's code."""
    scheme: Word
    """Its coding scheme."""
    folder: FilePath | None = None
    """Where the reports lie; left out, beside the images."""


class LabelFrom(Strict):
    """Where a DICOM file's label stands: an element (`0008,103E` or its keyword), or a code of its study's reports."""

    tag: Word | None = None
    """An element of the header: a tag such as `0008,103E`, or a keyword."""
    sr: ReportCode | None = None
    """A concept of the study's structured reports."""

    @model_validator(mode="after")
    def _one(self) -> LabelFrom:
        if (self.tag is None) == (self.sr is None):
            raise ValueError("write either 'tag' or 'sr'")
        return self


class Window(Strict):
    """Values that are shown: `centre` is grey, `centre` -+ `width`/2 are black and white; in a file's own units."""

    centre: Annotated[float, Field(allow_inf_nan=False, strict=False)]
    """The value that is shown as grey."""
    width: Annotated[float, Field(gt=0, allow_inf_nan=False, strict=False)]
    """The width of the values that are shown."""
