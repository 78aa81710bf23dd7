"""`sfumato-site tabular`: charged before rows are read, noised per record, decoded to the schema's values."""

from __future__ import annotations

import csv
import hashlib
import json
import math
import stat
import sys

import numpy as np
import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_breast_cancer, load_diabetes

from sfumato_client.cli import main as cli
from sfumato_client.site.home import SiteHome
from sfumato_client.tabular import anonymise as anonymise_module
from sfumato_client.tabular import run as run_module
from sfumato_client.tabular.anonymise import anonymise, mechanism_of
from sfumato_client.tabular.coding import MISSING, Coder, text_of
from sfumato_client.tabular.report import local_report, mean_total_variation, predicted
from sfumato_client.tabular.schema import CategoricalColumn, NumericColumn, OrdinalColumn, TableSchema
from sfumato_client.tabular.table import read_table, split
from sfumato_client.tabular.terms import cost, digest_of, resolve_terms, table_events
from sfumato_client.tabular.train import _batches, first_flow, train_flow
from sfumato_common.accounting.events import (
    Declared,
    GaussianRelease,
    LocalGaussian,
    LocalLaplace,
    RandomisedResponse,
    SampledGaussian,
)
from sfumato_common.crypto.identity import create_identity
from sfumato_common.errors import ConfigError
from sfumato_common.files import make_private_folder
from sfumato_common.mechanisms.clipping import clip_rows
from sfumato_common.mechanisms.noise import TestNoise
from sfumato_common.mechanisms.recorder import NoiseRecorder
from sfumato_common.mechanisms.streams import SecretStream, Streams
from sfumato_common.strict import parse

pytestmark = pytest.mark.filterwarnings("ignore:TestNoise")
POLICY = {
    "site": "alder",
    "budget": {"epsilon": 40.0, "delta": 1e-5},
    "allowed_stages": ["spectral"],
    "minimum_patients": 10,
    "release": {"allowed_methods": ["cadp"], "largest_set": 1000},
    "noise": "test",
}
TRAINING = {"steps": 3, "hidden": 8, "couplings": 2, "noise_multiplier": 2.0, "nominal_patients": 40}
SCHEMA = {
    "table": "ward",
    "rows": 30,
    "privacy": {"epsilon": 30.0},
    "rows_are_patients": True,
    "columns": {
        "age": {"kind": "numeric", "low": 0.0, "high": 100.0, "digits": 0},
        "pain": {"kind": "ordinal", "levels": ["none", "some", "much"]},
        "ward": {"kind": "categorical", "levels": ["A", "B", "C"], "missing": True},
        "sick": {"kind": "categorical", "levels": ["no", "yes"]},
    },
    "condition": "sick",
    "label_epsilon": 1.0,
    "release": {"epsilon": 2.0},
    "histograms": {"noise_multiplier": 3.0},
    "training": TRAINING,
}


def schema_of(**changes) -> TableSchema:
    return parse({**SCHEMA, **changes}, TableSchema, "test")


@pytest.fixture
def say(monkeypatch, capsys):
    """Run `sfumato-site tabular` in this process; returns (exit code, last line on stderr, stdout)."""

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["sfumato-site", "tabular", *map(str, words)])
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        captured = capsys.readouterr()
        lines = captured.err.strip().splitlines()
        assert len(lines) <= 1, "one clear line"
        return stopped.value.code or 0, lines[-1] if lines else "", captured.out

    return run


