"""The card of a checkpoint (after Mitchell et al. 2019, "Model Cards"): whose weights these are, and what they cost.

It travels in the metadata of the safetensors file itself, so that a file that is moved keeps it; a copy in JSON lies
beside the file for people. It holds plan arithmetic and hashes, nothing that a site has not already released.
"""

from __future__ import annotations

import json
import math
import platform
from collections import Counter
from collections.abc import Iterable, Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError
from safetensors import SafetensorError, safe_open

from sfumato_common import __version__
from sfumato_common.accounting.accountant import epsilon
from sfumato_common.errors import ConfigError, VerificationError
from sfumato_common.files import canonical_json
from sfumato_common.protocol.pack import pieces
from sfumato_common.strict import Strict
from sfumato_common.study.costs import study_events
from sfumato_common.study.plan import Plan
from sfumato_common.types import AnyArray, Arrays, fingerprint

_PACKAGES = ("torch", "numpy", "safetensors", "opacus", "dp-accounting")
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Count = Annotated[int, Field(ge=0)]


class Part(Strict):
    """How many arrays and numbers one part of the file has; parts are what stands before the first '/' of a name."""

    arrays: Count
    parameters: Count


class Card(Strict):
    """Card of one checkpoint: study, stage, finished rounds, and what a training patient has paid when they ended.

    `epsilon` is the plan's arithmetic at `delta` (None: the weights left without differential privacy); what each site
    charged is in its certificate. `released` names the arrays of the model that may be sampled, `sha256` covers all
    arrays of the file, `spectral_sha256` those of the spectral model that the stage started from.
    """

    format: Literal["sfumato-checkpoint-2"] = "sfumato-checkpoint-2"
    plan_hash: Sha256
    study: str
    stage: str
    round: Count
    rounds: Count
    private: bool
    epsilon: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None
    delta: float
    unit: Literal["patient"]
    adjacency: Literal["add-remove"]
    cohort: Literal["train"] = "train"
    contents: dict[str, Part]
    released: list[str]
    sha256: Sha256
    spectral_sha256: Sha256 | None
    versions: dict[str, str]


def make_card(plan: Plan, stage: str, number: int, arrays: Arrays, released: Arrays) -> Card:
    """Card of the state after round `number` of `stage`; `arrays` is what the file holds."""
    counts = Counter(_part(name) for name in arrays)
    sizes: Counter[str] = Counter()
    for name, value in arrays.items():
        sizes[_part(name)] += int(value.size)
    spectral = {name: value for name, value in released.items() if name.startswith("spectral/")}
    return Card(
        plan_hash=plan.study_digest,
        study=plan.study,
        stage=stage,
        round=number,
        rounds=plan.stage(stage).rounds,
        private=plan.private,
        epsilon=_paid(plan, stage, number),
        delta=plan.privacy.delta,
        unit=plan.privacy.unit,
        adjacency=plan.privacy.adjacency,
        contents={part: Part(arrays=counts[part], parameters=sizes[part]) for part in sorted(counts)},
        released=sorted(released),
        sha256=fingerprint(arrays),
        spectral_sha256=fingerprint(spectral) if spectral else None,
        versions=_versions(),
    )


def checkpoint_pieces(card: Card, arrays: Arrays) -> Iterator[bytes | memoryview]:
    """The file, piece by piece: safetensors, with the card in its metadata."""
    return pieces(arrays, {"card": canonical_json(card.model_dump(mode="json")).decode("ascii")})


def read_checkpoint(path: Path) -> tuple[Card | None, dict[str, AnyArray]]:
    """(card, arrays) of a checkpoint; no card in files of earlier versions.

    Raises ConfigError when the file cannot be opened, VerificationError when it is damaged or not what its card says.
    """
    if not path.is_file():
        raise ConfigError(f"'{path.name}' is not a file; name a checkpoint, a file that ends in .safetensors")
    try:
        with safe_open(path, "numpy") as stream:
            metadata: dict[str, str] = stream.metadata() or {}
            arrays: dict[str, AnyArray] = {name: stream.get_tensor(name) for name in stream.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, TypeError, ValueError):
        raise VerificationError(f"checkpoint '{path.name}' is damaged; delete it to redo that round") from None
    if "card" not in metadata:
        return None, arrays
    try:
        card = Card.model_validate(json.loads(metadata["card"]))
    except (ValueError, ValidationError):
        raise VerificationError(
            f"the card of checkpoint '{path.name}' cannot be read; use the version of Sfumato that wrote it"
        ) from None
    if fingerprint(arrays) != card.sha256:
        raise VerificationError(
            f"checkpoint '{path.name}' is damaged: its weights are not those of its card; delete it to redo that round"
        )
    return card, arrays


def card_lines(card: Card) -> list[tuple[str, str]]:
    """The card for people, as (what, value)."""
    spent = (
        "none: the weights left without differential privacy"
        if card.epsilon is None
        else f"{card.epsilon:.3f} at delta {card.delta:g}, by the plan; certificates state what each site charged"
    )
    contents = [f"{name}: {part.arrays} arrays, {part.parameters:,} numbers" for name, part in card.contents.items()]
    return [
        ("study", card.study),
        ("plan hash", card.plan_hash),
        ("stage", card.stage),
        ("round", f"{card.round} of {card.rounds}"),
        ("epsilon so far", spent),
        ("who pays", f"one {card.unit} of the '{card.cohort}' cohort, adjacency {card.adjacency.replace('-', '/')}"),
        ("contents", "\n".join(contents)),
        ("written with", ", ".join(f"{name} {number}" for name, number in card.versions.items())),
        ("weights, sha256", card.sha256),
    ]


def _paid(plan: Plan, stage: str, number: int) -> float | None:
    """Epsilon of a training patient after round `number` of `stage`, rounded up at the sixth decimal."""
    if not plan.private:
        return None
    kinds = [item.kind for item in plan.stages]
    ended = sum(item.rounds for item in plan.stages[: kinds.index(plan.stage(stage).kind)])
    spent = epsilon(study_events(plan, "train")[: ended + number], plan.privacy.delta)
    return math.ceil(spent * 1e6) / 1e6 if math.isfinite(spent) else None


def _part(name: str) -> str:
    first, _, rest = name.partition("/")
    return f"{first}/{rest.partition('/')[0]}" if first in ("released", "average") else first


def _versions() -> dict[str, str]:
    return {"python": platform.python_version(), "sfumato": __version__} | dict(_installed_versions(_PACKAGES))


def _installed_versions(names: Iterable[str]) -> Iterable[tuple[str, Any]]:
    for name in names:
        try:
            yield name, version(name)
        except PackageNotFoundError:
            continue
