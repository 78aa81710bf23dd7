"""How many images an item of a release asks for: a public number, whatever the method."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from sfumato_common.encoders.settings import MayNameEncoders
from sfumato_common.study.words import GuaranteeLevel

ImageCount = Annotated[int, Field(ge=1, le=100_000)]


class Counted(MayNameEncoders):
    """How many images: `images` at every site but those that `images_at` gives a number of their own."""

    images: ImageCount
    """Images that every site releases; a public number."""
    images_at: dict[str, ImageCount] = Field(default_factory=dict)
    """Another number for the sites that it names."""

    @property
    def guarantee_level(self) -> GuaranteeLevel:
        """What the method promises of its images, where the models that they come from are private."""
        return "formal"

    def at(self, site: str) -> int:
        """The number of images at `site`."""
        return self.images_at.get(site, self.images)

    @property
    def most(self) -> int:
        """The largest number at any site."""
        return max([self.images, *self.images_at.values()])