class Place:
    """A home folder and the files of one run."""

    def __init__(self, root):
        self.root, self.home = root, root / "home"
        self.source, self.output = root / "in.csv", root / "out"
        make_private_folder(self.home)
        create_identity(self.home / "identity", "alder")
        (self.home / "identity" / "split.key").write_text("07" * 32)
        self.policy()
        self.schema()
        self.rows(ward_rows(60))

    def policy(self, **changes):
        (self.home / "policy.yaml").write_text(yaml.safe_dump({**POLICY, **changes}))

    def schema(self, value=None, **changes):
        (self.root / "schema.yaml").write_text(yaml.safe_dump({**(value or SCHEMA), **changes}, sort_keys=False))

    def rows(self, rows, header=None):
        with self.source.open("w", newline="") as stream:
            csv.writer(stream).writerows([header or list(SCHEMA["columns"]), *rows])

    def words(self, *more):
        return ["--home", self.home, self.source, "--schema", self.root / "schema.yaml", *more]

    def charges(self):
        with SiteHome(self.home).open_ledger() as ledger:
            return ledger.entries(), ledger.unsettled_charges()

    def table(self):
        with (self.output / "table.csv").open(newline="") as stream:
            return list(csv.reader(stream))


@pytest.fixture
def place(tmp_path):
    return Place(tmp_path)


def ward_rows(count, seed=0):
    rng = np.random.default_rng(seed)
    sick = rng.integers(0, 2, count)
    age = np.clip(rng.normal(40 + 25 * sick, 8), 0, 100).round().astype(int)
    pain = np.clip(sick + rng.integers(0, 2, count), 0, 2)
    levels = SCHEMA["columns"]
    return [
        [str(a), levels["pain"]["levels"][p], ["A", "B", "C", ""][rng.integers(0, 4)], ["no", "yes"][s]]
        for a, p, s in zip(age, pain, sick, strict=True)
    ]


def sklearn_table(name):
    """Columns and rows of one of scikit-learn's tables; bounds are round numbers that hold all values."""
    data = load_breast_cancer() if name == "breast-cancer" else load_diabetes(scaled=False)
    columns = {
        str(feature): {"kind": "numeric", "low": 0.0, "high": 10.0 ** int(tens), "digits": min(3, 5 - int(tens))}
        for feature, tens in zip(data.feature_names, np.ceil(np.log10(data.data.max(axis=0))).astype(int), strict=True)
    }
    rows = [[f"{value}" for value in row] for row in data.data]
    if name == "breast-cancer":
        columns["diagnosis"] = {"kind": "categorical", "levels": list(map(str, data.target_names))}
        return (
            columns,
            [[*row, str(data.target_names[y])] for row, y in zip(rows, data.target, strict=True)],
            "diagnosis",
        )
    columns["sex"] = {"kind": "categorical", "levels": ["1.0", "2.0"]}
    columns["progression"] = {"kind": "numeric", "low": 0.0, "high": 400.0, "digits": 0}
    return columns, [[*row, f"{y}"] for row, y in zip(rows, data.target, strict=True)], "sex"


