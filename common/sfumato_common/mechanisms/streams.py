"""Where a site's draws beside noise come from: three streams of one occasion, each under a key of its own.

Who is in a batch, who stands in which place and which record of a patient is used must stay secret: the gain from
subsampling and from random places rests on it. What an image or a row is synthesised from is published with it, and
adds up to many thousand known bits. So the two never share a generator: both are ChaCha20 key streams (RFC 8439),
`SecretStream` and `PublishedStream`, under different keys, and all of one says nothing about the other. Networks that
never leave the site train with a third, fast one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sfumato_common.mechanisms.draws import Draws
from sfumato_common.mechanisms.noise import KeyStream, NoiseSource

Indices = npt.NDArray[np.int64]
_STATE_OFFSET, _STATE_WORDS = 24, 624


class SecretStream:
    """Draws that decide about records: exact distributions, and nothing here may be published.

    No `Draws`, so that no sampler or decoder can be given one. torch's `randperm` and `randint` reduce words modulo n
    and are biased; here a word that would favour small results is drawn again.
    """

    def __init__(self, noise: NoiseSource) -> None:
        self._stream = noise.apart("secret")

    def below(self, limits: npt.ArrayLike) -> Indices:
        """Independent integers [N], each from 0 to its limit - 1, all equally likely (rejection sampling)."""
        return _below(self._stream, np.asarray(limits))

    def choice(self, count: int) -> int:
        """One of 0 .. count - 1."""
        return int(self.below([count])[0])

    def permutation(self, count: int) -> Indices:
        """0 .. count - 1 in random order, every order as likely as any other (Fisher and Yates 1938; Durstenfeld)."""
        order = list(range(count))
        last = np.arange(count, 1, -1)
        for place, other in zip((last - 1).tolist(), self.below(last).tolist(), strict=True):
            order[place], order[other] = order[other], order[place]
        return np.array(order, dtype=np.int64)

    def poisson_sample(self, count: int, rate: float) -> Indices:
        """Which of 0 .. count - 1 join, ascending, each on its own with probability `rate` in [0, 1].

        The probability is rounded down to a multiple of 2^-64, so that nobody joins too often; at rate 1 it is one such
        step below.
        """
        if not 0.0 <= rate <= 1.0:
            raise ValueError("a sampling rate is a probability")
        joins = np.uint64(min(int(rate * 2.0**64), 2**64 - 1))
        return np.flatnonzero(self._stream.words(count) < joins)

    def categorical(self, weights: Tensor, count: int) -> Tensor:
        """Indices int64 [count] of `weights` [K], with replacement: for places that no patient takes."""
        return _categorical(self._stream, weights, count)

    def uniform(self, shape: Sequence[int]) -> Tensor:
        """Independent uniforms in [0, 1), multiples of 2^-24, float32: what spreads a record's grey levels."""
        return _uniform(self._stream, shape)

    def uniform64(self, shape: Sequence[int]) -> Tensor:
        """Independent uniforms inside (0, 1), float64: what spreads a record's cells."""
        return torch.from_numpy(self._stream.uniform(shape))

    def normal64(self, shape: Sequence[int]) -> Tensor:
        """Independent N(0, 1), float64: what spreads a record's levels."""
        return torch.from_numpy(self._stream.normal(shape, 1.0))


class PublishedStream(Draws):
    """Draws that a release shows: prior latents, synthesis noise, conditions, labels. Nothing secret comes from here.

    Whoever reads all of it learns what it drew, and neither the secret stream nor the noise.
    """

    def __init__(self, noise: NoiseSource) -> None:
        self._stream = noise.apart("published")

    def normal(self, shape: Sequence[int]) -> Tensor:
        """Independent N(0, 1), float32."""
        return torch.from_numpy(self._stream.normal(shape, 1.0)).float()

    def categorical(self, weights: Tensor, count: int) -> Tensor:
        """Indices int64 [count] of `weights` [K], with replacement."""
        return _categorical(self._stream, weights, count)

    def integers(self, below: int, count: int) -> Tensor:
        """Independent integers int64 [count] from 0 to `below` - 1."""
        return torch.from_numpy(_below(self._stream, np.full(count, below)))

    def uniform64(self, count: int) -> npt.NDArray[np.float64]:
        """Independent uniforms [count] inside (0, 1), float64."""
        return self._stream.uniform((count,))


def working_generator(noise: NoiseSource) -> torch.Generator:
    """A torch.Generator for networks that a site trains for itself, and for the fakes that it trains against.

    Neither secret nor published, but fast. Its whole Mersenne Twister state comes from a key of its own: `manual_seed`
    keeps 32 bits, few enough to try them all.
    """
    generator = torch.Generator().manual_seed(0)
    state = generator.get_state().numpy().copy()
    words = noise.apart("working").words(_STATE_WORDS) >> np.uint64(32)
    state[_STATE_OFFSET : _STATE_OFFSET + 8 * _STATE_WORDS] = words.astype("<u8").view(np.uint8)
    generator.set_state(torch.from_numpy(state))
    return generator


@dataclass(frozen=True, eq=False)
class Streams:
    """All that a method draws beside its mechanism's noise."""

    secret: SecretStream
    published: PublishedStream
    working: torch.Generator

    @classmethod
    def of(cls, noise: NoiseSource) -> Streams:
        """New streams of one occasion, keyed apart from each other, from `noise` and from all streams before."""
        return cls(SecretStream(noise), PublishedStream(noise), working_generator(noise))


def _below(stream: KeyStream, limits: npt.NDArray[np.integer]) -> Indices:
    limits = limits.astype(np.uint64)
    assert limits.size == 0 or limits.min() > 0, "there is nothing to draw from"
    # the first 2^64 mod n words would make small results more likely than others
    favoured = (~limits + np.uint64(1)) % limits
    words = stream.words(len(limits)).copy()
    while (again := words < favoured).any():
        words[again] = stream.words(int(again.sum()))
    return (words % limits).astype(np.int64)


def _categorical(stream: KeyStream, weights: Tensor, count: int) -> Tensor:
    """By inversion of the distribution function; an index of weight zero is never drawn."""
    shares = weights.double().numpy()
    bounds = np.cumsum(shares)
    assert shares.min() >= 0 and bounds[-1] > 0, "weights are not negative, and not all zero"
    found = np.searchsorted(bounds, stream.uniform((count,)) * bounds[-1], side="right")
    return torch.from_numpy(np.minimum(found, np.flatnonzero(shares)[-1]).astype(np.int64))


def _uniform(stream: KeyStream, shape: Sequence[int]) -> Tensor:
    count = int(np.prod(shape))
    halves = stream.words((count + 1) // 2).view("<u4")[:count]
    return torch.from_numpy((halves >> np.uint32(8)).astype(np.float32) * np.float32(2.0**-24)).reshape(tuple(shape))
