"""The gate: one verdict, approved or refused, on each part of what a site would release under a plan.

On the declared part (`gate`) the verdict depends on the real images and no epsilon covers it, so it is one bit,
declared, charged once a plan before the data is touched. Formal sets have a proof, which such a bit would take from
them: what is published only if an exact test of the data passes is not differentially private. They are let go as they
are (`let_go`), or by a test that is private itself (`private_gate`). Single candidates are never filtered out: which
ones fell away would tell more than one bit, uncharged, and the images that remain would no longer be post-processing of
the private models. Only this file makes an `Approved`.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from sfumato_client.anonymise.candidates import CandidateSet
from sfumato_client.audit.attacks.base import Indices
from sfumato_client.audit.copies import copied_patients, most_by_noise
from sfumato_client.audit.measured import Quantiles, matches_of, quantile_rows, quantiles_of
from sfumato_client.audit.rules import FEWEST_CONTROLS, IDENTICAL, Distances, Finding, apply, apply_to_records
from sfumato_client.audit.soundness import TextReader, apply_to_candidates
from sfumato_client.audit.suite import Tried, apply_to_attacks, try_attacks
from sfumato_client.dataset import Cohort
from sfumato_client.ledger import Charge
from sfumato_common.encoders.encoder import Encoder
from sfumato_common.errors import ConfigError, DataError, PolicyRefusal, ReleaseRefused
from sfumato_common.files import canonical_json, write_atomic
from sfumato_common.mechanisms.sealed import ProcessKey, Sealed, digest_of
from sfumato_common.metrics.nearest import is_flat, nearest_distances
from sfumato_common.study.gate_rules import GateRules

# an approval cannot be stored, sent, or made by anything that does not hold it
_KEY = ProcessKey()


def _seal_of(candidates: Sequence[CandidateSet]) -> bytes:
    """Keyed hash of every pixel, label and claim."""
    return _KEY.tag(canonical_json([digest_of(item) for item in candidates]))


@dataclass(frozen=True, eq=False)
class Approved:
    """Candidates that the gate let pass. Made elsewhere, or altered since, it raises ReleaseRefused."""

    candidates: tuple[CandidateSet, ...]
    _seal: bytes = field(repr=False)

    def __post_init__(self) -> None:
        self.check()

    def check(self) -> None:
        """Raise ReleaseRefused unless the gate approved exactly these pixels, labels and claims."""
        if not hmac.compare_digest(self._seal, _seal_of(self.candidates)):
            raise ReleaseRefused("these candidates are not what the gate approved; only audit.verdict may approve")


@dataclass(frozen=True)
class Verdict:
    """The one bit (`approved` or None) and, for the steward's eyes only, what it rests on."""

    approved: Approved | None
    findings: tuple[Finding, ...]
    obstacle: str
    quantiles: tuple[Quantiles, ...]
    match_quantiles: tuple[Quantiles, ...] = ()
    tried: Tried = field(default_factory=Tried)

    def statement(self, digests: Sequence[str]) -> bytes:
        """What the ledger keeps the hash of: the one bit, and which sets it is about."""
        return _statement(self.approved is not None, digests)

    def to_json(self) -> dict[str, Any]:
        """The local report. Data-dependent: it stays in the site."""
        return {
            "approved": self.approved is not None,
            "obstacle": self.obstacle,
            "findings": [finding.to_json() for finding in self.findings],
            "distance_quantiles_0_1_5_25_50_75_100": quantile_rows(self.quantiles),
            "match_quantiles_0_1_5_25_50_75_100": quantile_rows(self.match_quantiles),
            **self.tried.to_json(),
        }