@pytest.mark.parametrize(("name", "rows"), [("breast-cancer", 50), ("diabetes", 700)])
def test_a_real_table_from_csv_to_folder(say, place, name, rows):
    columns, texts, condition = sklearn_table(name)
    target = "progression" if name == "diabetes" else "diagnosis"
    place.rows(texts, list(columns))
    place.schema(table=name, rows=rows, columns=columns, condition=condition, target=target)
    code, line, said = say(*place.words("--output", place.output, "--report"))
    assert (code, line) == (0, "")
    header, *made = place.table()
    assert (header, len(made)) == (list(columns), rows)
    for row in made:
        for text, column in zip(row, columns.values(), strict=True):
            assert text in column["levels"] if "levels" in column else column["low"] <= float(text) <= column["high"]
    assert sorted(path.name for path in place.output.iterdir()) == [
        "certificate.json",
        "certificate.sig",
        "schema.json",
        "table.csv",
    ]
    assert sorted(path.name for path in place.root.iterdir()) == ["home", "in.csv", "out", "schema.yaml"]
    stated = json.loads((place.output / "certificate.json").read_text())
    assert list(stated)[:4] == ["epsilon", "delta", "unit", "adjacency"]
    assert (stated["guarantee"], stated["noise"], stated["unit"]) == ("formal", "test", "patient")
    kept = parse(json.loads((place.output / "schema.json").read_text()), TableSchema, "kept")
    assert digest_of(kept) == stated["plan_hash"]
    paid = stated["epsilon"]["patient"]["add_remove"]
    assert cost(kept) <= paid <= cost(kept) + 1e-3
    assert stated["epsilon"]["train"] == stated["epsilon"]["patient"]
    assert f"epsilon {paid:.3f}" in said
    assert "next to nothing about the record" in said
    assert "TEST NOISE" in said and stated["covers"].startswith("TEST NOISE")
    entries, unsettled = place.charges()
    # rows that cannot be matched to the patients of images are charged to both cohorts
    assert [(entry.purpose, entry.round, entry.cohort, entry.event) for entry in entries] == [
        (purpose, number, cohort, event)
        for purpose, cohort in (("table", "train"), ("table-holdout", "holdout"))
        for number, event in enumerate(table_events(kept), start=1)
    ]
    assert {(entry.study, entry.plan_hash) for entry in entries} == {(f"table-{name}", stated["plan_hash"])}
    assert not unsettled
    with SiteHome(place.home).open_ledger() as ledger:
        table = hashlib.sha256((place.output / "table.csv").read_bytes()).hexdigest()
        assert set(ledger.settled_results().values()) == {table} == {stated["table_sha256"]}
    (report,) = (place.home / "local").iterdir()
    assert stat.S_IMODE(report.stat().st_mode) == 0o600
    found = json.loads(report.read_text())
    assert found["prediction"]["target"] == target
    assert found["prediction"]["real"]["r2" if name == "diabetes" else "accuracy"] > (
        0.2 if name == "diabetes" else 0.9
    )
    # those held out never train: about a fifth of all patients
    share = found["patients"]["holdout"] / sum(found["patients"].values())
    assert 0.12 < share < 0.28
    real, synthetic = (read_table(path, kept).cells for path in (place.source, place.output / "table.csv"))
    assert not {tuple(row) for row in real} & {tuple(row) for row in synthetic}


def untouched(place):
    assert not place.output.exists()
    assert not [path for path in place.root.iterdir() if path.name.startswith(".out")]
    assert place.charges()[0] == []


@pytest.mark.parametrize(
    ("schema", "policy", "code", "words"),
    [
        ({}, {"budget": {"epsilon": 2.0, "delta": 1e-5}}, 3, "budget is 2"),
        ({"privacy": {"epsilon": 3.0}}, {}, 2, "more than privacy.epsilon = 3"),
        ({"privacy": {"epsilon": 30.0, "delta": 1e-3}}, {}, 3, "privacy.delta"),
        ({"rows": 5000}, {}, 3, "largest_set"),
        ({}, {"release": {"allowed_methods": ["dp-sampling"], "largest_set": 1000}}, 3, "cadp"),
        ({"leave_out": ["name"]}, {}, 4, "no column 'name'"),
    ],
)
def test_what_is_refused_touches_nothing(say, place, schema, policy, code, words):
    # rows that would be refused if they were read: the refusal comes before
    place.rows([["old", "?", "?", "?"]])
    place.schema(**schema)
    place.policy(**policy)
    found, line, _ = say(*place.words("--output", place.output))
    assert (found, words in line) == (code, True), line
    untouched(place)


def test_an_output_that_is_there_and_an_unknown_column_are_refused_before_the_charge(say, place):
    place.rows([["1"] * 5], [*SCHEMA["columns"], "address"])
    code, line, _ = say(*place.words("--output", place.output))
    assert (code, "'address'" in line) == (4, True)
    untouched(place)
    place.rows(ward_rows(60))
    place.output.mkdir()
    code, line, _ = say(*place.words("--output", place.output))
    assert (code, "is there already" in line) == (2, True)
    assert place.charges()[0] == []
    assert list(place.output.iterdir()) == []


