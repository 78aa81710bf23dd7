"""Whether a package may enter: its signature, its claims, and that it is what the plan asked this site for."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from sfumato_common.errors import VerificationError
from sfumato_common.package import Package, open_package
from sfumato_common.package.package import Source
from sfumato_common.study.lineage import plan_of_site
from sfumato_common.study.plan import Plan
from sfumato_common.study.shards import most_in_shard, shard_sizes
from sfumato_common.study.words import Part
from sfumato_server.enrol.registry import SiteRecord
from sfumato_server.intake.claims import check_claims

FOLDER = "intake"
SUFFIX = ".sfumato"
Contents = Counter[tuple[str, str]]  # (method, model) -> images
CERTIFICATE_ALLOWANCE = 4 << 20
# manifest entry, archive headers and PNG framing of one image
IMAGE_ALLOWANCE = 2048


def package_path(home: Path, site: str, part: Part, shard: int = 1) -> Path:
    """Where a site's admitted shard of a part of the release lies in the coordinator's home."""
    return home / FOLDER / (f"{site}.{part}{SUFFIX}" if shard == 1 else f"{site}.{part}.{shard:04d}{SUFFIX}")


def largest_package(plan: Plan) -> int:
    """Upper bound in bytes of a package under `plan`: uncompressed pixels plus framing."""
    pixels = plan.image.size * (plan.image.size * plan.image.channels * plan.image.bits // 8 + 1)
    # deflate may lengthen incompressible bytes by a thousandth
    image = pixels + pixels // 500 + IMAGE_ALLOWANCE
    return CERTIFICATE_ALLOWANCE + _most_images(plan) * image


def _most_images(plan: Plan) -> int:
    return min(sum(item.most for item in plan.release), most_in_shard(plan.image))


def admit(source: Source, plan: Plan, record: SiteRecord) -> Package:
    """Open `source`, bytes or a file, as a package of `record`'s site under `plan`: one shard of a part of its release.

    One that is kept from an earlier version is held to the plan that it was made under. Raises VerificationError when
    anything differs. Whether a part's shards make the whole is for the pool to say.
    """
    plan = plan_of_site(plan, record.site)
    package = open_package(
        source,
        record.signing_key.encode(),
        expected_site=record.site,
        expected_plan_hash=plan.digest_at(record.site),
        largest_bytes=largest_package(plan),
        most_images=_most_images(plan),
    )
    try:
        check_claims(package.certificate, plan)
    except VerificationError as error:
        raise VerificationError(f"the package of site '{record.site}' is refused: {error}") from None
    form, head = plan.image, package.head
    if head.study != plan.study or (head.size, head.channels, head.bits) != (form.size, form.channels, form.bits):
        raise VerificationError(f"the package of site '{record.site}' is for another study, image size or depth")
    if any(entry.label not in plan.labels for entry in package.entries):
        raise VerificationError(f"the package of site '{record.site}' holds a label that the plan does not know")
    levels = plan.guarantee_levels
    claims = [(levels.get((entry.method, entry.model)), entry.guarantee) for entry in package.entries]
    if any(level is not None and level != claimed for level, claimed in claims):
        raise VerificationError(f"the package of site '{record.site}' claims a guarantee that its plan does not give")
    sizes = shard_sizes(plan, record.site, head.part)
    if head.shards != len(sizes) or head.images != sizes[head.shard - 1]:
        raise VerificationError(f"the package of site '{record.site}' is no shard into which its plan cuts the release")
    if not any(contents(package) <= wanted for wanted in possible_contents(plan, record.site, head.part)):
        raise VerificationError(f"the package of site '{record.site}' does not hold what the plan's release asks for")
    return package


def contents(package: Package) -> Contents:
    """How many images of which method and model a package holds."""
    return Counter((entry.method, entry.model) for entry in package.entries)


def possible_contents(plan: Plan, site: str, part: Part) -> list[Contents]:
    """What all shards of a part hold together, by each possible choice of the model."""
    possible = [plan.part_at(site, choice, part) for choice in plan.choices]
    return [Counter({(item.method, item.model): item.images for item in items}) for items in possible]
