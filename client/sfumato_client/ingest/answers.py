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

    # identifiers that differ in case, blanks, zeros or signs that are not seen
    alike_ids: Literal["merge", "separate"] | None = None
    # a number beside the same number with letters before it, P001 beside 1
    prefixed_ids: Literal["merge", "separate"] | None = None
    # different identifiers with one name and birth date or Study Instance UID, or in each other's Other Patient IDs
    same_person: Literal["merge", "separate"] | None = None
    # identifiers such as ANONYMOUS, 0 or 1.23457E+11, which many people may share
    placeholder_ids: Literal["drop", "allow"] | None = None
    # one image (file, SOP Instance UID or pixels) under several identifiers
    image_of_two_patients: Literal["merge", "separate"] | None = None
    # one image of one patient under several labels
    image_of_two_labels: Literal["drop", "first"] | None = None
    # at an update: images of the store whose row is gone, or whose file cannot be read any more
    gone: Literal["remove", "keep"] | None = None
    # the largest share of rows that may be dropped without a word from a person
    most_dropped: Annotated[float, Field(ge=0.0, le=1.0)] = 0.5