@pytest.mark.parametrize(
    ("row", "column"),
    [
        (["41", "some", "A", "perhaps-secret"], "sick"),
        (["forty-secret", "some", "A", "no"], "age"),
        (["nan", "some", "A", "no"], "age"),
        (["41", "", "A", "no"], "pain"),
        (["41", "some", "A"], None),
    ],
)
def test_a_wrong_cell_names_line_and_column_and_never_the_value(say, place, row, column):
    place.rows([*ward_rows(20), row])
    code, line, _ = say(*place.words("--check"))
    assert code == 4
    assert "line 22" in line
    assert column is None or f"column '{column}'" in line
    assert not [text for text in row if len(text) > 2 and text not in ("some",) and text in line]
    assert place.charges()[0] == []
    # in a run the charge comes first, and stays
    code, line, _ = say(*place.words("--output", place.output))
    assert (code, "charged all the same" in line) == (4, True)
    assert not place.output.exists()
    entries, unsettled = place.charges()
    assert len(entries) == len(unsettled) == 8


def test_a_check_charges_nothing_and_a_run_may_not_be_repeated(say, place):
    code, _, said = say(*place.words("--check"))
    assert (code, "nothing was charged" in said) == (0, True)
    untouched(place)
    assert say(*place.words())[0] == 2
    assert say(*place.words("--output", place.output))[0] == 0
    before = place.charges()[0]
    code, line, _ = say(*place.words("--output", place.root / "again"))
    assert (code, "another name" in line) == (8, True)
    assert place.charges()[0] == before
    place.schema(table="another")
    assert say(*place.words("--output", place.root / "again"))[0] == 0
    assert len(place.charges()[0]) == 2 * len(before)


def test_too_few_patients_are_refused_without_their_number(say, place):
    place.policy(minimum_patients=500)
    code, line, _ = say(*place.words("--check"))
    assert (code, "fewer patients" in line, "60" in line) == (4, True, False)


def test_another_mechanism_than_was_charged_writes_nothing(say, place, monkeypatch):
    def shorter(schema, *rest):
        training = schema.training.model_copy(update={"steps": 2})
        return train_flow(schema.model_copy(update={"training": training}), *rest)

    monkeypatch.setattr(run_module, "train_flow", shorter)
    code, line, _ = say(*place.words("--output", place.output))
    assert (code, "not the one that the ledger was charged for" in line) == (9, True)
    assert not place.output.exists()
    assert len(place.charges()[1]) == 8


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"rows_are_patients": False}, "rows_are_patients"),
        ({"condition": "age", "label_epsilon": 1.0}, "categorical or ordinal"),
        ({"condition_public": True}, "no price"),
        ({"decode": "randomised"}, "takes no terms"),
        ({"condition": None}, "without a 'condition'"),
        ({"patient": "age", "rows_are_patients": False}, "named in two"),
        ({"target": "height"}, "'target'"),
        ({"release": {"mechanism": "gaussian"}}, "'l2'"),
        ({"release": {"noise_multiplier": 1.0}}, "not the other one's"),
        (
            {"columns": {**SCHEMA["columns"], "age": {"kind": "numeric", "low": 0.0, "high": 1e9, "digits": 0}}},
            "digits",
        ),
        (
            {"columns": {**SCHEMA["columns"], "age": {"kind": "numeric", "low": 0.05, "high": 1.0, "digits": 1}}},
            "decimals",
        ),
        ({"columns": {**SCHEMA["columns"], "pain": {"kind": "ordinal", "levels": ["a", "a"]}}}, "twice"),
        ({"columns": {name: SCHEMA["columns"][name] for name in ("age", "sick")}}, "beside its condition"),
        ({"tabel": "x"}, "did you mean 'table'"),
    ],
)
def test_a_schema_that_means_nothing_is_refused(changes, words):
    with pytest.raises(ConfigError, match=words):
        schema_of(**changes)


