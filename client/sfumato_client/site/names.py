"""The names of a site: its own, and those that it goes by in studies where its policy asks for a pseudonym.

A pseudonym has its folder below `names/`: keys like the site's own, and the statement that binds both. Which one is in
use stands in `known-as`, of the home or, where each study is to have its own, of the link.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from sfumato_common.crypto.enrolment import enrolment_request
from sfumato_common.crypto.identity import SiteIdentity, create_identity, load_identity
from sfumato_common.crypto.pseudonyms import bind_names, draw_name, tells
from sfumato_common.errors import ConfigError, PolicyRefusal
from sfumato_common.files import make_private_folder, write_atomic
from sfumato_common.study.lineage import package_sites
from sfumato_common.study.plan import Plan
from sfumato_common.study.policy import Policy

if TYPE_CHECKING:
    from sfumato_client.site.home import SiteHome

NAMES, KNOWN_AS, BINDING, REQUEST = "names", "known-as", "binding.json", "enrolment-request.json"


def known_as(home: SiteHome, own: Policy) -> str:
    """The name by which studies of this link know the site whose own policy is `own`.

    Raises ConfigError where policy asks for a pseudonym and none was drawn.
    """
    if own.name == "shown":
        return own.site
    try:
        return _file(home, own).read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        which = f" --study {home.study}" if home.study and own.name == "pseudonym-per-study" else ""
        raise ConfigError(
            f"policy says 'name: {own.name}' and no pseudonym was drawn; run 'sfumato-site pseudonym{which}' first"
        ) from None


def keys_of(home: SiteHome) -> Path:
    """The folder of the keys that studies of this link know: the site's own, or its pseudonym's."""
    own = home.own_policy()
    return home.identity if own.name == "shown" else home.root / NAMES / known_as(home, own)


def draw_pseudonym(home: SiteHome, rotate: bool = False) -> SiteIdentity:
    """Draw the pseudonym that policy asks for here, and write its enrolment request beside the home's or link's files.

    Raises ConfigError where policy shows the name, where one was drawn and `rotate` is not said, or where an accepted
    plan knows the site by the old one.
    """
    own = home.own_policy()
    if own.name == "shown":
        raise ConfigError("policy shows this site's name: a pseudonym needs 'name: pseudonym' or 'pseudonym-per-study'")
    kept = _file(home, own)
    if kept.exists():
        old = known_as(home, own)
        if not rotate:
            raise ConfigError(f"this site goes by '{old}' already; --rotate draws another one, for later studies")
        links = [home] if own.name == "pseudonym-per-study" else home.links
        if held := [plan.study for link in links for plan in link.readable_plans() if old in plan.sites]:
            raise ConfigError(f"study '{held[0]}' knows this site by '{old}'; when it is over, 'sfumato-site leave' it")
    name = draw_name()
    make_private_folder(home.root / NAMES)
    second = create_identity(home.root / NAMES / name, name)
    write_atomic(second.folder / BINDING, bind_names(load_identity(home.identity), second), mode=0o600)
    make_private_folder(kept.parent)
    write_atomic(kept, name + "\n", mode=0o600)
    return second


def write_request(home: SiteHome) -> Path:
    """Write what the coordinator of this link is to enrol: the site, or its pseudonym with whose it is."""
    identity, path = load_identity(home.keys), home.link / REQUEST
    held = identity.folder / BINDING
    make_private_folder(home.link)
    write_atomic(path, enrolment_request(identity, held.read_bytes() if held.exists() else None), mode=0o600)
    return path


def bindings(root: Path) -> list[str]:
    """The statements of all pseudonyms that a home ever had."""
    return [path.read_text(encoding="ascii") for path in sorted((root / NAMES).glob(f"*/{BINDING}"))]


def names_of(root: Path, site: str) -> list[str]:
    """All names that a home ever had, its own first."""
    return [site, *(path.parent.name for path in sorted((root / NAMES).glob(f"*/{BINDING}")))]


def name_in(home: SiteHome, plan: Plan) -> str:
    """The name by which `plan` knows this site; the one that the link has now where it knows none."""
    known, own = package_sites(plan), home.own_policy()
    now = own.site if own.name != "shown" and not _file(home, own).exists() else known_as(home, own)
    return next((name for name in (now, *names_of(home.root, own.site)) if name in known), now)


def require_nameless(home: SiteHome, plan: Plan) -> None:
    """Raise PolicyRefusal where accepting `plan` would tell whose this site's pseudonym is, or link two."""
    own = home.own_policy()
    if own.name == "shown":
        return
    name = home.policy().site
    if (told := next(_told(plan.model_dump(mode="json"), own.site), None)) is not None:
        raise PolicyRefusal(
            f"policy says 'name: {own.name}', and the plan has this site's own name '{own.site}' at '{told}': "
            "everybody reads the plan; ask for one that has it nowhere"
        )
    if len(twice := [known for known in names_of(home.root, own.site) if known in plan.sites]) > 1:
        raise PolicyRefusal(f"the plan asks this site twice, as {' and '.join(twice)}; its patients would pay twice")
    beside = [known.study for link in home.links for known in link.readable_plans() if name in known.sites]
    if own.name == "pseudonym-per-study" and (known := sorted(set(beside) - {plan.study})):
        raise PolicyRefusal(
            f"policy says 'name: pseudonym-per-study', and study '{known[0]}' knows this site by '{name}': take part "
            f"in '{plan.study}' under --study WORD, with a pseudonym of its own"
        )


def _told(value: object, name: str, where: str = "") -> Iterator[str]:
    """The places at which a plan says `name`, in keys and values."""
    if isinstance(value, dict):
        for key, item in value.items():
            at = f"{where}.{key}".lstrip(".")
            if tells(str(key), name):
                yield at
            yield from _told(item, name, at)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _told(item, name, where)
    elif isinstance(value, str) and tells(value, name):
        yield where


def _file(home: SiteHome, own: Policy) -> Path:
    return (home.link if own.name == "pseudonym-per-study" else home.root) / KNOWN_AS
