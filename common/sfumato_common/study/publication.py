"""What a consortium agrees to say of the set that it publishes: title, licence, use. All of it is public."""

from __future__ import annotations

from typing import Annotated

from packaging.licenses import InvalidLicenseExpression, canonicalize_license_expression
from pydantic import AfterValidator, Field

from sfumato_common.strict import Strict


def _check_line(text: str) -> str:
    """One printable line: it goes into cards of several forms, and none of them may be broken by it."""
    if not text.isprintable() or text != text.strip():
        raise ValueError("write one line of printable text, without blanks around it")
    return text


def _check_licence(name: str) -> str:
    """An expression of the SPDX licence list (ISO/IEC 5962), in its canonical spelling."""
    try:
        canonical = canonicalize_license_expression(name)
    except InvalidLicenseExpression:
        raise ValueError(
            f"'{name}' is no SPDX licence: write an identifier of the SPDX licence list, such as 'CC-BY-4.0' or "
            "'CC0-1.0', or 'LicenseRef-NAME' for terms of your own"
        ) from None
    if canonical != name:
        raise ValueError(f"the licence's SPDX identifier is spelt '{canonical}'; write it like that")
    return name


Line = Annotated[str, Field(min_length=1, max_length=300), AfterValidator(_check_line)]
Paragraph = Annotated[str, Field(min_length=1, max_length=2000), AfterValidator(_check_line)]
Licence = Annotated[str, Field(min_length=1, max_length=64), AfterValidator(_check_licence)]


class PublicationTerms(Strict):
    """What the cards of the published set say in the consortium's name; what is not there, they call not stated.

    `doi` is one that a repository has reserved for the set (ISO 26324).
    """

    title: Line | None = None
    """What the set is called."""
    licence: Licence | None = None
    """An SPDX identifier, or LicenseRef-NAME for terms of your own."""
    intended_use: Paragraph | None = None
    """What the set is meant for."""
    contact: Line | None = None
    """Whom to ask."""
    doi: Annotated[str, Field(pattern=r"^10\.[0-9]{4,9}/[A-Za-z0-9._()/:;-]{1,100}$")] | None = None
    """A DOI that a repository has reserved."""

    @property
    def listed_licence(self) -> bool:
        """Whether there is a licence whose text is in the SPDX list, and not one of the consortium's own."""
        return self.licence is not None and "LicenseRef-" not in self.licence