def test_what_is_left_out_is_resolved_within_the_budget_and_never_above():
    schema = resolve_terms(
        schema_of(privacy={"epsilon": 4.0}, label_epsilon=None, release={}, training={"steps": 20, "hidden": 8})
    )
    assert 0.97 * 4.0 < cost(schema) <= 4.0
    assert (schema.release.epsilon, schema.label_epsilon) == (pytest.approx(0.8), pytest.approx(0.4))
    assert schema.training.nominal_patients == 30
    assert schema.release.radius == pytest.approx(6 * math.sqrt(2 / math.pi))
    with pytest.raises(ConfigError, match="leaves nothing for training"):
        resolve_terms(schema_of(privacy={"epsilon": 2.0}, training={}))


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, [LocalLaplace(2.0), RandomisedResponse(2, 1.0)]),
        (
            {"label_epsilon": None, "condition_public": True},
            [LocalLaplace(2.0), Declared("table ward: levels of column 'sick', taken as public", 30)],
        ),
        ({"label_epsilon": None, "decode": "randomised"}, [LocalLaplace(2.0)]),
        ({"label_epsilon": None, "condition": None}, [LocalLaplace(2.0)]),
        (
            {"release": {"mechanism": "gaussian", "clip": "l2", "noise_multiplier": 3.0}},
            [LocalGaussian(3.0), RandomisedResponse(2, 1.0)],
        ),
    ],
)
def test_every_way_of_release_is_charged_and_is_what_runs(say, place, changes, expected):
    schema = schema_of(**changes)
    assert table_events(schema) == [SampledGaussian(2.0, 0.2, 3), GaussianRelease(3.0), *expected]
    place.schema(**changes)
    assert say(*place.words("--output", place.output))[0] == 0
    assert len(place.table()) == 31


COLUMNS = st.one_of(
    st.builds(
        lambda low, cells, digits, missing: NumericColumn(
            kind="numeric", low=low / 10**digits, high=(low + cells) / 10**digits, digits=digits, missing=missing
        ),
        st.integers(-1000, 1000),
        st.sampled_from([1, 2, 9, 999_999]),
        st.integers(0, 4),
        st.booleans(),
    ),
    *(
        st.builds(
            lambda count, missing, kind=kind: kind(
                kind="ordinal" if kind is OrdinalColumn else "categorical",
                levels=[f"level {i}" for i in range(count)],
                missing=missing,
            ),
            st.integers(2, 9),
            st.booleans(),
        )
        for kind in (OrdinalColumn, CategoricalColumn)
    ),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(COLUMNS, min_size=1, max_size=5), st.integers(0, 2**31))
def test_decoding_undoes_encoding_and_every_vector_decodes_to_a_value(columns, seed):
    rng, named = np.random.default_rng(seed), {str(place): column for place, column in enumerate(columns)}
    ends = np.array([[MISSING if c.missing else 0 for c in columns], [c.cells - 1 for c in columns]])
    drawn = np.stack([rng.integers(MISSING if c.missing else 0, c.cells, 40) for c in columns], axis=1)
    cells = np.concatenate([drawn, ends])
    coder, generator = Coder(named), torch.Generator().manual_seed(seed)
    x = coder.encode(cells, SecretStream(TestNoise(seed)))
    assert x.shape == (42, coder.width) and torch.isfinite(x).all() and x.abs().max() < 9
    assert np.array_equal(coder.decode(x), cells)
    wild = torch.randn(40, coder.width, generator=generator) * 1e3
    wild[0], wild[1], wild[2] = torch.inf, -torch.inf, torch.nan
    for column, found in zip(columns, coder.decode(wild).T, strict=True):
        assert found.min() >= (MISSING if column.missing else 0) and found.max() < column.cells
        assert all(isinstance(text_of(column, int(cell)), str) for cell in found)


