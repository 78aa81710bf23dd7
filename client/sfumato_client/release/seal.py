"""Approved candidates to signed packages: exactly what the plan asks for and the policy allows, under random names."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate

from sfumato_client.anonymise.candidates import CandidateSet
from sfumato_client.audit.consent import Consent
from sfumato_client.audit.verdict import Approved
from sfumato_common.accounting.events import same_mechanisms
from sfumato_common.errors import PolicyRefusal, ReleaseRefused
from sfumato_common.imaging import encode_png
from sfumato_common.package import PackageImage, build_package
from sfumato_common.package.manifest import ImageFacts
from sfumato_common.study.certificate import Certificate
from sfumato_common.study.costs import release_events
from sfumato_common.study.plan import Plan
from sfumato_common.study.policy import Policy
from sfumato_common.study.release import AnyItem, DpKAverage, Grouped
from sfumato_common.study.shards import shard_sizes
from sfumato_common.study.words import part_of, way_of
from sfumato_common.types import AnyArray, pixel_dtype


def seal(
    approved: Approved,
    plan: Plan,
    policy: Policy,
    certificate: Certificate,
    sign: Callable[[bytes], bytes],
    consent: Consent | None = None,
) -> Iterator[bytes]:
    """The packages of one part of the release, shard by shard, signed by `sign` (`SiteIdentity.sign_package`).

    Images are dealt to the shards by their random names, and only one shard is in memory as bytes.

    `consent` is the stewards', where the policy asks them.

    Raises ReleaseRefused for anything but an intact `Approved` of exactly what the plan asks for in that part, with the
    consent that it needs,
    PolicyRefusal when the policy forbids a method, the size of the set, or a certificate made under other noise.
    """
    if type(approved) is not Approved:
        raise ReleaseRefused("only candidates that the gate approved can be sealed")
    approved.check()
    _check_request(approved, plan, policy.site)
    _check_policy(approved, policy, certificate)
    _check_consent(approved, plan, policy, consent)
    named = [pair for item in approved.candidates for pair in _named(item, plan)]
    images = sorted(named, key=lambda pair: pair[0].name)
    sizes = shard_sizes(plan, policy.site, part_of(approved.candidates[0].guarantee))
    return (
        build_package(
            site=policy.site,
            study=plan.study,
            plan_hash=plan.digest,
            certificate=certificate,
            images=[PackageImage(facts, encode_png(image)) for facts, image in images[end - size : end]],
            sign=sign,
            shard=number,
            shards=len(sizes),
        )
        for number, (size, end) in enumerate(zip(sizes, accumulate(sizes), strict=True), start=1)
    )


def _named(item: CandidateSet, plan: Plan) -> Iterator[tuple[ImageFacts, AnyArray]]:
    # 128 random bits a name, and shards and packages are ordered by name: neither says how an image was drawn
    for image, label in zip(item.images, item.labels, strict=True):
        name, word = secrets.token_hex(16), plan.labels[int(label)]
        facts = ImageFacts(name=name, label=word, model=item.model, method=item.method, guarantee=item.guarantee)
        yield facts, image


def _check_request(approved: Approved, plan: Plan, site: str) -> None:
    parts = {part_of(item.guarantee) for item in approved.candidates}
    if len(parts) != 1:
        raise ReleaseRefused("formal sets and others are approved and sealed apart")
    (part,) = parts
    possible = [plan.part_at(site, choice, part) for choice in plan.choices]
    wanted = [sorted((str(item.method), str(item.model), item.images) for item in release) for release in possible]
    given = sorted((str(item.method), str(item.model), len(item.images)) for item in approved.candidates)
    if given not in wanted:
        raise ReleaseRefused("the approved sets are not the ones that the plan's release asks for")
    for item in approved.candidates:
        if item.images.shape[1:] != plan.image.shape or item.images.dtype != pixel_dtype(plan.image.bits):
            raise ReleaseRefused("the approved images are not of the plan's size, channels and depth")
        _check_promise(item, plan, possible[wanted.index(given)])
        if item.labels.min() < 0 or item.labels.max() >= len(plan.labels):
            raise ReleaseRefused("an approved image has a label that the plan does not have")


def _check_promise(item: CandidateSet, plan: Plan, release: Sequence[AnyItem]) -> None:
    """Groups are as large as the plan says, and what ran on records is what the ledger was charged for."""
    asked = next(asked for asked in release if (asked.method, asked.model) == (item.method, item.model))
    if isinstance(asked, Grouped | DpKAverage) and item.patients < asked.k:
        raise ReleaseRefused(f"an image of '{item.method}' was made from fewer than {asked.k} patients")
    if item.guarantee != plan.guarantee_level(asked):
        raise ReleaseRefused(f"'{item.method}' claims another guarantee than it has")
    if not same_mechanisms(release_events(plan, asked), item.spends):
        raise ReleaseRefused(f"the mechanisms behind '{item.method}' are not those that the plan is charged for")


def _check_consent(approved: Approved, plan: Plan, policy: Policy, consent: Consent | None) -> None:
    part, review = part_of(approved.candidates[0].guarantee), policy.release.review
    if not review.asks(part):
        return
    if type(consent) is not Consent:
        raise ReleaseRefused("this site's policy asks stewards for these candidates, and none said yes")
    consent.check(approved, plan.digest, part, review.persons)


def _check_policy(approved: Approved, policy: Policy, certificate: Certificate) -> None:
    allowed = policy.release.allowed_methods
    if forbidden := [item.method for item in approved.candidates if way_of(item.method) not in allowed]:
        raise PolicyRefusal(f"method '{forbidden[0]}' is not in this site's release.allowed_methods")
    if sum(len(item.images) for item in approved.candidates) > policy.release.largest_set:
        raise PolicyRefusal(f"the set is larger than this site's release.largest_set = {policy.release.largest_set}")
    if certificate.noise != policy.noise:
        raise PolicyRefusal("the certificate states other noise than this site's policy prescribes")
