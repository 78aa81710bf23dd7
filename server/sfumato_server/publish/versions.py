"""Which versions of a set were published, and how each stands: one small signed file, to be hosted beside the sets.

    {"statement": {...}, "signature": "hex"}      canonical JSON; the coordinator's key, domain "status"

Every file of a study has a higher sequence number than the one before. Who was shown one takes no older one: an old
file would say of a withdrawn set that it is current.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, model_validator

from sfumato_common.crypto.signatures import fingerprint, sign, verify
from sfumato_common.errors import ConfigError, VerificationError
from sfumato_common.files import canonical_json, read_object, write_atomic, write_json
from sfumato_common.strict import Strict
from sfumato_common.study.lineage import Day, Hash, Tombstone, version_of
from sfumato_common.study.plan import Name, Plan
from sfumato_server.enrol import Authority
from sfumato_server.publish.manifest import COORDINATOR_KEY, FORM, MANIFEST

FILE = "versions.json"
FORMAT: Literal["sfumato-status/1"] = "sfumato-status/1"
State = Literal["current", "superseded", "withdrawn"]
_LARGEST_BYTES = 8 << 20
_BECAME = {
    "stay": "its images stay",
    "regenerated": "its images were made again, without whoever withdrew",
    "removed": "its images were removed",
}


class Version(Strict):
    """One published set: its number, the sha256 of its signed manifest, and how it stands.

    `superseded_by` is the number of the version that took its place, also of one that was withdrawn since.
    """

    number: Annotated[int, Field(ge=1, le=10_000)]
    manifest_sha256: Hash
    created: Day
    state: State
    superseded_by: Annotated[int, Field(ge=1, le=10_000)] | None = None
    tombstones: Annotated[list[Tombstone], Field(max_length=1000)] = Field(default_factory=list)


class SetStatus(Strict):
    """All versions of a study's set, in the order in which they were published; one at most is current."""

    format: Literal["sfumato-status/1"]
    study: Name
    sequence: Annotated[int, Field(ge=1, le=10**9)]
    created: Day
    versions: Annotated[list[Version], Field(min_length=1, max_length=10_000)]

    @model_validator(mode="after")
    def _coherent(self) -> SetStatus:
        manifests = [version.manifest_sha256 for version in self.versions]
        if len(set(manifests)) != len(manifests):
            raise ValueError("a set is listed twice")
        if sum(version.state == "current" for version in self.versions) > 1:
            raise ValueError("two sets are current")
        return self

    def version(self, manifest_sha256: str) -> Version:
        """The version with that manifest. Raises VerificationError for a set that the file does not know."""
        for version in self.versions:
            if version.manifest_sha256 == manifest_sha256:
                return version
        raise VerificationError(
            f"the status file of study '{self.study}' does not know this set; ask the consortium for the newest file"
        )


def manifest_sha256(folder: Path) -> str:
    """sha256 of the signed manifest of the published set in `folder`. Raises ConfigError where there is none."""
    path = folder / MANIFEST
    if not path.is_file():
        raise ConfigError(f"'{folder.name}' is not a published data set: no {MANIFEST}; check the path")
    return hashlib.sha256(path.read_bytes()).hexdigest()


def read_status(data: bytes, coordinator_key: bytes) -> SetStatus:
    """The statement of a status file that the coordinator with that public key (PEM) signed.

    Raises VerificationError for a file that is malformed, or signed with another key.
    """
    try:
        if len(data) > _LARGEST_BYTES:
            raise ValueError("larger than any such file")
        outer = json.loads(data)
        found, signature = SetStatus.model_validate(outer["statement"]), bytes.fromhex(outer["signature"])
        whole = _encode(found, signature) == data
    except (ValidationError, ValueError, RecursionError, TypeError, KeyError):
        raise VerificationError("the status file is malformed; fetch it again") from None
    if not whole:
        raise VerificationError("the status file is not in canonical form; fetch it again")
    try:
        verify(coordinator_key, "status", _signed(found), signature)
    except VerificationError:
        raise VerificationError("the status file was not signed with the coordinator's key; do not trust it") from None
    return found


def require_newest(found: SetStatus, coordinator_key: bytes, seen: Path) -> None:
    """Raise VerificationError when `seen` remembers a newer file of the same study and key; else remember this one."""
    known, name = read_object(seen) or {}, f"{fingerprint(coordinator_key)} {found.study}"
    digest = hashlib.sha256(_signed(found)).hexdigest()
    before = known.get(name)
    if before is not None and found.sequence < before["sequence"]:
        raise VerificationError(
            f"the status file is number {found.sequence} of study '{found.study}', and number {before['sequence']} was "
            "shown here before: fetch the newest one"
        )
    if before is not None and found.sequence == before["sequence"] and digest != before["sha256"]:
        raise VerificationError("two status files have one number and say different things; ask the consortium")
    if before is None or found.sequence > before["sequence"]:
        try:
            seen.parent.mkdir(parents=True, exist_ok=True)
            write_json(seen, {**known, name: {"sequence": found.sequence, "sha256": digest}})
        except OSError as error:
            said = f"'{seen.name}', which remembers the files that were shown, cannot be written ({error.strerror})"
            raise ConfigError(f"{said}; name another with --seen") from None