def test_values_are_read_to_the_nearest_cell_written_back_and_clipped_ones_counted(place):
    place.rows(
        [
            ["41.4", "none", "", "no"],
            ["-5", "much", "C", "yes"],
            ["1e9", "much", "C", "yes"],
            ["-0.3", "none", "A", "no"],
        ]
    )
    schema = schema_of()
    table = read_table(place.source, schema)
    assert table.cells.tolist() == [[41, 0, -1, 0], [0, 2, 2, 1], [100, 2, 2, 1], [0, 0, 0, 0]]
    assert table.clipped == {"age": 3, "pain": 0, "ward": 0, "sick": 0}
    column = NumericColumn(kind="numeric", low=-0.3, high=0.3, digits=1)
    assert [text_of(column, cell) for cell in range(7)] == ["-0.3", "-0.2", "-0.1", "0.0", "0.1", "0.2", "0.3"]


def test_values_uniform_over_their_domain_become_standard_normal():
    coder = Coder(dict(schema_of(label_epsilon=None, condition=None).columns))
    rng = np.random.default_rng(0)
    cells = np.stack([rng.integers(low, high, 20_000) for low, high in ((0, 101), (0, 3), (-1, 3), (0, 2))], axis=1)
    x = coder.encode(cells, SecretStream(TestNoise(0)))
    assert coder.width == 1 + 1 + 4 + 1
    assert x.mean(dim=0).abs().max() < 0.03
    assert (x.std(dim=0) - 1).abs().max() < 0.03
    assert (torch.corrcoef(x.T) - torch.eye(7)).abs().max() < 0.03


def test_one_row_of_a_patient_is_used_and_a_patients_part_is_its_own(place):
    schema = schema_of(patient="id", rows_are_patients=False)
    rows = [[f"p{i % 100}", *row] for i, row in enumerate(ward_rows(300))]
    place.rows(rows, ["id", *SCHEMA["columns"]])
    key, whole = b"k" * 32, read_table(place.source, schema)
    parts = split(whole, key, SecretStream(TestNoise(0)))
    assert parts.patients == 100
    drawn = {tuple(row) for seed in range(3) for row in split(whole, key, SecretStream(TestNoise(seed))).train}
    assert len(drawn) > len(parts.train)  # not always the same row of a patient


def test_a_row_more_moves_no_other_row_between_the_parts(place):
    rows = [*ward_rows(80), *ward_rows(5)]  # five rows stand there twice
    parts = []
    for some in (rows, [["99", "none", "B", "yes"], *rows]):
        place.rows(some)
        found = split(read_table(place.source, schema_of()), b"k" * 32, SecretStream(TestNoise(0)))
        parts.append((sorted(map(tuple, found.train)), sorted(map(tuple, found.holdout))))
    (train, holdout), (more_train, more_holdout) = parts
    assert len(more_train) + len(more_holdout) == len(train) + len(holdout) + 1
    assert not [row for row in train if row not in more_train] and not [
        row for row in holdout if row not in more_holdout
    ]
    assert len(holdout) > 5


def job(schema, seed=0):
    noise = TestNoise(seed)
    return Streams.of(noise), NoiseRecorder(noise, "entry")


def features(count, seed=0):
    """Cells [N, 3] of age, pain and ward, and conditions."""
    rng = np.random.default_rng(seed)
    sick = rng.integers(0, 2, count)
    age = np.clip(rng.normal(30 + 40 * sick, 8), 0, 100).astype(np.int64)
    return np.stack([age, np.clip(sick + rng.integers(0, 2, count), 0, 2), rng.integers(-1, 3, count)], axis=1), sick


class Watched(NoiseRecorder):
    """A recorder that keeps what came in, after clipping and without noise."""

    def local_laplace(self, rows, radius, epsilon, clip):
        self.rows, self.clean = rows.copy(), clip_rows(rows, radius, clip)
        self.noised = super().local_laplace(rows, radius, epsilon, clip)
        return self.noised


