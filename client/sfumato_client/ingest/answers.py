"""What a hospital answers to questions about its own data, in `source.yaml`; nothing is decided without it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from sfumato_common.strict import Strict


class Answers(Strict):
    """Answers by question; a question without one stops the ingest. `merge`: they are one patient.

    There is no answer that drops an image which stands under two patients: what one patient contributes would then
    depend on whether another is there, and the guarantee of one patient would not hold.
    """

    alike_ids: Literal["merge", "separate"] | None = None
    """Identifiers that differ in case, blanks, zeros or signs that are not seen."""
    prefixed_ids: Literal["merge", "separate"] | None = None
    """A number beside the same number with letters before it, P001 beside 1."""
    same_person: Literal["merge", "separate"] | None = None
    """Different identifiers with one name and birth date, one Study Instance UID, or in one another's Patient IDs."""
    placeholder_ids: Literal["drop", "allow"] | None = None
    """Identifiers such as ANONYMOUS, 0 or 1.23457E+11, which many people may share."""
    image_of_two_patients: Literal["merge", "separate"] | None = None
    """One image (file, SOP Instance UID or pixels) under several identifiers."""
    image_of_two_labels: Literal["drop", "first"] | None = None
    """One image of one patient under several labels."""
    gone: Literal["remove", "keep"] | None = None
    """At an update: images of the store whose row is gone, or whose file cannot be read any more."""
    most_dropped: Annotated[float, Field(ge=0.0, le=1.0)] = 0.5
    """The largest share of rows that may be dropped without a word from a person."""
