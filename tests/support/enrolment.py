"""Enrolment by people who compared fingerprints, so that a test of something else need not."""

from pathlib import Path

from sfumato_common.crypto.enrolment import EnrolmentGrant, encode_grant, enrolment_request, store_grant
from sfumato_common.crypto.identity import SiteIdentity
from sfumato_common.crypto.signatures import fingerprint
from sfumato_server.enrol import enrol, load_authority


def enrol_site(home: Path, identity: SiteIdentity, passphrase: bytes | None = None) -> EnrolmentGrant:
    """What the coordinator of `home` grants a site that its plan names and whose fingerprint it was told."""
    told = fingerprint(identity.signing_public)
    return enrol(home, enrolment_request(identity), told, [identity.site], passphrase=passphrase)


def sealed_grant(home: Path, grant: EnrolmentGrant) -> bytes:
    """The grant as the coordinator of `home` sends it."""
    return encode_grant(grant, load_authority(home).signing_key)


def keep_grant(home: Path, identity: SiteIdentity, grant: EnrolmentGrant) -> EnrolmentGrant:
    """What the site keeps of it, having been told the coordinator's fingerprint."""
    return store_grant(identity, sealed_grant(home, grant), fingerprint(load_authority(home).public_key))