def judge(
    candidates: Sequence[CandidateSet],
    train: Cohort,
    holdout: Cohort,
    rules: GateRules,
    encoder: Encoder | None = None,
    has_text: TextReader | None = None,
    behind: Mapping[str, Sequence[Indices]] | None = None,
) -> Verdict:
    """Hold every candidate set against the tables of rules; all must pass all. A check that cannot run refuses.

    `encoder` is the one that `rules` name: where they do, a set made from records is held against a second verifier.
    `has_text` reads text in a picture; needed where `rules` have text refused. `behind` has, by a set's name, the
    training patients behind each of its images, where that is known.
    """
    # constant images are nobody's, and left in they would dilute the share of copies among the others
    shown = [item.images[~is_flat(item.images)] for item in candidates]
    if not shown or any(len(images) == 0 for images in shown):
        return _refuse("a candidate set shows nothing: there is nothing to judge")
    real, holdout_images = train.everything()[0], holdout.everything()[0]
    if any(item.images.shape[1:] != images.shape[1:] for item in candidates for images in (real, holdout_images)):
        return _refuse("candidates, training and holdout images differ in size")
    control_images = holdout_images[~is_flat(holdout_images)]
    if len(control_images) < FEWEST_CONTROLS or is_flat(real).all():
        return _refuse(f"the control needs training images and at least {FEWEST_CONTROLS} holdout images")
    control = nearest_distances(control_images, real)
    measured = [Distances(nearest_distances(images, real), control) for images in shown]
    quantiles = [("holdout", quantiles_of(control))]
    quantiles += [(item.name, quantiles_of(d.candidates)) for item, d in zip(candidates, measured, strict=True)]
    if not all(np.isfinite(d.candidates).all() and np.isfinite(d.control).all() for d in measured):
        return _refuse("a distance is not finite", quantiles)
    if measured[0].usual_least < IDENTICAL:
        return _refuse("holdout images repeat training images: they cannot serve as a control", quantiles)
    try:
        matches = matches_of(candidates, shown, train, control_images, encoder)
        sound = [
            finding
            for item in candidates
            for finding in apply_to_candidates(item.name, item.images, real, rules, has_text)
        ]
        tried = try_attacks(candidates, train, holdout, rules, encoder, behind or {})
    except (ConfigError, DataError) as error:
        return _refuse(str(error), quantiles)
    findings = [
        finding
        for item, distances in zip(candidates, measured, strict=True)
        for finding in apply(item.name, distances, rules)
    ]
    for name, which, found in matches:
        findings += apply_to_records(f"{name}{which}", found, rules)
    findings += [*apply_to_attacks(tried.results, rules), *sound]
    passed = all(finding.passed for finding in findings)
    approved = Approved(tuple(candidates), _seal_of(candidates)) if passed else None
    scored = {f"holdout{which}": quantiles_of(found.strangers) for _, which, found in matches}
    scored |= {f"{name}{which}": quantiles_of(found.candidates) for name, which, found in matches}
    return Verdict(approved, tuple(findings), "", tuple(quantiles), tuple(scored.items()), tried)


def gate(
    sealed: Sequence[Sealed[CandidateSet]],
    train: Cohort,
    holdout: Cohort,
    rules: GateRules,
    charges: Sequence[AbstractContextManager[Charge]],
    steward_folder: Path,
    encoder: Encoder | None = None,
    has_text: TextReader | None = None,
    behind: Mapping[str, Sequence[Indices]] | None = None,
) -> Approved:
    """Policy, then `charges` (`study.costs.gate_verdict` in the ledger), then the data, then the steward's report.

    Raises PolicyRefusal when the policy does not declare the verdict, EgressRefused for sets that are not as they were
    sealed, or what entering `charges` raises (a second gate of a plan), all before any image is read; ReleaseRefused
    when the verdict is no, without saying why.
    """
    if not rules.declare_verdict:
        raise PolicyRefusal("the gate's verdict is one data-dependent bit; release.gate.declare_verdict must allow it")
    for item in sealed:
        item.check()
    candidates, digests = [item.result for item in sealed], [item.digest for item in sealed]
    with ExitStack() as stack:
        books = [stack.enter_context(charge) for charge in charges]
        verdict = judge(candidates, train, holdout, rules, encoder, has_text, behind)
        write_atomic(report_path(steward_folder, digests), json.dumps(verdict.to_json(), indent=2) + "\n", mode=0o600)
        for book in books:
            book.seal(verdict.statement(digests))
    if verdict.approved is None:
        raise ReleaseRefused("the gate did not approve the candidates: nothing is released; see the local gate report")
    return verdict.approved


