"""A later version of a published set: what it takes over from earlier ones, and why it is not as it was.

Models that are given are not trained: an earlier plan paid for them, and who trained them pays nothing again. Packages
that are kept are the earlier version's, unchanged: their sites are asked nothing. docs/guarantee.md has the argument.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from sfumato_common.errors import ConfigError
from sfumato_common.generators import GENERATORS
from sfumato_common.strict import Strict, parse

if TYPE_CHECKING:
    from sfumato_common.study.plan import Plan

Hash = Annotated[str, Field(pattern=r"\A[0-9a-f]{64}\z")]
Day = Annotated[str, Field(pattern=r"\A\d{4}-\d{2}-\d{2}\z")]
SiteKey = Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,31}$")]
# all that a tombstone can say: no count, no identity, no text
What = Literal["site-left", "site-withdrew", "patient-withdrew"]
Images = Literal["removed", "regenerated", "stay"]
Why = Literal["consent withdrawn", "agreement ended", "data corrected", "legal duty", "not told"]
_IMAGES: dict[What, tuple[Images, ...]] = {
    "site-left": ("stay",),
    "site-withdrew": ("removed",),
    "patient-withdrew": ("regenerated",),
}


class Tombstone(Strict):
    """What is no longer in a set, of which site, since when, and what became of that site's images."""

    site: SiteKey
    """The site's name."""
    what: What
    """What happened, a word of a fixed list."""
    since: Day
    """The day, YYYY-MM-DD."""
    images: Images
    """What became of the site's images."""
    why: Why = "not told"
    """The reason, where it is told."""


class Lineage(Strict):
    """What version `version` of a set takes over.

    `previous`: sha256 of the manifest of the set that it replaces. `models`: fingerprint of the released arrays of
    every stage's model where they are given, and `trained` the digest that all parties of the study shared which
    trained them: public draws begin at it. `keep`: sites whose signed packages stay, by the digest under which they
    accepted the earlier plan. `plans` are those earlier plans by digest. They are no part of the plan's own digest,
    since `trained` and `keep` pin them.
    """

    version: Annotated[int, Field(ge=2, le=10_000)]
    """Number of this version; the first set is 1."""
    previous: Hash
    """sha256 of the manifest of the set that it replaces."""
    trained: Hash | None = None
    """Digest of the study that trained the given models."""
    models: Annotated[dict[str, Hash], Field(max_length=8)] = Field(default_factory=dict)
    """Fingerprint of each given model, by its stage's kind."""
    keep: Annotated[dict[SiteKey, Hash], Field(max_length=256)] = Field(default_factory=dict)
    """Sites whose signed packages stay, by the digest under which they accepted the earlier plan."""
    tombstones: Annotated[list[Tombstone], Field(max_length=1000)] = Field(default_factory=list)
    """What is no longer in the set."""
    plans: Annotated[dict[Hash, dict[str, Any]], Field(max_length=256)] = Field(default_factory=dict)
    """Those earlier plans by digest; no part of the plan's own digest."""


def given_models(plan: Plan) -> dict[str, str]:
    """Fingerprint of each model that `plan` is given, by its stage's kind; nothing where all are trained."""
    return dict(plan.lineage.models) if plan.lineage else {}


def kept_sites(plan: Plan) -> list[str]:
    """Sites whose packages of an earlier version stay in the set, sorted."""
    return sorted(plan.lineage.keep) if plan.lineage else []


def package_sites(plan: Plan) -> list[str]:
    """Every site of which the set has, or can have, a package, sorted."""
    return sorted({*plan.sites, *kept_sites(plan)})


def sources_of(plan: Plan) -> list[tuple[str, str]]:
    """(method, model) of all that the set may hold: the plan's own, then what kept packages have besides."""
    kept = [source for site in kept_sites(plan) for source in plan_of_site(plan, site).sources]
    return list(dict.fromkeys([*plan.sources, *kept]))


def version_of(plan: Plan) -> int:
    """The number of the set's version: 1 without lineage."""
    return plan.lineage.version if plan.lineage else 1


def plan_of_site(plan: Plan, site: str) -> Plan:
    """The plan under which the site's package was made: an earlier one where it is kept, else `plan`.

    Raises ConfigError where the earlier plan is not there, or is another one than is pinned.
    """
    if plan.lineage is None or site not in plan.lineage.keep:
        return plan
    return _earlier(plan, plan.lineage, plan.lineage.keep[site])


def training_plan(plan: Plan) -> Plan:
    """The earlier plan that trained the models which `plan` is given. Raises ConfigError as `plan_of_site`."""
    assert plan.lineage is not None, "models are given by a lineage alone"
    assert plan.lineage.trained is not None, "the schema asks for it where models are given"
    return _earlier(plan, plan.lineage, plan.lineage.trained)


