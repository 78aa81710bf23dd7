"""Re-identification by a verifier of identities: is a candidate nearer to one training patient than strangers come?

After Packhaeuser et al. 2022 (deep re-identification of chest radiographs), trained as SimCLR (Chen et al. 2020), with
the other images of a patient as further views (Khosla et al. 2020). The judge trains it alone, on training patients,
with its own network, seed and variations; no method sees it. An image becomes a vector of unit length, from at most 64
pixels a side with brightness and contrast removed; the score of two images is the cosine. Holdout patients are
strangers to the verifier: what they score by chance is the scale for candidates. All on the CPU, accelerator or not:
the same question gets the same answer.

A second verifier may be a given encoder (`given_verifier`): a public network that the site's policy names, and whose
vectors are taken about the gallery's mean. It has not learnt to tell patients apart, and no training can blind it.

Blind spots: mirror images and inverted polarity (nearest.py sees both), and identity that shows only above 64 pixels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import numpy.typing as npt
import torch
from scipy import stats
from torch import Tensor, nn
from torch.nn import functional

from sfumato_client.audit.attacks.siamese import SIDE, Network, fit_identities, standardised
from sfumato_client.dataset import Cohort
from sfumato_common.encoders.encoder import Encoder
from sfumato_common.errors import DataError
from sfumato_common.metrics.features import encoded_features
from sfumato_common.metrics.nearest import Floats, is_flat
from sfumato_common.rows import by_chunks
from sfumato_common.types import ByteImages

Indices = npt.NDArray[np.int64]

# public and fixed: a judge must give the same answer to the same question, and nothing here is noise
_SEED = 20230704
_STEPS, _LEARNING_RATE = 250, 5e-3


@dataclass(frozen=True, eq=False)
class Verifier:
    """How images become unit vectors; those [M, E] of the training images that show something; `patient_index` [M]."""

    embed: Callable[[ByteImages], Tensor]
    gallery: Tensor
    patient_index: Indices

    def best(self, images: ByteImages) -> tuple[Floats, Indices]:
        """Of each image [N, S, S(, 3)] the best score among the training images [N], and whose it is [N]."""
        if not len(images):
            return np.zeros(0, np.float32), np.zeros(0, np.int64)
        scores, rows = (self.embed(images) @ self.gallery.T).max(dim=1)
        return scores.numpy(), self.patient_index[rows.numpy()]


@dataclass(frozen=True, eq=False)
class Matches:
    """Best scores of candidates [N], and of holdout images [M], whose patients are strangers to the verifier."""

    candidates: Floats = field(repr=False)
    strangers: Floats = field(repr=False)

    def threshold(self, level: float) -> float:
        """The score that strangers exceed with probability `level` (`beyond` / (M + 1), by the order of M of them)."""
        return float(np.sort(self.strangers)[-self.beyond(level)])

    def beyond(self, level: float) -> int:
        """How many of the M strangers reach the threshold: one at least, so that few strangers have a wider level."""
        return max(1, int(level * (len(self.strangers) + 1)))

    def share(self, level: float) -> float:
        """Share of candidates above the threshold: `level` where they are strangers too."""
        return float((self.candidates > self.threshold(level)).mean())

    def relative(self, level: float) -> float:
        """That share over the strangers' own: 1 where candidates are recognised no more than they."""
        return self.share(level) * (len(self.strangers) + 1) / self.beyond(level)

    def share_by_chance(self, level: float, confidence: float) -> float:
        """The share that a set of as many strangers stays within with probability `confidence`, exactly.

        Candidates and strangers being exchangeable, the number above the threshold is beta-binomial: it counts the
        chance in the threshold too. Images of one walk or one patient are not independent, which this does not know.
        """
        count, above = len(self.candidates), self.beyond(level)
        chance = stats.betabinom(count, above, len(self.strangers) + 1 - above)
        return float(chance.ppf(confidence)) / count


@dataclass(frozen=True)
class Recognition:
    """How often the best match was the right patient: `share` in a 95 % interval (Clopper-Pearson); `chance`."""

    share: float
    low: float
    high: float
    chance: float


def train_verifier(train: Cohort) -> Verifier:
    """The verifier of a cohort, always the same one. Raises DataError where there is nobody to tell apart."""
    images, patient_index = _gallery(train)
    compact_index = np.unique(patient_index, return_inverse=True)[1]
    rng = torch.Generator().manual_seed(_SEED)
    network = Network(min(SIDE, images.shape[1]), images.shape[3] if images.ndim == 4 else 1, rng)
    views = standardised(images)
    fit_identities(network, lambda rows: views[rows], torch.from_numpy(compact_index), rng, _STEPS, _LEARNING_RATE)
    return _verifier(partial(_embed, network), images, patient_index)


def given_verifier(encoder: Encoder, train: Cohort) -> Verifier:
    """The verifier whose vectors are a given encoder's, about their mean over the cohort; raises as `train_verifier`.

    A mean of 0 makes the cosine tell what images have of their own from what all of them share.
    """
    images, patient_index = _gallery(train)
    centre = torch.from_numpy(encoded_features(images, encoder)).mean(dim=0)

    def embed(others: ByteImages) -> Tensor:
        return functional.normalize(torch.from_numpy(encoded_features(others, encoder)) - centre, dim=1).float()

    return _verifier(embed, images, patient_index)


def _gallery(train: Cohort) -> tuple[ByteImages, Indices]:
    """Training images that show something, and whose they are."""
    images, _, patients = train.everything()
    shows = ~is_flat(images)
    if len(np.unique(patients[shows])) < 2:
        raise DataError("an identity verifier needs images of at least two patients")
    return images[shows], patients[shows]


def _verifier(embed: Callable[[ByteImages], Tensor], images: ByteImages, patient_index: Indices) -> Verifier:
    gallery = embed(images)
    if not bool(gallery.isfinite().all()):
        raise DataError("the identity verifier could not be made: a vector is not finite")
    return Verifier(embed, gallery, patient_index)


def re_identification(verifier: Verifier, candidates: ByteImages, holdout_images: ByteImages) -> Matches:
    """Best scores of candidates and of holdout images, whose patients are not among the verifier's."""
    return Matches(verifier.best(candidates)[0], verifier.best(holdout_images)[0])


def measure_recognition(verifier: Verifier, images: ByteImages, patient_index: Indices) -> Recognition:
    """How often further images of training patients [N] are matched to them: for benches on known people."""
    hits, count = int((verifier.best(images)[1] == patient_index).sum()), len(patient_index)
    interval = stats.binomtest(hits, count).proportion_ci(0.95, method="exact")
    return Recognition(
        hits / count, float(interval.low), float(interval.high), 1.0 / len(np.unique(verifier.patient_index))
    )


def _embed(network: nn.Module, images: ByteImages) -> Tensor:
    return by_chunks(network, standardised(images))
