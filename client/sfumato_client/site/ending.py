"""The ends of a site's part: a plan that is taken back before it cost anything, and a home of which little is left."""

from __future__ import annotations

import shutil
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from sfumato_client.ledger.behind import require_current
from sfumato_client.ledger.copies import close_ledger
from sfumato_client.ledger.storage import now
from sfumato_client.site.accepted import ENDED, read_plan
from sfumato_client.site.erasing import nothing_runs, overwrite, require_idle
from sfumato_client.site.home import PUBLIC_KEY, SiteHome
from sfumato_client.site.names import BINDING, NAMES
from sfumato_client.site.restored import notice_copy
from sfumato_client.site.store_key import own_store_key
from sfumato_common.crypto.identity import NAME_FILE, load_identity
from sfumato_common.errors import ConfigError, PolicyRefusal
from sfumato_common.files import write_atomic
from sfumato_common.locks import exclusive
from sfumato_common.study.plan import Plan

# what `remove` keeps, and why
KEPT = {
    "ledger.sqlite": "what every patient paid, and the approvals that this site signed: the account for an authority",
    "ledger.sqlite.head": "that the ledger is whole",
    "members": "pseudonyms of who was charged in which cohort; nobody can tell whose without the split key",
    "policy.yaml": "the budget and the rules under which all of that was let go",
    "plans": "the plans that the charges stand under",
    "studies": "the plans of further coordinators",
    PUBLIC_KEY: "the key that certificates and packages of this site are checked by",
    NAMES: "whose this site's pseudonyms were: packages and exports of studies under them are checked by that",
    "identity": "the split key alone: by it a patient who comes back is known; '--forget-patients' erases it",
}


@dataclass(frozen=True)
class Removed:
    """Names in the home that were erased, and those that are kept."""

    erased: tuple[str, ...]
    kept: tuple[str, ...]


def unaccept(home: SiteHome, study: str) -> list[Plan]:
    """Take back that plans of that study were accepted, in versions which charged nothing: their name is free again.

    Raises ConfigError where no such study is accepted, PolicyRefusal for one that was charged, LedgerError where the
    ledger may not know it, and BusyError while its coordinator's node runs or a question is worked on.
    """
    notice_copy(home)
    require_current(home.ledger_file)
    found = [(link, path, read_plan(path)) for link in home.links for path in _plan_files(link)]
    mine = [(link, path, plan) for link, path, plan in found if plan.study == study]
    if not mine:
        raise ConfigError(f"no study '{study}' is accepted here; 'sfumato-site status' names those that are")
    with ExitStack() as held:
        for folder in {link.link for link, _, _ in mine}:
            held.enter_context(exclusive(folder, "the site's node ('sfumato-site run')"))
        require_idle(home)  # a launched job may outlive the node, and charge
        with home.open_ledger() as ledger:
            charged = {entry.plan_hash for entry in ledger.entries()}
            charged |= {plan.digest for _, _, plan in mine if ledger.approvals(plan.digest)}
        free = [(link, path, plan) for link, path, plan in mine if plan.digest not in charged]
        free = [(link, path, plan) for link, path, plan in free if not _has_traces(link, plan)]
        if not free:
            raise PolicyRefusal(
                f"'{study}' was charged to patients here, or something was let go, and stays in the ledger: "
                "'sfumato-site leave' ends it, and another plan needs another name or version"
            )
        for link, path, plan in free:
            path.unlink()
            shutil.rmtree(link.sums(plan), ignore_errors=True)
    return [plan for _, _, plan in free]


def remove(home: SiteHome, forget_patients: bool = False) -> Removed:
    """Erase all of a home that is not its account, and close its ledger for good.

    Raises BusyError while anything runs, ConfigError while the store's key is kept elsewhere, or where this was done.
    """
    if (home.root / PUBLIC_KEY).exists() and not (home.identity / NAME_FILE).exists():
        raise ConfigError(
            "this home was removed before: what is left is its account, which 'sfumato-site ledger show' reads; delete "
            "the folder when that is kept elsewhere"
        )
    path = own_store_key(home.identity)
    if path is None and home.store.exists():
        raise ConfigError("the store's key is mounted from elsewhere: erase it where it is kept, and say none here")
    with nothing_runs(home):
        if not (home.root / PUBLIC_KEY).exists():  # else a removal was killed: of the identity not all is there
            write_atomic(home.root / PUBLIC_KEY, load_identity(home.identity).signing_public)
        with home.open_ledger() as ledger:
            ledger.verify()
        close_ledger(home.ledger_file, now(), "nowhere")
        _overwrite_all(home.identity, spared="" if forget_patients else "split.key")
        _overwrite_all(home.root / NAMES, spared=BINDING)
        kept = KEPT if not forget_patients else {name: why for name, why in KEPT.items() if name != "identity"}
        erased = [one for one in sorted(home.root.iterdir()) if not _stays(one, home, kept)]
        for one in erased:
            _erase(one)
        for link in home.links[1:]:
            for one in link.link.iterdir():
                if one.name != "plans":
                    _erase(one)
    left = tuple(name for name in kept if (home.root / name).exists())
    return Removed(tuple(one.name for one in erased), left)


def _plan_files(link: SiteHome) -> list[Path]:
    return sorted([*link.plans.glob("*.json"), *link.plans.glob(f"*{ENDED}")])


def _has_traces(link: SiteHome, plan: Plan) -> bool:
    """Whether an answer or a release of the plan lies here, whatever the ledger says."""
    return any(link.outbox.glob(f"{plan.digest[:16]}*")) or (link.releases / plan.digest[:16]).exists()


def _stays(one: Path, home: SiteHome, kept: dict[str, str]) -> bool:
    return one.name in kept or one.name.startswith(home.ledger_file.name)


def _overwrite_all(folder: Path, spared: str) -> None:
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name != spared:
            overwrite(path)


def _erase(one: Path) -> None:
    if one.is_dir() and not one.is_symlink():
        shutil.rmtree(one, ignore_errors=True)
    else:
        one.unlink(missing_ok=True)
