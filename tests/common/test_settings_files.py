"""Settings files: all faults at once, and the same plan whichever reader reads it."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from sfumato_client.ingest.sources import load_source
from sfumato_common.errors import ConfigError
from sfumato_common.strict import Document, load_yaml, parse, parse_document, read_document, yaml_text
from sfumato_common.strict.document import document
from sfumato_common.study.load import load_plan, load_resolved_plan, plan_text
from sfumato_common.study.plan import Plan
from sfumato_common.study.policy import Policy

CONFIGS = Path(__file__).parents[2] / "configs"
PLANS = sorted(path.name for path in CONFIGS.glob("*.yaml") if path.name != "policy.yaml")
FAULTY = """\
study: Thorax Zürich
image: {size: 32, channels: 1}
labels: [normal, 1]
sites:
  Müllheim: {nominal_patients: 800}
  birch: {nominal_patients: 0800}
  birch: {nominal_patients: 100}
privacy: {epsilon: 10,0, delta: 1e-5}
stages:
  - kind: spectrall
  - kind: gan
    rounds: three
    local_steps: 20
    sampling_rate: 9%
    clipping_norm: 1.0
    noise_multiplier: 1
    learning_rat: 0.002
release:
  - {model: gan, images: many}
federation: {quorum: 0}
"""
# line, and what is said there
FOUND = {
    1: ["'study': 'Thorax Zürich' is no name here", "write 'thorax-zuerich'"],
    3: ["'labels.1': '1' without quotes is a number", "put it in quotes"],
    5: ["'sites.Müllheim': 'Müllheim' is no name here", "write 'muellheim'"],
    6: ["'0800' has leading zeros"],
    7: ["key 'birch' is given twice; keep one"],
    8: ["unknown key 'privacy.0'"],
    10: ["there is no 'spectrall'; did you mean 'spectral'?"],
    11: ["missing key 'stages.1.learning_rate'"],
    12: ["'three' is no whole number"],
    14: ["'9%' is in percent; write 0.09"],
    17: ["unknown key 'stages.1.learning_rat'; did you mean 'learning_rate'?"],
    19: ["'release.0.images': 'many' is no whole number"],
    20: ["'federation.quorum': '0' is too small; write 1 or more"],
}


def noised(file: Document) -> Plan:
    """A configuration's plan with noise in place of its budget, whose noise takes seconds to compute."""
    stages = [{"noise_multiplier": 1.5, **stage} for stage in file.value["stages"]]
    return parse({**file.value, "stages": stages, "budget": None}, Plan, file.name)


def test_every_fault_of_a_file_is_told_at_once_with_line_value_and_remedy(tmp_path: Path) -> None:
    (tmp_path / "plan.yaml").write_text(FAULTY, encoding="utf-8")
    with pytest.raises(ConfigError) as told:
        load_plan(tmp_path / "plan.yaml")
    first, *lines = str(told.value).splitlines()
    assert first == f"plan.yaml: {len(lines)} faults"
    for number, words in FOUND.items():
        said = [line for line in lines if line.startswith(f"  line {number}: ")]
        for word in words:
            assert any(word in line for line in said), (number, word, lines)
    assert len(lines) == len(FOUND)
    order = [int(line.split()[1].rstrip(":")) for line in lines]
    assert order == sorted(order)


def test_rules_that_do_not_rest_on_one_another_are_told_together() -> None:
    plan = read_document(CONFIGS / "chest-xray.yaml").value
    broken = {
        **plan,
        "stages": [{**stage, "noise_multiplier": 1.0} for stage in plan["stages"]],
        "federation": {**plan["federation"], "quorum": 200},
        "release": [{"model": "diffusion", "images": 5}],
        "balance": {"no-such-label": 1.0},
    }
    with pytest.raises(ConfigError) as told:
        parse(broken, Plan, "plan.yaml")
    for words in (
        "federation.quorum is 200, and the plan has 3 sites",
        "'diffusion', which no stage trains",
        "'balance' gives every label",
    ):
        assert words in str(told.value)