def require_whole(plan: Plan) -> None:
    """Raise ConfigError unless every earlier plan that the lineage pins is there and fits: a site reads all of it."""
    for site in kept_sites(plan):
        earlier = plan_of_site(plan, site)
        if site not in earlier.sites:
            raise ConfigError(f"plan '{plan.study}': the earlier plan of kept site '{site}' does not have that site")
        _require_same_set(plan, earlier)
        if given_models(earlier):
            training_plan(earlier)  # its certificate states what that cost
    if given_models(plan):
        earlier = training_plan(plan)
        _require_same_set(plan, earlier)
        own, trained = ({stage.kind: stage for stage in each.stages} for each in (plan, earlier))
        if other := [kind for kind in given_models(plan) if trained.get(kind) != own[kind]]:
            raise ConfigError(f"plan '{plan.study}': stage '{other[0]}' is not as the plan has it that trained it")
        if not earlier.private:
            raise ConfigError(
                f"plan '{plan.study}': the models were trained with 'private: false', and no epsilon covers what they "
                "hold of anybody who withdrew: train them again"
            )


def without_plans(plan: Plan) -> Plan:
    """The same plan, under the same digest, without the earlier plans in it."""
    if plan.lineage is None:
        return plan
    return plan.model_copy(update={"lineage": plan.lineage.model_copy(update={"plans": {}})})


def check_lineage(plan: Plan) -> None:
    """Raise ValueError with one sentence where a plan's lineage cannot be carried out."""
    lineage = plan.lineage
    if lineage is None:
        if not plan.sites:
            raise ValueError("sites: a plan needs at least one; only a later version that keeps packages goes without")
        return
    if not plan.sites and not lineage.keep:
        raise ValueError("a version of a set needs sites that are asked, or packages that are kept")
    if both := sorted(set(lineage.keep) & set(plan.sites)):
        raise ValueError(f"lineage.keep: '{both[0]}' is a site that is asked as well; its old package stays, or not")
    _check_models(plan, lineage)
    for stone in lineage.tombstones:
        _check_tombstone(plan, lineage, stone)


def _check_models(plan: Plan, lineage: Lineage) -> None:
    if bool(lineage.models) != (lineage.trained is not None):
        raise ValueError("lineage.models and lineage.trained go together: which models, and the study that made them")
    if not lineage.models:
        return
    kinds = [stage.kind for stage in plan.stages]
    if other := [kind for kind in kinds if kind not in GENERATORS]:
        raise ValueError(f"stage '{other[0]}' does not go with given models: the release names them; leave it out")
    if set(kinds) != set(lineage.models):
        raise ValueError("lineage.models gives every model of the plan's stages, or none: they rest on each other")
    for wrong, what in (
        (plan.by_site, "'by_site': models would have parts of sites that are not here"),
        (plan.secure_sum is not None, "'secure_sum': there is nothing to sum; remove it"),
        (plan.budget is not None, "'budget': no noise is to be set; remove it, the stages say what theirs was"),
        (not plan.private, "'private: false': no epsilon covers what they hold; train them again"),
    ):
        if wrong:
            raise ValueError(f"given models do not go with {what}")


def _check_tombstone(plan: Plan, lineage: Lineage, stone: Tombstone) -> None:
    if stone.images not in _IMAGES[stone.what]:
        raise ValueError(f"a tombstone '{stone.what}' says images: {' or '.join(_IMAGES[stone.what])}")
    asked, kept = stone.site in plan.sites, stone.site in lineage.keep
    if stone.what == "patient-withdrew" and not asked:
        raise ValueError(f"a tombstone says that a patient of '{stone.site}' withdrew, and the plan does not ask it")
    if stone.what != "patient-withdrew" and (asked or kept != (stone.images == "stay")):
        raise ValueError(f"a tombstone says of '{stone.site}' what its place in 'sites' and 'keep' does not")


def _earlier(plan: Plan, lineage: Lineage, digest: str) -> Plan:
    if digest not in lineage.plans:
        raise ConfigError(
            f"plan '{plan.study}' lacks the earlier plan {digest[:16]}..., which it builds on; take the file that "
            "'sfumato study rerelease' wrote"
        )
    found = parse(lineage.plans[digest], type(plan), "lineage.plans")
    if digest not in (found.digest, found.study_digest):
        raise ConfigError(f"plan '{plan.study}': lineage.plans has another plan under {digest[:16]}...")
    if found.lineage is None:
        return found
    # it is kept without those that it builds on itself: they are in the same list, once
    return found.model_copy(update={"lineage": found.lineage.model_copy(update={"plans": lineage.plans})})


def _require_same_set(plan: Plan, earlier: Plan) -> None:
    if (earlier.study, earlier.image, earlier.labels) != (plan.study, plan.image, plan.labels):
        raise ConfigError(f"plan '{plan.study}': an earlier version has another name, form of images, or labels")
    if earlier.private != plan.private:
        raise ConfigError(f"plan '{plan.study}': one version says 'private: false' and another does not")
