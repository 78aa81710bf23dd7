"""Figures that somebody measured afterwards: drawn in an unsigned copy of the report, and in nothing that is signed."""

import json

import pytest
from support.carded import published_set
from typer.testing import CliRunner

from sfumato_common.errors import ConfigError, VerificationError
from sfumato_server.cli.main import app
from sfumato_server.publish import open_folder, verify_dataset
from sfumato_server.publish.cards.again import facts_of
from sfumato_server.publish.chart import draw
from sfumato_server.publish.outside import read_outside, write_report
from sfumato_server.publish.versions import manifest_sha256


@pytest.fixture(scope="module")
def folder(founded, tmp_path_factory):
    return published_set(founded, tmp_path_factory.mktemp("outside"), 12)


@pytest.fixture
def figures(folder, tmp_path):
    """An evaluation's file, and a function that writes it with other values."""
    line = {"figure": "methods", "of": "quick: AUC of dp-sampling (spectral)", "subject": "dp-sampling (spectral)"}
    line |= {"value": 0.81, "low": 0.7, "high": 0.9, "real": 0.95, "real_low": 0.9, "real_high": 0.99, "note": ""}
    values = {
        "manifest_sha256": manifest_sha256(folder),
        "by": "the <b>institute</b>",
        "index": "public.csv",
        "data": "declared public",
        "split": "test",
        "patients": {"train": 40, "tested": 30},
        "figures": [line, {"figure": "tstr", "of": "quick: AUC", "value": 0.5}],
        "seeds": 1,
    }

    def write(**other):
        (tmp_path / "evaluation.json").write_text(json.dumps({**values, **other}))
        return tmp_path / "evaluation.json"

    return write


def test_the_copy_draws_them_and_says_by_whom_and_on_what(folder, figures, tmp_path):
    words = ["dataset", "card", folder, "--figures", figures(), "--out", tmp_path / "cards", "--json"]
    done = CliRunner().invoke(app, [*map(str, words)])
    assert done.exit_code == 0, done.output
    assert "report.html" in json.loads(done.stdout)["written"]
    page, signed = (tmp_path / "cards/report.html").read_text(), (folder / "report.html").read_text()
    assert "0.810 (0.700 to 0.900)" in page and "real images: 0.950 (0.900 to 0.990)" in page
    assert "Not signed: figures that were measured afterwards" in page
    assert (
        "Measured by the &lt;b&gt;institute&lt;/b&gt; on 30 patients of &#39;public.csv&#39; (test), declared public"
        in page
    )
    assert "<b>institute" not in page
    for text in ("0.810", "afterwards", "institute"):
        assert text not in signed
    begin, end = "<!-- privacy against use -->", "<!-- end of privacy against use -->"
    assert page.split(begin)[0] == signed.split(begin)[0] and page.split(end)[1] == signed.split(end)[1]
    assert verify_dataset(folder).images == 36


def test_a_picture_says_in_words_which_marks_were_measured_afterwards(folder, figures):
    facts, outside = facts_of(open_folder(folder)), read_outside(figures(), manifest_sha256(folder))
    chart = draw(facts, outside)
    assert "dp-sampling (spectral) 0.810 (0.700 to 0.900) measured afterwards" in chart.description
    (row,) = [row for band in chart.bands for row in band.rows if row.tested == "outside"]
    assert (row.auc, chart.real.auc) == (0.81, 0.95)
    assert draw(facts).outside is None


@pytest.mark.parametrize(
    ("other", "words"),
    [
        ({"manifest_sha256": "0" * 64}, "measured on another set"),
        ({"data": "private"}, "figures of private images"),
        ({"figures": []}, "has no figure of a method"),
        ({"figures": [{"figure": "methods", "of": "x", "value": "high"}]}, "is no evaluation"),
        ({"by": "x" * 201}, "is no evaluation"),
        ({"patients": 3}, "is no evaluation"),
    ],
)
def test_what_is_no_evaluation_of_this_set_on_public_images_is_refused(folder, figures, tmp_path, other, words):
    with pytest.raises(ConfigError, match=words):
        write_report(folder, figures(**other), tmp_path / "report.html")
    assert not (tmp_path / "report.html").exists()


def test_a_report_without_a_place_for_them_is_told(folder, figures, tmp_path, monkeypatch):
    monkeypatch.setattr("sfumato_server.publish.outside._BEGIN", "<!-- not there -->")
    with pytest.raises(VerificationError, match="has no place for figures"):
        write_report(folder, figures(), tmp_path / "report.html")
