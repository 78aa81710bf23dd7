"""Settings to begin with, and the schemas of settings: each is taken as it stands, and says what is true."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, get_args

import jsonschema
import pytest
from support.commands import Say, speaker

from sfumato_client.cli.schema import Settings, schema_of
from sfumato_client.ingest.beginning import source_text
from sfumato_client.ingest.sources import SOURCES, load_source
from sfumato_common.errors import ConfigError
from sfumato_common.phantom.dicom import write_cohort
from sfumato_common.strict import load_yaml, parse, read_document
from sfumato_common.strict.document import document
from sfumato_common.study.beginning import Beginning, plan_text
from sfumato_common.study.plan import Plan
from sfumato_common.study.policy import Policy

ROOT = Path(__file__).parents[2]
OPTIONAL = re.compile(r"^#(?=[a-z_]+: )", re.MULTILINE)
SCHEMAS = {kind: schema_of(kind) for kind in get_args(Settings)}


@pytest.fixture
def say(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Say:
    monkeypatch.setenv("SFUMATO_CA_PASSPHRASE", "a passphrase of a test")
    return speaker(monkeypatch, capsys)


def options(text: str) -> list[str]:
    """The text with each line that it offers taken in alone, and with all of them."""
    places = [found.start() for found in OPTIONAL.finditer(text)]
    return [text[:at] + text[at + 1 :] for at in places] + [OPTIONAL.sub("", text)]


def noised(text: str) -> dict[str, Any]:
    value = document(text, "plan.yaml").value
    return {**value, "budget": None, "stages": [{**stage, "noise_multiplier": 1.0} for stage in value["stages"]]}


@pytest.mark.parametrize("images", ["chest", "fundus", "other"])
def test_every_line_that_a_new_plan_offers_may_be_taken_in(images: Any) -> None:
    offered = options(plan_text(Beginning(images=images), "plan.yaml"))
    assert len(offered) == 6
    for text in offered:
        assert parse(noised(text), Plan, "plan.yaml")
        jsonschema.validate(document(text, "plan.yaml").value, SCHEMAS["plan"])


def test_a_new_plan_says_what_was_asked_and_costs_what_it_says(say: Say, tmp_path: Path) -> None:
    file = tmp_path / "plan.yaml"
    words = ("--name", "eyes", "--sites", "north,south", "--epsilon", "6", "--labels", "no,yes", "--images", "other")
    assert say("sfumato", "plan", "new", file, *words, "--patients", "150", "--schema")[0] == 0
    assert file.read_text().startswith("# yaml-language-server: $schema=plan.schema.json\n")
    jsonschema.validate(read_document(file).value, json.loads((tmp_path / "plan.schema.json").read_text()))
    code, _, printed = say("sfumato", "plan", "check", file, "--json")
    said = json.loads(printed)
    assert (code, said["study"], said["budget"]) == (0, "eyes", {"epsilon": 6.0, "delta": 1e-5})
    plan = parse(noised(file.read_text()), Plan, "plan.yaml")
    assert {name: terms.nominal_patients for name, terms in plan.sites.items()} == {"north": 150, "south": 150}
    assert plan.labels == ["no", "yes"]


@pytest.mark.parametrize(
    ("program", "words"),
    [
        ("sfumato", ("plan", "new")),
        ("sfumato-site", ("policy", "new", "--name", "a")),
        ("sfumato-site", ("source", "new")),
    ],
)
def test_nothing_is_written_over(say: Say, tmp_path: Path, program: str, words: tuple[str, ...]) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("mine")
    code, said, _ = say(program, *words, file)
    assert (code, file.read_text()) == (2, "mine")
    assert "'mine.yaml' is there already" in said
    assert "is no folder; make it first" in say(program, *words, tmp_path / "none" / "x.yaml")[1]


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (("--sites", "Müller"), "write 'mueller'"),
        (("--sites", "a,a"), "named twice"),
        (("--epsilon", "0"), "'privacy.epsilon'"),
        (("--delta", "0.009"), "delta is not below 1 /"),
        (("--size", "50"), "'image.size'"),
        (("--labels", "one"), "'labels'"),
        (("--name", "a: b"), "'study': 'a: b' is no name here"),
    ],
)
def test_what_no_plan_may_say_is_refused_before_anything_is_written(
    say: Say, tmp_path: Path, words: tuple[str, ...], wanted: str
) -> None:
    code, said, _ = say("sfumato", "plan", "new", tmp_path / "plan.yaml", *words)
    assert code == 2
    assert wanted in said
    assert not list(tmp_path.iterdir())


def test_a_new_policy_is_that_of_the_demo_and_init_takes_it(say: Say, tmp_path: Path) -> None:
    """One text: what its comments say is held against one file, and the demo runs by it."""
    file = tmp_path / "policy.yaml"
    assert say("sfumato-site", "policy", "new", "--name", "alder", file)[0] == 0
    ours, demo = file.read_text(), (ROOT / "configs" / "policy.yaml").read_text()
    assert ours.split("site: alder")[1] == demo.split("site: alder")[1]
    assert load_yaml(file, Policy) == load_yaml(ROOT / "configs" / "policy.yaml", Policy)
    assert say("sfumato-site", "init", "--home", tmp_path / "home", "--policy", file)[0] == 0


@pytest.mark.parametrize("kind", SOURCES)
def test_every_line_that_a_new_source_offers_may_be_taken_in(kind: str, say: Say, tmp_path: Path) -> None:
    file = tmp_path / "source.yaml"
    assert say("sfumato-site", "source", "new", file, "--kind", kind, "--folder", "a folder: x", "--schema")[0] == 0
    assert load_source(file).kind == kind
    jsonschema.validate(read_document(file).value, json.loads((tmp_path / "source.schema.json").read_text()))
    for text in options(file.read_text()):
        file.write_text(text)
        load_source(file)
        jsonschema.validate(read_document(file).value, SCHEMAS["source"])


def test_tables_have_the_columns_that_the_documents_say() -> None:
    """The row of each kind in docs/hospital.md, the comment of its template, and what its reader asks for are one."""
    rows = re.findall(r"^\| `(\w+)` \| [^|]*\| (.*) \|$", (ROOT / "docs" / "hospital.md").read_text(), re.MULTILINE)
    said = dict(rows)
    said |= {kind: said["images"] for kind in ("png", "nifti") if "the same" in said[kind]}
    for kind in ("dicom", "images", "png", "nifti"):
        needs = load_kind_of(kind).needs
        assert re.match(r"`([a-z_,]+)`", said[kind])[1] in (",".join(needs), ",".join(sorted(needs)))
        offered = source_text(kind, Path("x"), Path("y"), "z")
        assert set(re.search(r"with the columns (.*)\.", offered)[1].replace(" and", ",").split(", ")) == set(needs)


def load_kind_of(kind: str) -> Any:
    return parse({"kind": kind, "folder": "x", "labels": "y"}, SOURCES[kind], "source")


def test_a_new_source_of_dicom_files_is_checked_as_it_stands(
    say: Say, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_cohort(tmp_path / "images", "alder", 12, 5, None, size=64)
    said = Beginning(images="other", size=32, sites=("alder",), patients=10, labels=("normal", "opacity"))
    plan = plan_text(said, "plan.yaml")
    plan = plan.replace("radii: charged}", "radii: charged, noise_multiplier: 2}").replace("budget: auto", "")
    (tmp_path / "plan.yaml").write_text(plan)
    say("sfumato-site", "policy", "new", "--name", "alder", "--patients", "5")
    say("sfumato-site", "source", "new", "--labels", "images/labels.csv")
    say("sfumato-site", "init", "--home", "home", "--policy", "policy.yaml")
    words = ("source.yaml", "--home", "home", "--plan", "plan.yaml", "--offline", "--json")
    found = json.loads(say("sfumato-site", "check", *words)[2])["findings"]
    states = {finding["check"]: finding for finding in found}
    assert states["images"]["state"] in ("good", "note"), states["images"]
    assert states["policy"]["state"] == "good"


def test_schemas_take_every_configuration() -> None:
    for file in (ROOT / "configs").glob("*.yaml"):
        kind = "policy" if file.name == "policy.yaml" else "plan"
        jsonschema.validate(read_document(file).value, SCHEMAS[kind])
    for schema in SCHEMAS.values():
        jsonschema.Draft202012Validator.check_schema(schema)


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        ("plan", {"studdy": "x"}),
        ("plan", {"study": "Not A Name"}),
        ("plan", {"privacy": {"epsilon": -1, "delta": 1e-5}}),
        ("plan", {"stages": [{"kind": "spectrall"}]}),
        ("policy", {"labels": "secret"}),
        ("policy", {"budget": {"epsilon": 1.0}}),
    ],
)
def test_schemas_refuse_what_the_reader_refuses(kind: str, change: dict[str, Any]) -> None:
    file = ROOT / "configs" / ("demo.yaml" if kind == "plan" else "policy.yaml")
    value = {**read_document(file).value, **change}
    with pytest.raises(ConfigError):
        parse(value, Plan if kind == "plan" else Policy, "x")
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(value, SCHEMAS[kind])


def examples() -> list[tuple[str, str]]:
    """(document, YAML) of each example of settings in the documents that leaves nothing out."""
    files = [*sorted((ROOT / "docs").glob("*.md")), ROOT / "configs" / "README.md"]
    blocks = [
        (file.name, found) for file in files for found in re.findall(r"```yaml\n(.*?)```", file.read_text(), re.S)
    ]
    return [(name, text) for name, text in blocks if "..." not in text and re.match(r"[a-z#]", text)]


@pytest.mark.parametrize(("name", "text"), examples())
def test_schemas_take_every_example_of_the_documents(name: str, text: str) -> None:
    """Each key of an example has its value in one of the schemas; an example need not be a whole file."""
    for key, value in document(text, name).value.items():
        places = [
            (whole, one["properties"][key])
            for whole in SCHEMAS.values()
            for one in [whole, *whole.get("$defs", {}).values()]
            if key in one.get("properties", {})
        ]
        assert any(
            not list(jsonschema.Draft202012Validator(_loose({**place, "$defs": whole["$defs"]})).iter_errors(value))
            for whole, place in places
        ), (name, key, value)


def _loose(schema: Any) -> Any:
    """A schema of parts of what it describes: no key is needed, so that a part may be one of several things."""
    if isinstance(schema, list):
        return [_loose(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    return {"anyOf" if key == "oneOf" else key: _loose(value) for key, value in schema.items() if key != "required"}


def test_keys_are_described() -> None:
    """An editor shows what a key is for, where its model says it."""
    assert "join while the study runs" in SCHEMAS["plan"]["properties"]["joining"]["description"]
    assert "withdrew" in SCHEMAS["policy"]["properties"]["withdrawals"]["description"]
    assert "taken no more" in SCHEMAS["source"]["$defs"]["DicomSource"]["properties"]["withdrawn"]["description"]


def test_a_schema_is_printed_or_written(say: Say, tmp_path: Path) -> None:
    for program, kinds in (("sfumato", ("plan", "policy")), ("sfumato-site", tuple(SCHEMAS))):
        for kind in kinds:
            code, _, printed = say(program, "schema", kind)
            assert (code, json.loads(printed)) == (0, SCHEMAS[kind])
    assert "a.json" in say("sfumato", "schema", "plan", "--out", tmp_path / "a.json")[2]
    assert json.loads((tmp_path / "a.json").read_text()) == SCHEMAS["plan"]
