"""The learned pair attack on releases of groups (Jeon et al. 2022, section 4.3): is this person behind that image?

The attacker knows of half of the groups who is in them, and learns on those pairs of a person and a released image what
a member leaves of itself in an average. The other half is judged: members of groups that the network never saw, against
holdout patients. Who is behind an image only the release knows: benches and a steward who has the grouping ask this.
"""

from __future__ import annotations

import numpy as np
import torch
from torch.nn import functional

from sfumato_client.audit.attacks.base import Attack, Indices, Known, People, Scores
from sfumato_client.audit.attacks.embedding_copy import largest_cosine
from sfumato_client.audit.attacks.fine import LARGEST
from sfumato_client.audit.attacks.reidentification import embedded
from sfumato_client.audit.attacks.siamese import Network, augmented, standardised

_SEED = 20220911
_STEPS, _PAIRS, _LEARNING_RATE, _TEMPERATURE = 200, 32, 3e-3, 0.1
_FEWEST = 8  # images of groups, half of which are learnt on


def _obstacle(members: People, holdout: People, known: Known) -> str:
    del members, holdout
    if len(known.behind) != len(known.candidates):
        return "who is behind which image is not known to it"
    groups = sum(len(patients) > 0 for patients in known.behind)
    return "" if groups >= _FEWEST else f"it learns on half of the groups, and needs {_FEWEST} images of groups"


def _score(members: People, holdout: People, known: Known) -> Scores:
    rng = torch.Generator().manual_seed(_SEED)
    images = np.array([row for row, patients in enumerate(known.behind) if len(patients)])
    order = images[torch.randperm(len(images), generator=rng).numpy()]
    learnt, judged = order[::2], order[1::2]
    seen = np.unique(np.concatenate([known.behind[row] for row in learnt]))
    # a person behind images of both halves is learnt on, and judged no more
    left = ~np.isin(members.patient_index, seen)
    rest = People(members.images[left], members.patient_index[left], members.labels[left])
    network = _learn(members, known, learnt, rng)
    released = embedded(network, known.candidates[judged])
    inside, outside = (
        side.per_patient(largest_cosine(embedded(network, side.images), released))
        if side.patients
        else np.zeros(0, np.float32)
        for side in (rest, holdout)
    )
    return inside, outside


def _learn(members: People, known: Known, learnt: Indices, rng: torch.Generator) -> Network:
    """A network whose vector of a person is near that of the person's own group's image, and far from others'."""
    images = members.images
    network = Network(min(LARGEST, images.shape[1]), images.shape[3] if images.ndim == 4 else 1, rng)
    own = [np.flatnonzero(np.isin(members.patient_index, known.behind[row])) for row in learnt]
    optimiser = torch.optim.Adam(network.parameters(), lr=_LEARNING_RATE)
    batch = min(_PAIRS, len(learnt))
    for _ in range(_STEPS):
        groups = torch.randperm(len(learnt), generator=rng)[:batch].tolist()
        rows = [own[group][int(torch.randint(len(own[group]), (1,), generator=rng))] for group in groups]
        people = network(augmented(standardised(images[rows], LARGEST), rng))
        released = network(augmented(standardised(known.candidates[learnt[groups]], LARGEST), rng))
        scores, right = people @ released.T / _TEMPERATURE, torch.arange(batch)
        loss = functional.cross_entropy(scores, right) + functional.cross_entropy(scores.T, right)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    return network


LEARNED_PAIRS = Attack(
    "learned-pairs",
    "Does a network that knows half of the groups tell who is behind the images of the others?",
    _obstacle,
    _score,
)