def let_go(sealed: Sequence[Sealed[CandidateSet]]) -> Approved:
    """Formal sets without a gate: no patient's image is read, so that nothing is charged and no bit leaves.

    Raises EgressRefused for sets that are not as they were sealed; ReleaseRefused for any that is not formal, or shows
    nothing.
    """
    candidates = _check_formal(sealed)
    return Approved(candidates, _seal_of(candidates))


def private_gate(
    sealed: Sequence[Sealed[CandidateSet]],
    train: Callable[[], Cohort],
    rules: GateRules,
    noise_multiplier: float,
    charge: AbstractContextManager[Charge],
    steward_folder: Path,
) -> Approved:
    """Formal sets by a noised count of copied patients (see `copies.py`): `charge`, then the data, then the report.

    Raises what `let_go` raises and what entering `charge` raises, before any image is read; ReleaseRefused when the
    noised count is above what noise alone explains.
    """
    candidates, digests = _check_formal(sealed), [item.digest for item in sealed]
    with charge as book:
        count = copied_patients([item.images for item in candidates], train(), rules)
        noised = float(book.recorder.gaussian(np.array([float(count)]), 1.0, noise_multiplier)[0])
        limit = most_by_noise(noise_multiplier)
        passed = noised <= limit
        found = {"approved": passed, "copied_patients_noised": noised, "limit": limit, "noise": noise_multiplier}
        write_atomic(report_path(steward_folder, digests), json.dumps(found, indent=2) + "\n", mode=0o600)
        book.seal(_statement(passed, digests))
    if not passed:
        raise ReleaseRefused("the gate did not approve the candidates, by its private test; see the local gate report")
    return Approved(candidates, _seal_of(candidates))


def recall_verdict(sealed: Sequence[Sealed[CandidateSet]], settled: str) -> Approved:
    """What the gate said of exactly these sets in an earlier process: `settled` is the hash in the ledger.

    Raises ReleaseRefused when it said no, or when its verdict was about other sets.
    """
    for item in sealed:
        item.check()
    if digest_of(_statement(True, [item.digest for item in sealed])) != settled:
        raise ReleaseRefused("the gate did not approve these candidates when it was asked, and is asked once")
    candidates = tuple(item.result for item in sealed)
    return Approved(candidates, _seal_of(candidates))


def _check_formal(sealed: Sequence[Sealed[CandidateSet]]) -> tuple[CandidateSet, ...]:
    for item in sealed:
        item.check()
    candidates = tuple(item.result for item in sealed)
    if any(item.guarantee != "formal" for item in candidates):
        raise ReleaseRefused("a set that no epsilon covers whole may only pass the gate that declares its verdict")
    if not candidates or any(is_flat(item.images).all() for item in candidates):
        raise ReleaseRefused("a candidate set shows nothing: there is nothing to release")
    return candidates


def report_path(steward_folder: Path, digests: Sequence[str]) -> Path:
    """Where the gate keeps what it found of sets with these digests; it stays in the site."""
    return steward_folder / f"gate-{hashlib.sha256(canonical_json(digests)).hexdigest()[:12]}.json"


def _statement(approved: bool, digests: Sequence[str]) -> bytes:
    return canonical_json({"approved": approved, "sets": list(digests)})


def _refuse(obstacle: str, quantiles: Sequence[Quantiles] = ()) -> Verdict:
    return Verdict(None, (), obstacle, tuple(quantiles))
