"""A table's certificate: of the common type, signed by the site, and recomputed from the exported ledger."""

from __future__ import annotations

import csv
import hashlib
import json
import sys

import numpy as np
import pytest
import yaml

from sfumato_client.cli import main as cli
from sfumato_client.ledger.check import check_table
from sfumato_client.site.home import SiteHome
from sfumato_client.tabular.run import run_tabular
from sfumato_client.tabular.schema import TableSchema
from sfumato_common.crypto.identity import create_identity, load_identity
from sfumato_common.crypto.signatures import sign, verify
from sfumato_common.errors import LedgerError, VerificationError
from sfumato_common.strict import parse
from sfumato_common.study.certificate import Certificate
from sfumato_common.tabular.certificate import CERTIFICATE, SIGNATURE, TABLE, TableCertificate, open_certificate

pytestmark = pytest.mark.filterwarnings("ignore:TestNoise")
POLICY = {
    "site": "alder",
    "budget": {"epsilon": 60.0, "delta": 1e-5},
    "allowed_stages": ["spectral"],
    "minimum_patients": 10,
    "release": {"allowed_methods": ["cadp"], "largest_set": 1000},
    "noise": "test",
}
SCHEMA = {
    "table": "ward",
    "rows": 30,
    "privacy": {"epsilon": 30.0},
    "rows_are_patients": True,
    "columns": {name: {"kind": "numeric", "low": 0.0, "high": 1.0} for name in ("a", "b", "c")},
    "release": {"mechanism": "gaussian", "clip": "l2", "noise_multiplier": 1.5},
    "training": {"steps": 3, "hidden": 8, "couplings": 2, "noise_multiplier": 2.0, "nominal_patients": 40},
}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A site's home, and the folder of one table whose every mechanism both accountants know."""
    root = tmp_path_factory.mktemp("tables")
    home, source = root / "home", root / "in.csv"
    create_identity(home / "identity", "alder")
    (home / "identity" / "split.key").write_text("07" * 32)
    (home / "policy.yaml").write_text(yaml.safe_dump(POLICY))
    with source.open("w", newline="") as stream:
        csv.writer(stream).writerows([list("abc"), *np.random.default_rng(0).random((60, 3)).round(3).tolist()])
    run_tabular(SiteHome(home), source, parse(SCHEMA, TableSchema, "test"), root / "out", report=False)
    return SiteHome(home), root / "out"


@pytest.fixture(scope="module")
def export(made):
    with made[0].open_ledger() as ledger:
        return ledger.export()


@pytest.fixture
def key(made):
    return load_identity(made[0].identity)


def files(folder):
    return tuple((folder / name).read_bytes() for name in (CERTIFICATE, SIGNATURE, TABLE))


def changed(signed, key, **fields):
    """The same certificate with other fields, signed by the site itself."""
    data = TableCertificate.model_validate({**json.loads(signed[0]), **fields}).encode()
    return data, key.sign_table(data), signed[2]


def test_it_is_a_certificate_epsilon_first_with_what_a_table_adds(made, key):
    signed = files(made[1])
    stated = open_certificate(*signed, key.signing_public)
    assert isinstance(stated, Certificate) and not stated.formal  # test noise
    assert list(json.loads(signed[0]))[:4] == ["epsilon", "delta", "unit", "adjacency"]
    assert stated.table_sha256 == hashlib.sha256(signed[2]).hexdigest()
    assert (stated.site, stated.study, stated.rows, stated.method) == ("alder", "table-ward", 30, "cadp")
    assert [line["mechanism"] for line in stated.mechanisms["train"]] == [
        "SampledGaussian",
        "GaussianRelease",
        "LocalGaussian",
    ]
    assert stated.mechanisms["holdout"] == stated.mechanisms["train"]  # nobody can tell who is held out from images


def test_its_epsilons_recompute_from_the_exported_ledger(made, export, key):
    report = check_table(export, *files(made[1]), key.signing_public)
    report.require()
    assert [figure.holds for figure in report.figures] == [True] * 18
    assert (report.study, report.signature_checked, report.approved) == ("table-ward", True, None)
    assert (report.pending, report.unsettled) == (0, 0)
    assert not check_table(export, *files(made[1]), None).signature_checked