def seen_file() -> Path:
    """Where this account remembers which status files it was shown."""
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(state) / "sfumato" / "status-seen.json"


def standing_of(
    folder: Path, status: Path, key: Path | None, seen: Path | None = None
) -> tuple[Version, tuple[Version, ...]]:
    """How the set in `folder` stands by the status file, and the versions after it.

    The file must be as new as any that was shown before. A converted set stands as the one that it was made from.
    `key` is the coordinator's public key file; without one the set's own is used, which proves nothing. Raises
    ConfigError, and VerificationError as `read_status`, `require_newest` and `SetStatus.version` do.
    """
    from sfumato_server.publish.converted import STATEMENT

    folder = folder / STATEMENT if (folder / FORM).is_file() else folder
    public = (key or folder / COORDINATOR_KEY).read_bytes()
    try:
        data = status.read_bytes()
    except OSError:
        raise ConfigError(f"status file '{status.name}' cannot be read; check the path") from None
    found = read_status(data, public)
    require_newest(found, public, seen or seen_file())
    own = found.version(manifest_sha256(folder))
    return own, tuple(one for one in found.versions if one.number > own.number)


def standing_lines(version: Version) -> list[str]:
    """How a version stands, for people: a line, and one for each tombstone."""
    by = f" by version {version.superseded_by}" if version.superseded_by else ""
    stones = [f"since {one.since}: {one.site}: {one.what}, {_BECAME[one.images]}" for one in version.tombstones]
    return [f"version {version.number} of {version.created}: {version.state}{by}", *stones]


def lines_of_holder(version: Version, later: Sequence[Version]) -> list[str]:
    """`standing_lines` for who holds the set, and what later versions say of images that are still in it."""
    lines = standing_lines(version)
    told = dict.fromkeys(line for one in later for line in standing_lines(one)[1:])
    lines += [f"said of later versions, {line}" for line in told if line not in lines]
    newest = next((one.number for one in reversed(later) if one.state == "current"), None)
    return (
        [*lines, f"use version {newest}: fetch it, and leave out of your work what is removed or made again"]
        if newest
        else lines
    )


def note_version(path: Path, authority: Authority, plan: Plan, manifest: str) -> SetStatus:
    """Write into the status file at `path` that the set with that manifest is now its study's current version.

    What was current is superseded by it, and what was withdrawn stays so. The same set again is harmless.
    """
    before = _own(path, authority)
    if before and any(one.manifest_sha256 == manifest and one.state == "current" for one in before.versions):
        return before
    number, versions = version_of(plan), list(before.versions) if before else []
    if before and before.study != plan.study:
        raise ConfigError(f"'{path.name}' is of study '{before.study}', and not of '{plan.study}'")
    older = [_superseded(one, number) for one in versions if one.manifest_sha256 != manifest]
    stones = list(plan.lineage.tombstones) if plan.lineage else []
    new = Version(number=number, manifest_sha256=manifest, created=_today(), state="current", tombstones=stones)
    return _write(path, authority, plan.study, before, [*older, new])


def withdraw_version(path: Path, authority: Authority, number: int) -> SetStatus:
    """Write into the status file at `path` that every set of version `number` is withdrawn.

    Raises ConfigError where there is no such version.
    """
    before = _own(path, authority)
    if before is None or all(one.number != number for one in before.versions):
        raise ConfigError(f"no version {number} was published from this home; 'sfumato study status-file' lists them")
    changed = [
        one.model_copy(update={"state": "withdrawn"}) if one.number == number else one for one in before.versions
    ]
    return before if changed == before.versions else _write(path, authority, before.study, before, changed)


def _superseded(one: Version, number: int) -> Version:
    by = one.superseded_by or number
    return one.model_copy(update={"superseded_by": by, "state": "superseded" if one.state == "current" else one.state})


def _own(path: Path, authority: Authority) -> SetStatus | None:
    return read_status(path.read_bytes(), authority.public_key) if path.exists() else None


def _write(
    path: Path, authority: Authority, study: str, before: SetStatus | None, versions: list[Version]
) -> SetStatus:
    values: dict[str, Any] = {"format": FORMAT, "study": study, "created": _today(), "versions": versions}
    new = SetStatus(sequence=before.sequence + 1 if before else 1, **values)
    write_atomic(path, _encode(new, sign(authority.signing_key, "status", _signed(new))))
    return new


def _signed(found: SetStatus) -> bytes:
    return canonical_json(found.model_dump(mode="json"))


def _encode(found: SetStatus, signature: bytes) -> bytes:
    return canonical_json({"statement": found.model_dump(mode="json"), "signature": signature.hex()})


def _today() -> str:
    return datetime.now(UTC).date().isoformat()
