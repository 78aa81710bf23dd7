"""Whether a package may enter: its signature, its claims, and that it is exactly what the plan asked this site for."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from sfumato_common.errors import VerificationError
from sfumato_common.package import Package, open_package
from sfumato_common.study.lineage import plan_of_site
from sfumato_common.study.plan import Plan
from sfumato_common.study.words import Part
from sfumato_server.enrol.registry import SiteRecord
from sfumato_server.intake.claims import check_claims

FOLDER = "intake"
SUFFIX = ".sfumato"
CERTIFICATE_ALLOWANCE = 4 << 20
# manifest entry, archive headers and PNG framing of one image
IMAGE_ALLOWANCE = 2048


def package_path(home: Path, site: str, part: Part) -> Path:
    """Where a site's admitted package of one part of the release lies in the coordinator's home."""
    return home / FOLDER / f"{site}.{part}{SUFFIX}"


def largest_package(plan: Plan) -> int:
    """Upper bound in bytes of a package under `plan`: uncompressed pixels plus framing."""
    pixels = plan.image.size * (plan.image.size * plan.image.channels * plan.image.bits // 8 + 1)
    # deflate may lengthen incompressible bytes by a thousandth
    image = pixels + pixels // 500 + IMAGE_ALLOWANCE
    return CERTIFICATE_ALLOWANCE + sum(item.most for item in plan.release) * image


def admit(data: bytes, plan: Plan, record: SiteRecord) -> Package:
    """Open `data` as a package of `record`'s site under `plan`: one whole part of its release.

    A package that is kept from an earlier version is held to the plan that it was made under. Raises VerificationError
    when anything differs.
    """
    plan = plan_of_site(plan, record.site)
    package = open_package(
        data,
        record.signing_key.encode(),
        expected_site=record.site,
        expected_plan_hash=plan.digest_at(record.site),
        largest_bytes=largest_package(plan),
        most_images=sum(item.most for item in plan.release),
    )
    try:
        check_claims(package.certificate, plan)
    except VerificationError as error:
        raise VerificationError(f"the package of site '{record.site}' is refused: {error}") from None
    form = plan.image
    if package.study != plan.study or (package.size, package.channels, package.bits) != (
        form.size,
        form.channels,
        form.bits,
    ):
        raise VerificationError(f"the package of site '{record.site}' is for another study, image size or depth")
    if any(image.facts.label not in plan.labels for image in package.images):
        raise VerificationError(f"the package of site '{record.site}' holds a label that the plan does not know")
    levels = plan.guarantee_levels
    claims = [(levels.get((image.facts.method, image.facts.model)), image.facts.guarantee) for image in package.images]
    if any(level is not None and level != claimed for level, claimed in claims):
        raise VerificationError(f"the package of site '{record.site}' claims a guarantee that its plan does not give")
    counts = Counter((image.facts.method, image.facts.model) for image in package.images)
    possible = [plan.part_at(record.site, choice, package.part) for choice in plan.choices]
    if counts not in [Counter({(item.method, item.model): item.images for item in items}) for items in possible]:
        raise VerificationError(f"the package of site '{record.site}' does not hold what the plan's release asks for")
    return package
