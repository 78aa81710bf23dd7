"""The coordinator's home for sites of this machine: its keys, who is enrolled, and what they deliver."""

from __future__ import annotations

from pathlib import Path

from sfumato_common.crypto.enrolment import EnrolmentGrant, read_request
from sfumato_common.crypto.signatures import fingerprint
from sfumato_common.files import write_atomic, write_json
from sfumato_common.study.plan import Plan
from sfumato_server.coordinator.home import CoordinatorHome
from sfumato_server.enrol import Registry, create_authority, enrol
from sfumato_server.intake.admission import admit, package_path


def make_coordinator(root: Path, plan: Plan, passphrase: bytes | None = None) -> CoordinatorHome:
    """A home with keys of its own that holds `plan`; `passphrase` as `create_authority` has it."""
    home = CoordinatorHome(root)
    create_authority(home.root, passphrase=passphrase)
    write_json(home.plan_file, plan.model_dump(mode="json"))
    return home


def enrol_local(home: Path, request: bytes, passphrase: bytes | None = None) -> EnrolmentGrant:
    """Enrol the site of `request`, which was made on this machine: nobody has to telephone."""
    read = read_request(request)
    return enrol(home, request, fingerprint(read.signing_key.encode()), [read.site], passphrase=passphrase)


def take_package(home: CoordinatorHome, plan: Plan, site: str, data: bytes) -> None:
    """Admit a package as the intake does, and keep it. Raises VerificationError."""
    head = admit(data, plan, Registry(home.root).record_in_force(site)).head
    write_atomic(package_path(home.root, site, head.part, head.shard), data)