def test_a_signature_for_another_purpose_or_of_another_site_does_not_serve(made, export, key, tmp_path):
    data, signature, table = files(made[1])
    verify(key.signing_public, "table", data, signature)
    for wrong in (key.sign_package(data), sign(create_identity(tmp_path, "alder").signing_key, "table", data)):
        with pytest.raises(VerificationError, match="table signature"):
            check_table(export, data, wrong, table, key.signing_public)


@pytest.mark.parametrize(
    "change",
    [
        lambda data: data[:-1],
        lambda data: data + b" ",
        lambda data: json.dumps(json.loads(data)).encode(),
        lambda data: data.replace(b'"rows": 30', b'"rows": 30,\n  "rows": 30'),
        lambda data: data.replace(b'"rows": 30', b'"rows": 31', 1).replace(b'"patient"', b'"image"'),
        lambda data: data.replace(b'"noise": "test"', b'"noise": "none"'),
        lambda data: data.replace(b'"delta": 1e-05', b'"delta": NaN'),
        lambda data: b"[]",
        lambda data: b"\xff",
    ],
)
def test_a_certificate_off_its_form_is_refused_also_where_it_is_signed(made, export, key, change):
    data, _, table = files(made[1])
    other = change(data)
    assert other != data
    with pytest.raises(VerificationError):
        check_table(export, other, key.sign_table(other), table, key.signing_public)
    with pytest.raises(VerificationError):
        check_table(export, other, b"", table, None)


def test_another_table_beside_it_is_found_by_the_certificate_and_by_the_ledger(made, export, key):
    signed = files(made[1])
    other = signed[2].replace(b"0.", b"1.", 1)
    with pytest.raises(VerificationError, match=TABLE):
        check_table(export, *signed[:2], other, key.signing_public)
    # and where the site's own key signs for it, the ledger still knows what was made under these charges
    forged = changed(signed, key, table_sha256=hashlib.sha256(other).hexdigest())
    with pytest.raises(LedgerError, match="another table"):
        check_table(export, *forged[:2], other, key.signing_public)


def test_an_epsilon_that_was_made_smaller_or_a_charge_left_out_is_found(made, export, key):
    signed = files(made[1])
    epsilon = json.loads(signed[0])["epsilon"]
    epsilon["train"]["add_remove"] -= 2e-3
    report = check_table(export, *changed(signed, key, epsilon=epsilon), key.signing_public)
    with pytest.raises(LedgerError, match="recomputed"):
        report.require()
    lines = json.loads(signed[0])["mechanisms"]["train"][:1]
    short = changed(signed, key, mechanisms={"train": lines, "holdout": []})
    with pytest.raises(LedgerError, match="more than the certificate states"):
        check_table(export, *short, key.signing_public)
    elsewhere = changed(signed, key, plan_hash="0" * 64)
    with pytest.raises(LedgerError, match="no charge under the certificate's plan"):
        check_table(export, *elsewhere, key.signing_public)
    stranger = changed(signed, key, site="birch")
    with pytest.raises(VerificationError, match="another site"):
        check_table(export, *stranger, key.signing_public)


def test_the_command_checks_a_folder(made, export, tmp_path, monkeypatch, capsys):
    (tmp_path / "ledger.json").write_bytes(export)

    def say(*words):
        monkeypatch.setattr(sys, "argv", ["sfumato-site", "ledger", "check", *map(str, words)])
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        captured = capsys.readouterr()
        return stopped.value.code or 0, captured.err.strip(), captured.out

    code, _, said = say(tmp_path / "ledger.json", made[1], "--home", made[0].root)
    assert (code, said.count("holds")) == (0, 18)
    assert "the table's signature hold" in said and "TEST NOISE" in said and "table-ward" in said
    assert "NO signature was checked" in say(tmp_path / "ledger.json", made[1])[2]
    code, line, _ = say(tmp_path / "ledger.json", tmp_path)
    assert (code, CERTIFICATE in line) == (2, True)
