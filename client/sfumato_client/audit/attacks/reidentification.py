"""Re-identification by a siamese verifier at the image's own resolution, 256 pixels a side at most.

After Packhaeuser et al. 2022 (deep re-identification of chest radiographs). The verifier learns to tell people apart on
training and holdout patients alike and is never told which are which: so strangers to the release are no strangers to
it, and both sides are exchangeable where the release depends on neither. A person's score is the largest cosine of the
person's image with a candidate.
"""

from __future__ import annotations

import numpy as np
import torch

from sfumato_client.audit.attacks.base import Attack, Indices, Known, People, Scores, on_both, rows_of_chunk
from sfumato_client.audit.attacks.embedding_copy import largest_cosine, separation
from sfumato_client.audit.attacks.fine import LARGEST
from sfumato_client.audit.attacks.siamese import Network, fit_identities, standardised
from sfumato_common.metrics.nearest import Floats
from sfumato_common.rows import by_chunks
from sfumato_common.types import ByteImages

# public and fixed: a judge gives the same answer to the same question
_SEED = 20221102
_STEPS, _PATIENTS, _LEARNING_RATE = 150, 32, 5e-3
_FEWEST = 4


def _obstacle(members: People, holdout: People, known: Known) -> str:
    del known
    people = members.patients + holdout.patients
    return "" if people >= _FEWEST else f"a verifier needs at least {_FEWEST} patients to tell apart"


def embedded(network: Network, images: ByteImages, largest: int = LARGEST) -> Floats:
    """Unit vectors [N, E] of images [N, S, S(, 3)], a chunk at a time."""
    size = rows_of_chunk(48 * int(np.prod(images.shape[1:])), max(1, len(images)))
    parts = [
        by_chunks(network, standardised(images[at : at + size], largest)).numpy() for at in range(0, len(images), size)
    ]
    return np.concatenate(parts)


def _score(members: People, holdout: People, known: Known) -> Scores:
    def score(images: ByteImages, patients: Indices) -> Floats:
        rng = torch.Generator().manual_seed(_SEED)
        network = Network(min(LARGEST, images.shape[1]), images.shape[3] if images.ndim == 4 else 1, rng)
        whose = torch.from_numpy(np.unique(patients, return_inverse=True)[1])
        fit_identities(
            network,
            lambda rows: standardised(images[rows.numpy()], LARGEST),
            whose,
            rng,
            _STEPS,
            _LEARNING_RATE,
            _PATIENTS,
        )
        return separation(largest_cosine(embedded(network, images), embedded(network, known.candidates)))

    return on_both(score)(members, holdout)


RE_IDENTIFICATION = Attack(
    "re-identification",
    "Does a network that learnt to tell people apart recognise a training patient on a released image?",
    _obstacle,
    _score,
)
