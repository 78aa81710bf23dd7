"""Attacks on what is to be released, one a file: the table of those that tell members from holdout patients.

`base.py` is their contract. Beside the table stand those of another kind: on arrays that a stage releases (`shadow.py`,
`white_box.py`, `canaries.py`), and what the gate's rules have of their own (`identity.py`, `linkage.py`).
"""

from sfumato_client.audit.attacks.attribute import ATTRIBUTE
from sfumato_client.audit.attacks.base import Attack, AttackResult, Known, People, measure
from sfumato_client.audit.attacks.domias import DOMIAS
from sfumato_client.audit.attacks.embedding_copy import EMBEDDING_COPY
from sfumato_client.audit.attacks.nearest_copy import NEAREST_COPY
from sfumato_client.audit.attacks.pairs import LEARNED_PAIRS
from sfumato_client.audit.attacks.reidentification import RE_IDENTIFICATION
from sfumato_client.audit.attacks.thumbnail import THUMBNAIL
from sfumato_client.audit.attacks.trace import TRACE

ATTACKS: dict[str, Attack] = {
    attack.name: attack
    for attack in (
        NEAREST_COPY,
        THUMBNAIL,
        EMBEDDING_COPY,
        DOMIAS,
        TRACE,
        ATTRIBUTE,
        RE_IDENTIFICATION,
        LEARNED_PAIRS,
    )
}

__all__ = ["ATTACKS", "Attack", "AttackResult", "Known", "People", "measure"]
