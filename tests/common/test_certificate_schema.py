"""The published schema of certificates is what the models say, and a changed model is a new version."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import jsonschema
import pytest
from support.published import certificate_of

from sfumato_common.evidence import schema
from sfumato_common.evidence.decided import StewardDecisions
from sfumato_common.evidence.run import RunCertificate, RunStatement

FOLDER = Path(__file__).resolve().parents[2] / "docs" / "schema"


def run_certificate():
    said = {"study": "ages", "purpose": "counts", "tool": "somebody", "mechanisms": "stated", "noise": "secure"}
    statement = RunStatement(**said, rests_on=[])
    more = {"site": "alder", "study": "ages", "plan_hash": statement.digest, "statement": statement.model_dump()}
    counted = {"charges": 1, "open": 0, "head": {"number": 3, "hash": "0" * 64}}
    common = json.loads(certificate_of().model_dump_json())
    return RunCertificate.model_validate({**common, "format": "sfumato-run/1", **more, **counted})


def test_the_published_file_is_what_the_code_says():
    """Where this fails a certificate's form has changed: raise VERSION, write the new file, and add its hash."""
    name = f"certificate-{schema.VERSION}.json"
    assert (FOLDER / name).read_bytes() == schema.schema_bytes()
    assert max(schema.PUBLISHED) == schema.VERSION


def test_a_published_version_never_changes():
    assert {path.name for path in FOLDER.iterdir()} == {f"certificate-{number}.json" for number in schema.PUBLISHED}
    for number, digest in schema.PUBLISHED.items():
        data = (FOLDER / f"certificate-{number}.json").read_bytes()
        assert hashlib.sha256(data).hexdigest() == digest, "a published schema was changed: make a new version"


def test_a_changed_model_without_a_new_version_is_found(monkeypatch):
    class Wider(RunCertificate):
        extra: int = 0

    monkeypatch.setattr(schema, "RunCertificate", Wider)
    with pytest.raises(AssertionError):
        test_the_published_file_is_what_the_code_says()


@pytest.mark.parametrize("certificate", [certificate_of(), run_certificate()])
def test_certificates_hold_by_the_schema_and_broken_ones_do_not(certificate):
    published = json.loads((FOLDER / f"certificate-{schema.VERSION}.json").read_bytes())
    jsonschema.Draft202012Validator.check_schema(published)
    validator = jsonschema.Draft202012Validator(published)
    said = json.loads(certificate.model_dump_json())
    validator.validate(said)
    for broken in ({**said, "unit": "image"}, {**said, "delta": 2.0}, {**said, "surprise": 1}):
        with pytest.raises(jsonschema.ValidationError):
            validator.validate(broken)


def decisions():
    """One refusal, as a site's dossier has it."""
    charge = {"entry": 3, "cohort": "train", "what": "steward's word"}
    said = {"at": "2026-11-28T12:00:00+00:00", "release": "ages/declared", "part": "declared", "verdict": "refuse"}
    said |= {"ground": "quality", "steward": "abcd-efgh-2345-mnop-qrst", "sets": ["1" * 64], "charged": [charge]}
    head = {"site": "alder", "study": "ages", "plan_hash": "2" * 64, "head": "0" * 64}
    return StewardDecisions.model_validate({**head, "decisions": [{**said, "row": "3" * 64}]})


def test_decisions_hold_by_the_newest_schema_and_certificates_of_the_first_still_do():
    first, newest = (
        jsonschema.Draft202012Validator(json.loads((FOLDER / f"certificate-{number}.json").read_bytes()))
        for number in (1, schema.VERSION)
    )
    said = json.loads(decisions().model_dump_json())
    newest.validate(said)
    assert not first.is_valid(said)
    for broken in ({**said, "steward": "ada"}, {**said, "decisions": [{**said["decisions"][0], "steward": "ada"}]}):
        assert not newest.is_valid(broken)
    for certificate in (certificate_of(), run_certificate()):
        known = json.loads(certificate.model_dump_json())
        first.validate(known)
        newest.validate(known)