def test_what_may_be_a_patients_is_never_shown(tmp_path: Path) -> None:
    """Identifiers of patients who withdrew stand in a source: an exact sentence about one would be in a log."""
    file = tmp_path / "source.yaml"
    file.write_text("kind: dicom\nfolder: x\nlabels: y\nwithdrawn: [4711, 0815, kept, true]\nfolders: z\n")
    with pytest.raises(ConfigError) as told:
        load_source(file)
    said = str(told.value)
    assert "line 4: 'withdrawn.0': without quotes is a number" in said
    assert "line 4: 'withdrawn.1': has leading zeros" in said
    assert not any(name in said for name in ("4711", "0815", "kept"))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("kind: dicomm\n", "line 1: 'kind': there is no 'dicomm'; did you mean 'dicom'?"),
        ("folder: x\n", "'kind': missing key; there are dicom, png, images, nifti, npz"),
        ("folder: x\nkind: [dicom]\n", "line 2: 'kind': there is no"),
        ("- x\n", "expected a mapping"),
    ],
)
def test_a_file_of_no_known_kind_is_told(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "source.yaml").write_text(text)
    with pytest.raises(ConfigError) as told:
        load_source(tmp_path / "source.yaml")
    assert said in str(told.value)


SIGNS = [*"{}[]:,-?&*!|>'\"#%@` \n\tab0.~<", "&a ", "*a", "<<: ", "\n  ", ": ", "- "]


@settings(max_examples=150, deadline=None)
@given(st.lists(st.sampled_from(SIGNS), max_size=40))
def test_any_text_is_data_or_a_sentence(signs: list[str]) -> None:
    """Never a fault of ours: whatever people write, or their editor leaves half-written."""
    for model in (Plan, Policy):
        with contextlib.suppress(ConfigError):
            parse_document(document("".join(signs), "a.yaml"), model)


@pytest.mark.parametrize("name", PLANS)
def test_a_plan_has_the_digest_that_another_reader_gives_it(name: str, tmp_path: Path) -> None:
    """PyYAML read plans before; its data, and what is written of the plan, have the same digest."""
    file = read_document(CONFIGS / name)
    plan = noised(file)
    (tmp_path / "plan.yaml").write_text(plan_text(plan))
    assert load_resolved_plan(tmp_path / "plan.yaml").digest == plan.digest
    written = yaml.safe_load(plan_text(plan))
    assert parse(written, Plan, name).digest == plan.digest
    assert yaml.safe_load((CONFIGS / name).read_text()) == file.value


def test_a_policy_is_read_as_before() -> None:
    assert parse(yaml.safe_load((CONFIGS / "policy.yaml").read_text()), Policy, "x") == load_yaml(
        CONFIGS / "policy.yaml", Policy
    )


WORDS = st.text(st.characters(exclude_categories=("Cs", "Cc")), max_size=8) | st.sampled_from(
    [
        "no",
        "Yes",
        "null",
        "~",
        "",
        "0o17",
        "017",
        "1e5",
        "1e-5",
        "12:30",
        "2024-01-01",
        ".inf",
        "0x1f",
        "=",
        "<<",
        "- a",
        "a: b",
    ]
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS.filter(bool), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=100, deadline=None)
@given(st.dictionaries(WORDS.filter(lambda word: word not in ("", "<<")), VALUES, max_size=4))
def test_what_is_written_is_read_back(value: dict) -> None:
    assert document(yaml_text(value), "x").value == value


@pytest.mark.parametrize("word", ["no", "Yes", "null", "~", "", "017", "1e5", "12:30", "2024-01-01", "0o17", "1_000"])
def test_a_word_that_means_something_to_an_older_reader_is_quoted(word: str) -> None:
    assert yaml.safe_load(yaml_text({"a": [word]})) == {"a": [word]}


def test_the_largest_plan_is_read_in_a_second(tmp_path: Path) -> None:
    """256 sites, the most that a plan may have; measured in processor time, as others may be at work here."""
    plan = noised(read_document(CONFIGS / "chest-128.yaml"))
    sites = {f"site-{at}": next(iter(plan.sites.values())) for at in range(256)}
    (tmp_path / "plan.yaml").write_text(plan_text(plan.model_copy(update={"sites": sites})))
    started = time.process_time()
    assert len(load_yaml(tmp_path / "plan.yaml", Plan).sites) == 256
    assert time.process_time() - started < 1.0
