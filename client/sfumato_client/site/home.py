"""The site's home folder: policy, identity, store, ledger, pinned plans, outbox and logs; nothing of it leaves."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from sfumato_client.dataset import Cohort, IngestReport, SiteStore, StoreFacts
from sfumato_client.dataset.content import Content
from sfumato_client.ingest import SiteImage, Skipped
from sfumato_client.ledger import Ledger
from sfumato_client.ledger.changing import check_cohort
from sfumato_client.ledger.copies import mark_restored, read_restored
from sfumato_client.ledger.held import hold_cohort, require_cohort
from sfumato_client.site.accepted import ENDED, read_address, read_plan, read_policy, require_free_name
from sfumato_client.site.names import bindings, keys_of, known_as, names_of
from sfumato_client.site.store_key import make_store_key, read_split_key, read_store_key
from sfumato_common.accounting.events import Cohort as CohortName
from sfumato_common.crypto.identity import load_identity
from sfumato_common.errors import ConfigError, DataError, PolicyRefusal
from sfumato_common.files import write_json
from sfumato_common.study.plan import Plan
from sfumato_common.study.policy import Policy

ADDRESS_FILE, LINKS = "address.json", "studies"
PUBLIC_KEY = "site-public-key.pem"  # all that a removed home keeps of its identity


@dataclass(frozen=True)
class SiteHome:
    """Paths below one folder, and the few files that are read from it everywhere.

    A site may take part in studies of several coordinators at once: patients, keys, policy and ledger are one, and what
    belongs to a coordinator stands apart. `study` is the site's own word for one of them, '' for the first.
    """

    root: Path
    study: str = ""

    @property
    def link(self) -> Path:
        """What belongs to one coordinator: its address and grant, accepted plans, the processes' files and logs."""
        return self.root / LINKS / self.study if self.study else self.root

    @property
    def links(self) -> list[SiteHome]:
        """This home with every coordinator that it is enrolled with or accepted a plan of."""
        others = sorted(path.name for path in (self.root / LINKS).glob("*") if path.is_dir())
        return [SiteHome(self.root), *(SiteHome(self.root, name) for name in others)]

    @property
    def grant(self) -> Path:
        """The folder of the certificates that the coordinator's grant brought."""
        return self.link if self.study else self.keys

    @property
    def keys(self) -> Path:
        """The keys that studies of this coordinator know: the site's own, or those of its pseudonym."""
        return keys_of(self)

    @property
    def plans(self) -> Path:
        """Plans that were accepted from this coordinator."""
        return self.link / "plans"

    @property
    def identity(self) -> Path:
        """The site's own keys: all that stays here is signed by them, and what leaves where its name is shown."""
        return self.root / "identity"

    @property
    def store(self) -> Path:
        """The site's images by patient."""
        return self.root / "store"

    @property
    def ingesting(self) -> Path:
        """The folder whose lock an ingest holds."""
        return self.root / "ingesting"

    @property
    def incoming(self) -> Path:
        """What came from a PACS, to be read by an ingest."""
        return self.root / "incoming"

    @property
    def ledger_file(self) -> Path:
        """The privacy ledger."""
        return self.root / "ledger.sqlite"

    @property
    def epsilons(self) -> Path:
        """What plans would cost, as this site computed it; no charge reads it."""
        return self.root / "epsilons"

    @property
    def worker_secret(self) -> Path:
        """What the SuperNode and the worker share, new at every start, so that no other process takes messages."""
        return self.link / "worker.secret"

    @property
    def work_file(self) -> Path:
        """The last question: what it asks, how far the work on it is, what became of it; for the site's own people."""
        return self.link / "work.json"

    @property
    def node_file(self) -> Path:
        """What the node is doing, in a word, and since when."""
        return self.link / "node.json"

    @property
    def outbox(self) -> Path:
        """Messages and packages that left, byte for byte: what is sent again when a request is repeated."""
        return self.root / "outbox"

    @property
    def last_received(self) -> Path:
        """What came last from the coordinator, to hold what comes next against."""
        return self.root / "seen"

    @property
    def starts(self) -> Path:
        """Pinned public starts that the site was given, by their sha256: for stages that it joins late."""
        return self.root / "starts"

    @property
    def received(self) -> Path:
        """Arrays that came from the coordinator, which then sends their digests."""
        return self.root / "received"

    @property
    def grouping_file(self) -> Path:
        """Who shares a group with whom, frozen: never leaves."""
        return self.root / "groups" / "groups.json"

    @property
    def style_net(self) -> Path:
        """Weights of k-SALSA's style net, where the site was given some."""
        return self.root / "style-net.safetensors"

    @property
    def releases(self) -> Path:
        """Releases as they grow, a folder a plan."""
        return self.root / "releases"

    @property
    def stewards(self) -> Path:
        """Keys of the people who decide about releases, each under a passphrase."""
        return self.root / "stewards"

    def sums(self, plan: Plan) -> Path:
        """The folder of the keys and shares of `plan`'s secure sums: secrets of this site."""
        return self.root / "sums" / plan.digest[:16]

    def turns(self, plan: Plan) -> Path:
        """The folder whose lock a process holds while it works on a question of `plan`."""
        return self.root / "turns" / plan.digest[:16]

    @property
    def steward_folder(self) -> Path:
        """Reports and error details for the steward's eyes only."""
        return self.link / "local"

    @property
    def logs(self) -> Path:
        """Logs of the site's processes."""
        return self.link / "logs"

    def own_policy(self) -> Policy:
        """The site's own policy, as its file has it. Raises ConfigError when it is absent or wrong."""
        return read_policy(self.root / "policy.yaml")

    def policy(self) -> Policy:
        """The policy with the name by which studies of this coordinator know the site. Raises ConfigError."""
        return (own := self.own_policy()).model_copy(update={"site": known_as(self, own)})

    def open_ledger(self) -> Ledger:
        """The privacy ledger under the policy's budget, open to charges without privacy for the studies it names."""
        policy = self.own_policy()
        named = frozenset(policy.nonprivate_studies)
        ledger = Ledger.open(self.ledger_file, policy.budget, site=policy.site, nonprivate_studies=named)
        ledger.bindings, ledger.names = bindings(self.root), names_of(self.root, policy.site)
        ledger.accepted = [plan for home in self.links for plan in home.readable_plans()]
        return ledger

    def open_store(self) -> SiteStore:
        """The site's images. Raises DataError when nothing was ingested."""
        return SiteStore.open(self.store, self.store_key())

    def ingest(self, images: Iterable[SiteImage | Skipped], plan: Plan) -> IngestReport:
        """Fill the store from readers' output. Raises DataError and PolicyRefusal as `check_cohort` does."""
        with self.open_ledger() as ledger:
            keys, check = (self.split_key(), make_store_key(self.identity)), partial(check_cohort, ledger)
            return SiteStore.create(self.store, images, plan.image, plan.labels, *keys, check)

    def charged_cohorts(self, plan: Plan, ledger: Ledger, *names: CohortName) -> list[Cohort]:
        """Cohorts for an open charge, their patients bound to them in the ledger first; the only way to real images.

        Raises DataError when the store does not fit the plan, or holds a patient who was charged in the other cohort.
        """
        store = self.open_store()
        store.facts.require(plan.image, plan.labels)
        ledger.bind(store.members(*names))
        hold_cohort(ledger, plan, Content(self.store, self.store_key(), self.split_key()))
        return [store.cohort(name) for name in names]

    def require_fitting_store(self, plan: Plan) -> None:
        """Raise DataError unless the store was ingested for images and labels as `plan` has them.

        Raises PolicyRefusal where the plan has begun with another cohort.
        """
        StoreFacts.read(self.store, self.store_key()).require(plan.image, plan.labels)
        with self.open_ledger() as ledger:
            require_cohort(ledger, plan, Content(self.store, self.store_key(), self.split_key()))

    def public_key(self) -> bytes | None:
        """The key that this site signs with, or signed with before it was removed, as PEM; None before `init`."""
        if (kept := self.root / PUBLIC_KEY).exists():
            return kept.read_bytes()
        return load_identity(self.identity).signing_public if self.identity.exists() else None

    def split_key(self) -> bytes:
        """The secret that keys the patient split; made at `init`."""
        return read_split_key(self.identity)

    def store_key(self) -> bytes:
        """The key under which the store lies on the disk. Raises DataError where there is no store, or ConfigError."""
        if not self.store.exists():
            raise DataError("store 'store' is missing: no images were ingested here; run 'sfumato-site ingest' first")
        return read_store_key(self.identity)

    def pin(self, plan: Plan) -> None:
        """Accept `plan`: from now on requests under its hash are carried out, all others refused.

        Of a plan that others may join nothing is kept of their entries: no code of the site can then depend on one.
        Raises PolicyRefusal when another plan of the same name and version was accepted before: it is another study.
        """
        plan = plan.at_site(self.policy().site)
        require_free_name([home.plans for home in self.links], self.plans, plan)
        if (mark := read_restored(self.ledger_file)) is not None:  # it may have been charged since the backup
            mark_restored(self.ledger_file, mark.at, mark.by, [plan.digest])
        write_json(self.plans / f"{plan.digest}.json", plan.model_dump(mode="json"))
        (self.plans / f"{plan.digest}{ENDED}").unlink(missing_ok=True)

    def leave(self, study: str) -> None:
        """Take no further part in a study, by name, in all its versions; charges stay. Raises ConfigError for none."""
        left = [(home, plan) for home in self.links for plan in home.readable_plans() if plan.study == study]
        if not left:
            raise ConfigError(f"no study '{study}' is accepted here; 'sfumato-site status' names those that are")
        for home, plan in left:
            (home.plans / f"{plan.digest}.json").replace(home.plans / f"{plan.digest}{ENDED}")
            shutil.rmtree(self.sums(plan), ignore_errors=True)

    def accepted_plan(self, plan_hash: str) -> Plan:
        """The plan of that hash, accepted from this coordinator. Raises PolicyRefusal when there is none."""
        path = self.plans / f"{plan_hash}.json"
        if not path.exists():
            raise PolicyRefusal("the request's plan was not accepted here; run 'sfumato-site accept' to review it")
        return read_plan(path)

    def accepted_anywhere(self, plan_hash: str) -> Plan:
        """As `accepted_plan`, from whichever coordinator: the ledger is one."""
        holder = [home for home in self.links if (home.plans / f"{plan_hash}.json").exists()]
        return (holder[0] if holder else self).accepted_plan(plan_hash)

    def readable_plans(self) -> list[Plan]:
        """The accepted plans of this coordinator, without files that were damaged: their questions are refused."""
        found = []
        for path in sorted(self.plans.glob("*.json")):
            with contextlib.suppress(PolicyRefusal):
                found.append(self.accepted_plan(path.stem))
        return found

    def coordinator_address(self) -> str:
        """host:port of the coordinator. Raises ConfigError before `join`."""
        return read_address(self.link / ADDRESS_FILE)