@pytest.mark.parametrize("count", [0, 1, 29, 60])
def test_the_flow_sees_batches_of_one_size_however_many_patients_there_are(monkeypatch, count):
    """The last bits of a latent depend on the size of its batch: with patients alone in it they told of others."""
    schema = resolve_terms(schema_of())
    flow, sizes = first_flow(schema), []
    original = flow.forward
    monkeypatch.setattr(flow, "forward", lambda x, y: (sizes.append(len(x)), original(x, y))[1])
    monkeypatch.setattr(anonymise_module, "_BATCH", 16)
    cells, sick = features(count)
    streams, recorder = job(schema)
    anonymise(schema, flow, cells, torch.from_numpy(sick), streams, recorder)
    assert sizes == [16, 14]


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**31), st.sampled_from(["l1", "elementwise"]), st.integers(5, 60))
def test_another_patient_moves_one_vector_by_the_diameter_at_most(seed, clip, count):
    schema = resolve_terms(schema_of(release={"epsilon": 2.0, "clip": clip, "radius": 1.5}))
    cells, sick = features(count, seed)
    flow = first_flow(schema)
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter += torch.randn(parameter.shape, generator=torch.Generator().manual_seed(seed))
    seen = []
    for other in (False, True):
        own, labels = cells.copy(), sick.copy()
        if other:
            own[0], labels[0] = (100, 2, MISSING), 1 - labels[0]
        streams, _ = job(schema)
        recorder = Watched(TestNoise(1), "entry")
        anonymise(schema, flow, own, torch.from_numpy(labels), streams, recorder)
        seen.append(recorder.clean)
        assert recorder.executed == (LocalLaplace(2.0), RandomisedResponse(2, 1.0))
    assert seen[0].shape == (30, 6)
    moved = np.abs(seen[0] - seen[1])
    # the diameter that the noise is scaled to; everybody else's vector is the same
    assert moved.sum(axis=1).max() <= 2 * 1.5 * (6 if clip == "elementwise" else 1) + 1e-9
    assert (moved.sum(axis=1) > 1e-9).sum() <= 1


def test_places_without_a_patient_hold_the_zero_vector_and_noise_follows_epsilon():
    cells, sick = features(20)
    spread = {}
    for epsilon in (1.0, 10.0):
        schema = resolve_terms(schema_of(rows=400, release={"epsilon": epsilon, "radius": 2.0}))
        streams, _ = job(schema)
        recorder = Watched(TestNoise(2), "entry")
        anonymise(schema, first_flow(schema), cells, torch.from_numpy(sick), streams, recorder)
        assert (np.abs(recorder.rows).sum(axis=1) > 0).sum() == 20
        spread[epsilon] = float((recorder.noised - recorder.clean).std())
        assert spread[epsilon] == pytest.approx(mechanism_of(schema).noise, rel=0.1)
    assert spread[1.0] / spread[10.0] == pytest.approx(10, rel=0.1)


def test_batches_have_one_public_shape_and_leave_nobody_out():
    schema = resolve_terms(schema_of(training={**TRAINING, "steps": 30, "nominal_patients": 10, "sampling_rate": 0.5}))
    cells, sick = features(400)
    coder = Coder(schema.features)
    taken = []
    for batches in _batches(schema, coder, cells, torch.from_numpy(sick), SecretStream(TestNoise(0))):
        assert {(x.shape, y.shape, w.shape) for x, y, w in batches} == {((32, 6), (32, 2), (32, 1))}
        for x, y, weights in batches:
            assert torch.equal(y.sum(dim=1), weights[:, 0])
            assert not x[weights[:, 0] == 0].any()
        taken.append(sum(float(weights.sum()) for _, _, weights in batches))
    # half of 400 patients, though the public number is 10
    assert np.mean(taken) == pytest.approx(200, abs=8)
    assert np.std(taken) == pytest.approx(10, abs=4)


