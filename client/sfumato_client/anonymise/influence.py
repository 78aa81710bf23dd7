"""How far one patient moves an image: every image on groups is made again without each of its patients, and compared.

Of a plain average of k images, leaving one out moves it by 1 / (k - 1) of how far that one is from the group's mean.
No image may move LARGEST_INFLUENCE times as far, in any ring of spatial frequencies; rings, because a record may be
written where images have little, and pixels would hardly notice. What is compared are the final bytes. Where an image
moves too far it is drawn back towards the plain image that its latent space names, and with it all that was made
without a member. A plain image is affine in the members' images whatever models the coordinator sent: in the W space
the spectral image of the mean code, elsewhere a linear map of the average of their images. So leaving a member out
moves it no further than an average moves. Where even that moves too far nothing of the item leaves.

So an image may show 2 / k of a record, twice what an average shows; of two patients that is all of one, of three two
thirds. That is a bound on how loud a patient is, not on how much is said softly: a network that was written to do so
could scramble a record into a grey level everywhere, and who knows how it did could read it (a test does). No network
that was trained to draw images does.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sfumato_client.anonymise.chunks import rows_that_fit
from sfumato_client.dataset import Cohort
from sfumato_common.errors import ReleaseRefused
from sfumato_common.generators.spectral.dct import dct_matrix
from sfumato_common.latent.space import LatentSpace, Noise
from sfumato_common.mechanisms.draws import Draws
from sfumato_common.types import ByteImages, to_bytes, to_unit_range

Float64 = npt.NDArray[np.float64]
Float32 = npt.NDArray[np.float32]
Indices = npt.NDArray[np.int64]
LARGEST_INFLUENCE = 2.0
# of what a method added to the plain spectral image; the first that no member moves too far is taken
KEPT = (1.0, 0.75, 0.5, 0.25, 0.0)
_RINGS = (1.5, 3.0, 5.0, 7.0, 9.0, 12.0, 16.0, 20.0, 24.0, 32.0, 48.0, 64.0, 96.0, 128.0, 192.0, 256.0, 384.0)


def with_each_left_out(members: Indices) -> list[Tensor]:
    """All `members` [M], then all but the first, all but the second, and so on."""
    whole = torch.from_numpy(members)
    return [whole, *(torch.cat([whole[:place], whole[place + 1 :]]) for place in range(len(whole)))]


def noise_of(space: LatentSpace, components: Tensor, draws: Draws) -> Noise:
    """Noise for components [G], drawn image by image: an image's own does not depend on how many are drawn at once."""
    first, *others = [space.draw_noise(one.to(space.device), draws) for one in torch.split(components, 1)]
    noise: Noise = first.joined(others)
    return noise


def draw_restrained(
    space: LatentSpace,
    plain: Tensor,
    made: Tensor,
    averages: Float32,
    component: Tensor,
    noise: Noise,
    allowed: Float64,
    bits: int,
) -> ByteImages:
    """One image [S, S(, 3)], of whose method's work so much is kept as its patients allow.

    Codes `plain` [V, D], the mean's, and `made` [V, D] or [V, 1 + L, D], the method's, and `averages` [V, C, S, S] of
    members' images are the image's own and what they are without each patient; all are decoded under the one
    `component` [1] with one image's `noise`. Raises what `restrain` raises.
    """
    device, drawn = space.device, []
    size = rows_that_fit(space.image_bytes, device)
    rows = (torch.split(part.to(device), size) for part in (torch.from_numpy(averages), plain, made))
    for average, base, codes in zip(*rows, strict=True):
        count = len(codes)
        own, repeated = component.to(device).expand(count), noise.at(torch.zeros(count, dtype=torch.int64))
        with torch.no_grad():
            pair = torch.stack([space.plain(average, base, own, repeated), space.decode(codes, own, repeated)])
        drawn.append(pair.cpu())
    still, moved = torch.cat(drawn, dim=1).numpy()
    return restrain(still, moved, allowed, bits)


def averages_without(cohort: Cohort, members: Indices) -> Float32:
    """The average of the members' images [1 + M, C, S, S], of all and then without each; a patient's is a mean."""
    means = _means_of(cohort, members)
    whole = means.mean(axis=0)
    return np.concatenate([whole[None], whole + (whole - means) / max(1, len(members) - 1)])


def _means_of(cohort: Cohort, members: Indices) -> Float32:
    return np.stack([to_unit_range(cohort.images_of(patient)[0]).mean(axis=0) for patient in members.tolist()])


def allowed_moves(cohort: Cohort, members: Indices) -> Float64:
    """How far each of `members` may move an image of their group: root mean square a ring [M, R].

    Of its own distance from the group's mean or of the group's spread, whichever is larger; a patient's image is the
    mean of its images.
    """
    means = _means_of(cohort, members)
    away = by_ring(means - means.mean(axis=0))
    spread = np.sqrt((away**2).mean(axis=0))
    return np.asarray(LARGEST_INFLUENCE * np.maximum(away, spread) / max(1, len(members) - 1))


def by_ring(images: npt.NDArray[np.floating[Any]]) -> Float64:
    """Root mean square DCT coefficient of images [N, C, S, S] in each ring of frequencies, [N, R]."""
    size = images.shape[2]
    matrix = dct_matrix(size)
    power = np.square(matrix @ images @ matrix.T).mean(axis=1).reshape(len(images), -1)
    frequency = np.arange(size)
    ring = np.digitize(np.hypot(frequency[:, None], frequency[None, :]), _RINGS).ravel()
    sums = np.stack([np.bincount(ring, row) for row in power])
    return np.sqrt(sums / np.bincount(ring))


def restrain(plain: Float32, made: Float32, allowed: Float64, bits: int) -> ByteImages:
    """The first of images `made` [V, C, S, S], drawn back to `plain` until no patient moves it more than `allowed`.

    The others are what it would be without each patient, whose moves may be [V - 1, R] a ring. Raises ReleaseRefused
    where one of them moves even the plain image too far.
    """
    grain = 2.0 / ((1 << bits) - 1)  # rounding moves by less, whoever is left out
    for share in KEPT:
        images = to_bytes(plain + share * (made - plain), bits)
        seen = to_unit_range(images)
        if bool((by_ring(seen[1:] - seen[:1]) <= allowed + grain).all()):
            found: ByteImages = images[0]
            return found
    raise ReleaseRefused("an image hangs on one of its patients more than an average does; nothing of its item leaves")
