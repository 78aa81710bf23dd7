"""The contract of a latent space: how images become codes, and codes images, for every method that averages or walks.

A space belongs to a released model (`GENERATORS[kind].latent`) and is made of released arrays and public constants
alone. Codes are points of a vector space: means, straight lines, L2 norms and added noise are taken in their
coordinates as they are. A space in which those mean nothing has to choose other coordinates: a mean of its own would
not be affine in the codes, and what leaving one patient out does to an image would no longer be bounded (`plain`).

What methods promise of patients rests on what every space promises here (`tests/contracts/test_latent_spaces.py`):

- A row of `encode` and `decode` depends on its own image, code, component and noise, and on no other row. Nothing is
  fitted to, or normalised over, a batch. k-averages under differential privacy (`dp_k_average.py`) rest on it.
- Both are deterministic. What is random in an image is its noise, which is drawn apart (`draw`, `draw_noise`), without
  a look at any record: who is left out of a group then changes the code and nothing else (`influence.py`).
- `centre` and `draw` are of the released model and public seeds: no record is read by them.
- `plain` is what an image is drawn back to where it hangs on one patient: an affine map of the average of its members'
  images, or of their mean code where that is one, whatever a coordinator sent. Leaving a member out then moves it no
  further than an average moves, and every image has a share of the method's work that its patients allow.
- `encoding` learns from draws of the space, never from records, the same for every site that uses the same seed.
- Images are finite and in [-1, 1], whatever finite code is decoded; gradients flow from them into codes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, Self

import torch
from torch import Tensor

from sfumato_common.mechanisms.draws import Draws


class Noise(Protocol):
    """What N images have beside their codes: drawn, public, and the same whoever is behind a code."""

    def __len__(self) -> int:
        """N."""

    def at(self, rows: Tensor) -> Self:
        """The noise of the images `rows`."""

    def joined(self, others: Sequence[Self]) -> Self:
        """This noise, and then that of `others`."""


class Encoding(Protocol):
    """The way from images to codes that a method uses; a row depends on its own image and component alone."""

    def __call__(self, images: Tensor, components: Tensor) -> Tensor:
        """Codes [N, D] of images [N, C, S, S] in [-1, 1] of components [N]."""

    def stages(self, images: Tensor, components: Tensor) -> dict[str, Tensor]:
        """Codes after each step of the way, by the step's name; those of the last are not bounded."""


class LatentSpace(Protocol):
    """Codes [N, D] of images [N, C, S, S] in [-1, 1]; components [N] say of what class and site a code is one."""

    @property
    def dimension(self) -> int:
        """D, the numbers of a code."""

    @property
    def layers(self) -> int:
        """How many codes an image may be decoded from (W+ of a style-based generator); 1 where it is always one."""
        return 1

    @property
    def device(self) -> torch.device:
        """Where codes, components and images are computed."""

    def to(self, device: torch.device) -> Self:
        """The same space on `device`."""

    @property
    def image_bytes(self) -> int:
        """Bytes that an image of a code takes with everything kept for a gradient."""

    def encode(self, images: Tensor, components: Tensor) -> Tensor:
        """Codes [N, D] of images [N, C, S, S], in closed form or by one pass of a network."""

    def encoding(self, shares: Tensor, seed: int, encoder_steps: int, refinement_steps: int) -> Encoding:
        """The best way from images to codes: `encode` itself, unless the space has more to try.

        An encoder may learn `encoder_steps` from draws of components of `shares` [G], from a public `seed`; a code may
        be moved by `refinement_steps` to its image.
        """
        del shares, seed, encoder_steps, refinement_steps
        return Direct(self)

    def decode(self, codes: Tensor, components: Tensor, noise: Any = None) -> Tensor:
        """Images [N, C, S, S] in [-1, 1] of codes [N, D] or [N, `layers`, D], differentiable in them.

        Without noise an image is without what noise would give it.
        """

    def plain(self, average: Tensor, codes: Tensor, components: Tensor, noise: Any = None) -> Tensor:
        """Plain images [N, C, S, S] of mean codes [N, D], and averages [N, C, S, S], of the same images: see above."""

    def draw(self, components: Tensor, draws: Draws) -> tuple[Tensor, Noise]:
        """A code [N, D] and noise for each component, as the released model has them: the prior."""

    def draw_noise(self, components: Tensor, draws: Draws) -> Any:
        """Noise to give to `decode` again and again, so that only the code changes an image."""
        return self.draw(components, draws)[1]

    def centre(self, components: Tensor) -> Tensor:
        """The prior's mean code [N, D] of each component, the same on every machine."""


@dataclass(frozen=True, eq=False)
class Direct:
    """The encoding of a space that needs nothing but its own `encode`."""

    space: LatentSpace

    def __call__(self, images: Tensor, components: Tensor) -> Tensor:
        """See `Encoding`."""
        with torch.no_grad():
            return self.space.encode(images, components)

    def stages(self, images: Tensor, components: Tensor) -> dict[str, Tensor]:
        """See `Encoding`."""
        return {"encoded": self(images, components)}