def made_with(noise_multiplier, seed=0, epsilon=2.0):
    training = {**TRAINING, "steps": 200, "noise_multiplier": noise_multiplier, "nominal_patients": 300}
    schema = schema_of(rows=300, training=training, release={"epsilon": epsilon, "radius": 4.0}, target="sick")
    cells, sick = features(300)
    streams, recorder = job(schema, seed)
    condition = torch.from_numpy(sick)
    flow = train_flow(schema, cells, condition, streams.secret, recorder)
    made, under = anonymise(schema, flow, cells, condition, streams, recorder)
    fresh, labels = features(300, 9)
    return (
        schema,
        np.column_stack([made, under.numpy()]),
        np.column_stack([cells, sick]),
        np.column_stack([fresh, labels]),
    )


def test_utility_falls_as_epsilon_falls():
    scores, variations = [], []
    for noise in (0.5, 200.0):
        runs = [made_with(noise, seed) for seed in range(2)]  # one run of mere noise may be lucky
        scores.append(np.mean([predicted(run[0], "sick", *run[1:])["synthetic"]["accuracy"] for run in runs]))
        variations.append(np.mean([mean_total_variation(schema, made, test) for schema, made, _, test in runs]))
    assert scores[0] > 0.85
    assert scores[1] < scores[0] - 0.1
    assert variations[0] < variations[1] - 0.1


def test_a_row_is_its_records_own_only_where_the_noise_is_small():
    columns = {name: {"kind": "numeric", "low": 0.0, "high": 1.0, "digits": 4} for name in "abcd"}
    asked = resolve_terms(
        schema_of(rows=300, columns=columns, condition=None, label_epsilon=None, release={"radius": 12.0})
    )
    cells = np.random.default_rng(3).integers(0, 10_001, (300, 4))
    nearest, correlations = [], []
    for epsilon in (1.0, 2000.0):
        release = asked.release.model_copy(update={"epsilon": epsilon})
        schema = asked.model_copy(update={"release": release})
        streams, recorder = job(schema)
        made, _ = anonymise(schema, first_flow(schema), cells, torch.zeros(300, dtype=torch.int64), streams, recorder)
        distance = np.abs(made[:, None] - cells[None]).max(axis=2).min(axis=1)
        nearest.append(float(np.median(distance)) / 10_000)
        correlations.append(mechanism_of(schema).correlation)
    assert correlations[0] < 0.1 and nearest[0] > 0.05
    assert correlations[1] > 0.99 and nearest[1] < 0.02


def test_conditions_are_answered_resampled_or_drawn_anew():
    cells, _ = features(400)
    ill = torch.ones(400, dtype=torch.int64)
    shares = {}
    for decode, label_epsilon in (("same", 1.0), ("resampled", 1.0), ("randomised", None)):
        schema = resolve_terms(schema_of(rows=400, decode=decode, label_epsilon=label_epsilon))
        streams, recorder = job(schema)
        _, under = anonymise(schema, first_flow(schema), cells, ill, streams, recorder)
        shares[decode] = float(under.double().mean())
    # randomised response tells the truth with odds e to 1; resampling takes its noise out again
    assert shares["same"] == pytest.approx(math.e / (1 + math.e), abs=0.07)
    assert shares["resampled"] > 0.85
    assert shares["randomised"] == pytest.approx(0.5, abs=0.08)


def test_the_report_knows_a_copy_from_noise():
    schema = schema_of(target="age")
    train, test = (np.column_stack(features(200, seed)) for seed in (1, 2))
    noise = np.stack([np.random.default_rng(0).integers(0, c.cells, 200) for c in schema.columns.values()], axis=1)
    copied, drawn = local_report(schema, train, train, test), local_report(schema, noise, train, test)
    assert copied["distance_to_train"]["synthetic_median"] == 0
    assert drawn["distance_to_train"]["synthetic_median"] > 0
    for name in ("mean_total_variation", "correlation_difference"):
        assert copied[name]["synthetic"] == copied[name]["train"] < drawn[name]["synthetic"]
    assert copied["prediction"]["synthetic"] == copied["prediction"]["real"]
    assert copied["prediction"]["real"]["r2"] > drawn["prediction"]["synthetic"]["r2"] + 0.2
