"""Cards say what the tables and certificates say, in forms that the field's own tools accept."""

from __future__ import annotations

import base64
import csv
import io
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.carded import published_set

from sfumato_common.crypto.dsse import envelope
from sfumato_common.errors import ConfigError
from sfumato_common.package.manifest import ImageFacts
from sfumato_common.strict import parse
from sfumato_common.study.plan import Plan
from sfumato_common.study.words import FILLS, Method
from sfumato_server.publish import open_folder, verify_dataset
from sfumato_server.publish.cards import CARDS, ENVELOPED, SetFacts, cards, words
from sfumato_server.publish.cards.again import facts_of, write_cards
from sfumato_server.publish.cards.markdown import plain
from sfumato_server.publish.cards.sbom import ROOTS, installed
from sfumato_server.publish.tables import Cover, cover_of, level_of, provenance, split_of

PUBLICATION = {
    "title": "Chest *films* <of> nobody",
    "licence": "CC-BY-4.0",
    "intended_use": "Teaching how to load data.",
    "contact": "data@example.org",
}


@pytest.fixture(scope="module")
def published(founded: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return published_set(founded, tmp_path_factory.mktemp("cards"), publication=PUBLICATION)


@pytest.fixture(scope="module")
def facts(published: Path) -> SetFacts:
    return facts_of(open_folder(published))


def image(method: str, name: str = "0" * 32, guarantee: Any = "formal") -> Any:
    return ImageFacts(name=name, label="normal", model="gan", method=method, guarantee=guarantee)


def names(count: int) -> list[str]:
    return [f"{at:032x}" for at in range(count)]


@pytest.mark.parametrize("method", Method.__args__)
def test_no_source_group_is_in_both_splits(method: str) -> None:
    """What is made from patients' codes, of one or of many, is all in one split; only draws from a model are split."""
    found = {split_of(image(method, name)) for name in names(300)}
    assert found == ({"train", "test"} if method == "dp-sampling" else {"train"})


def test_a_tenth_of_the_draws_is_the_test_split() -> None:
    for method in ("dp-sampling", *FILLS):
        share = sum(split_of(image(method, name)) == "test" for name in names(10_000)) / 10_000
        assert abs(share - 0.1) < 4 * (0.09 / 10_000) ** 0.5
    # by the name alone: the same image is of one split wherever it is published
    first = image("dp-sampling", names(1)[0])
    assert split_of(first) == split_of(first.model_copy(update={"label": "abnormal", "model": "flow"}))


def test_an_epsilon_stands_where_one_covers_the_pixels(founded: Any, facts: SetFacts) -> None:
    cover = Cover(1.6981, 1e-4, "patient")
    entry = next(iter(open_entries(facts)))
    for level, figures in {
        "formal": ("1.6981", "0.0001", "patient"),
        "formal, labels public": ("1.6981", "0.0001", "patient"),
        "syntactic": ("", "", ""),
        "heuristic": ("", "", ""),
    }.items():
        assert provenance("east", entry.model_copy(update={"guarantee": level}), "train", cover)[-3:] == figures
    # test noise at one site: no figure is left, nor a formal level, and what was syntactic still is
    assert provenance("east", entry, "train", None)[-3:] == ("", "", "") and level_of("formal", None) == "none"
    assert level_of("syntactic", None) == "syntactic"


def open_entries(facts: SetFacts) -> Any:
    from sfumato_server.publish.manifest import ImageEntry

    yield ImageEntry(
        site="east", sha256="0" * 64, pixel_sha256="0" * 64, file="images/a.png", **image("dp-sampling").model_dump()
    )


def test_the_worst_site_covers_all_and_test_noise_nothing(founded: Any) -> None:
    plain_one = founded.certificate()
    dear = founded.certificate(
        epsilon={
            who: {"add_remove": cost, "add_remove_rdp": cost, "replace_one": cost}
            for who, cost in (("train", 5.0), ("holdout", 0.0), ("patient", 5.0))
        },
        delta=2e-4,
    )
    assert cover_of([plain_one, dear]) == Cover(5.0, 2e-4, "patient")
    assert cover_of([plain_one, founded.certificate(noise="test")]) is None
    assert cover_of([]) is None


def test_tables_are_read_by_any_reader_and_agree(published: Path) -> None:
    rows = {
        name: list(csv.DictReader(io.StringIO((published / f"{name}.csv").read_text())))
        for name in ("labels", "train", "test")
    }
    assert len(rows["labels"]) == 180 and all((published / row["file"]).is_file() for row in rows["labels"])
    for split in ("train", "test"):
        own = [{**row, "file_name": row["file"]} for row in rows["labels"] if row["split"] == split]
        assert own and [row["file_name"] for row in rows[split]] == [row["file_name"] for row in own]
        assert all(row["split"] == split and row["epsilon"] == "1.6981" for row in rows[split])
    verify_dataset(published)


def test_a_level_with_a_comma_stays_one_field(facts: SetFacts) -> None:
    from sfumato_server.publish.tables import Placed, table_headers, table_rows

    entry = next(open_entries(facts)).model_copy(update={"guarantee": "formal, labels public"})
    rows = table_rows("east", [Placed(entry.file, entry, split_of(entry))], Cover(1.0, 1e-5, "patient"))
    text = (table_headers()["labels.csv"] + rows["labels.csv"]).decode()
    (row,) = csv.DictReader(io.StringIO(text))
    assert (
        row["guarantee"] == "formal, labels public" and row["split"] in ("train", "test") and row["unit"] == "patient"
    )


def test_every_card_is_a_signed_file_and_says_no_machine(published: Path) -> None:
    listed = json.loads((published / "manifest.json").read_text())["files"]
    assert set(CARDS) <= set(listed)
    for name in CARDS:
        text = (published / name).read_text()
        assert str(Path.home()) not in text and "/tmp" not in text and "file:" not in text


def test_cards_are_the_same_from_the_set_itself(published: Path, tmp_path: Path) -> None:
    written = write_cards(published, tmp_path / "again")
    assert set(written) == set(CARDS) - ENVELOPED
    for name in written:
        assert (tmp_path / "again" / name).read_bytes() == (published / name).read_bytes(), name
    with pytest.raises(ConfigError, match="outside"):
        write_cards(published, published / "cards")


def test_what_people_wrote_is_text_and_no_markup(published: Path) -> None:
    readme = (published / "README.md").read_text()
    front, body = readme.removeprefix("---\n").split("\n---\n", 1)
    assert yaml.safe_load(front)["pretty_name"] == PUBLICATION["title"]
    assert yaml.safe_load(front)["license"] == "cc-by-4.0"
    assert "# Chest \\*films\\* \\<of\\> nobody" in body and "<of>" not in body
    assert PUBLICATION["intended_use"] in body and "1.6981" in body and "0.910 (95 % interval" in body
    assert plain("a_b") == "a\\_b"


def test_unknown_is_said_as_unknown(founded: Any, tmp_path: Path) -> None:
    folder = published_set(founded, tmp_path, 6)
    sheet = (folder / "DATASHEET.md").read_text()
    assert "**Who funded the creation of the dataset?** Unknown." in sheet
    assert "Unknown: the plan states no intended use." in sheet
    assert "The study's plan states no licence." in (folder / "LICENSE.md").read_text()
    front = yaml.safe_load((folder / "README.md").read_text().split("---\n")[1])
    assert (front["license"], front["license_name"]) == ("other", "not-stated")
    assert "license" not in yaml.safe_load((folder / "CITATION.cff").read_text())


def test_the_citation_file_is_valid_and_its_placeholder_says_so(published: Path) -> None:
    text = (published / "CITATION.cff").read_text()
    (doi,) = yaml.safe_load(text)["identifiers"]
    assert doi["value"].startswith("10.5072/") and doi["description"].startswith("Placeholder")
    citation = pytest.importorskip("cffconvert", reason="cffconvert is not installed").Citation
    citation(text).validate()


def test_the_statement_is_read_by_tools_of_the_supply_chain(published: Path, facts: SetFacts) -> None:
    dsse = pytest.importorskip("securesystemslib.dsse", reason="securesystemslib is not installed")
    from cryptography.hazmat.primitives.serialization import load_pem_public_key
    from securesystemslib.signer import SSlibKey

    found = json.loads((published / "statement.intoto.json").read_text())
    key = SSlibKey.from_crypto(load_pem_public_key((published / "coordinator.pem").read_bytes()))
    object.__setattr__(key, "keyid", found["signatures"][0]["keyid"])
    sealed = dsse.Envelope.from_dict(json.loads(json.dumps(found)))
    assert list(sealed.verify([key], 1))
    statement = json.loads(sealed.payload)
    assert statement["_type"] == "https://in-toto.io/Statement/v1"
    subjects = {own["name"]: own["digest"]["sha256"] for own in statement["subject"]}
    listed = json.loads((published / "manifest.json").read_text())
    assert subjects == {"labels.csv": listed["files"]["labels.csv"]["sha256"], "pixels": facts.pixels}
    needed = statement["predicate"]["buildDefinition"]["resolvedDependencies"]
    heads = {f"provenance/{line['site']}/formal/0001.json": line["head"] for line in listed["shards"]}
    assert needed == [{"name": name, "digest": {"sha256": digest}} for name, digest in heads.items()]
    altered = {**found, "payload": base64.b64encode(sealed.payload.replace(b"labels", b"babels")).decode()}
    with pytest.raises(Exception, match=r"(?i)signature"):
        dsse.Envelope.from_dict(altered).verify([key], 1)


def test_the_statement_has_the_shape_that_in_toto_says(published: Path) -> None:
    attestation = pytest.importorskip("in_toto_attestation.v1.statement", reason="in-toto-attestation is not installed")
    from google.protobuf.json_format import Parse
    from in_toto_attestation.v1 import statement_pb2

    payload = base64.b64decode(json.loads((published / "statement.intoto.json").read_text())["payload"])
    attestation.Statement.copy_from_pb(Parse(payload, statement_pb2.Statement())).validate()


def test_the_envelope_signs_type_and_length(founded: Any) -> None:
    """The example of the DSSE specification: PAE of 'http://example.com/HelloWorld' and 'hello world'."""
    from sfumato_common.crypto.dsse import authenticated

    assert authenticated(b"hello world", "http://example.com/HelloWorld") == (
        b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    )
    assert envelope(founded.authority.signing_key, b"{}")["payload"] == "e30="


def test_the_bill_of_materials_is_valid_and_whole(published: Path) -> None:
    found = json.loads((published / "sbom.spdx.json").read_text())
    by_name = {own["name"]: own for own in found["packages"]}
    assert {"torch", "numpy", "cryptography", "flwr"} <= set(by_name) and set(ROOTS) & set(by_name)
    assert by_name["torch"]["versionInfo"] == __import__("importlib.metadata").metadata.version("torch")
    assert Counter(name for name, _, _ in installed()).most_common(1)[0][1] == 1
    parser = pytest.importorskip("spdx_tools.spdx.parser.parse_anything", reason="spdx-tools is not installed")
    from spdx_tools.spdx.validation.document_validator import validate_full_spdx_document

    assert validate_full_spdx_document(parser.parse_file(str(published / "sbom.spdx.json"))) == []


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"licence": "CC-BY-9"}, "SPDX"),
        ({"licence": "cc-by-4.0"}, "CC-BY-4.0"),
        ({"license": "CC-BY-4.0"}, "licence"),
        ({"title": "two\nlines"}, "one line"),
        ({"doi": "https://doi.org/10.1/x"}, "doi"),
    ],
)
def test_what_a_plan_says_wrongly_of_its_set_is_refused(founded: Any, wrong: dict[str, str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        parse({**founded.plan.model_dump(mode="json"), "publication": wrong}, Plan, "plan")


def test_plans_without_the_group_keep_their_digest(founded: Any) -> None:
    assert "publication" not in founded.plan.model_dump(mode="json")
    with_it = parse({**founded.plan.model_dump(mode="json"), "publication": {"licence": "CC0-1.0"}}, Plan, "plan")
    assert with_it.digest != founded.plan.digest


def test_what_no_epsilon_covers_is_said(founded: Any, facts: SetFacts) -> None:
    from dataclasses import replace

    from sfumato_server.publish.cards.facts import Group

    said = words.covering(facts)
    assert "it is the worst site's figure" in said and "who is known to two sites pays 3.3962 at delta 0.0002" in said
    averaged = {**facts.tally, Group("east", "normal", "gan", "k-salsa", "syntactic", "train"): 7}
    assert "(7 by k-salsa) are not covered" in words.covering(replace(facts, tally=averaged))
    tested = {**facts.certificates, "east": founded.certificate(noise="test")}
    for name, data in cards(replace(facts, certificates=tested)).items():
        assert "1.6981" not in data.decode(), name
    assert "test noise" in words.covering(replace(facts, certificates=tested))
