"""Strict configuration: what is refused, in which words, and the plan's identity."""

from __future__ import annotations

import copy
import itertools
import time

import pytest
import yaml
from support.plans import dp_sgd

from sfumato_common.errors import ConfigError
from sfumato_common.strict import load_yaml, parse
from sfumato_common.study.plan import Plan
from sfumato_common.study.policy import Policy

DP_SGD = dp_sgd(rounds=2, local_steps=5, sampling_rate=0.1)
PLAN = {
    "study": "chest",
    "image": {"size": 20, "channels": 1},
    "labels": ["normal", "abnormal"],
    "sites": {"north": {"nominal_patients": 100}, "south": {"nominal_patients": 200}},
    "privacy": {"epsilon": 10.0, "delta": 1e-5},
    "stages": [
        {"kind": "spectral", "bandwidth": 8, "clip_radius": 1.0, "noise_multiplier": 2.0},
        {"kind": "gan", **DP_SGD},
        {"kind": "flow", "levels": 2, **DP_SGD},
    ],
    "release": [{"model": "gan", "images": 100}],
    "utility": {"noise_multiplier": 3.0},
    "federation": {"quorum": 2},
}
POLICY = {
    "site": "north",
    "budget": {"epsilon": 10.0, "delta": 1e-5},
    "allowed_stages": ["spectral", "gan"],
    "minimum_patients": 20,
    "release": {"allowed_methods": ["dp-sampling"], "largest_set": 500},
}


def changed(base, path, value):
    """A copy of `base` with the value at a dotted path replaced, or removed when it is `None`."""
    new = copy.deepcopy(base)
    *parents, last = [int(part) if part.isdigit() else part for part in path.split(".")]
    at = new
    for part in parents:
        at = at[part]
    if value is None:
        del at[last]
    else:
        at[last] = value
    return new


def refusal(value, model=Plan):
    with pytest.raises(ConfigError) as caught:
        parse(value, model, "study.yaml")
    text = str(caught.value)
    assert text.startswith("study.yaml: ")
    assert "\n" not in text
    return text


def test_a_good_plan_and_policy_are_read():
    plan = parse(PLAN, Plan, "study.yaml")
    assert [stage.kind for stage in plan.stages] == ["spectral", "gan", "flow"]
    assert plan.stage("gan").rounds == 2
    assert plan.spectral.bandwidth == 8
    with pytest.raises(KeyError):
        plan.stage("cinn")
    policy = parse(POLICY, Policy, "policy.yaml")
    assert policy.release.gate.declare_verdict is False  # disclosures are opted into
    assert policy.utility_figure == "withheld"
    assert policy.noise == "secure"


@pytest.mark.parametrize(
    ("path", "near"),
    [
        ("stages.1.noise_multiplyer", "noise_multiplier"),
        ("federation.quorom", "quorum"),
        ("privacy.epsilom", "epsilon"),
        ("stagess", "stages"),
        ("image.nominal_patient", "nominal_patients"),  # a right key in the wrong place
    ],
)
def test_an_unknown_key_is_named_with_the_nearest_right_one(path, near):
    text = refusal(changed(PLAN, path, 1))
    assert f"unknown key '{path}'" in text
    assert f"did you mean '{near}'?" in text


def test_an_unknown_key_without_a_near_one_is_named():
    assert "unknown key 'xyzzy'; remove it" in refusal(changed(PLAN, "xyzzy", 1))
    assert "did you mean 'largest_set'" in refusal(changed(POLICY, "release.largest_sets", 1), Policy)


@pytest.mark.parametrize("path", ["study", "privacy.delta", "stages.0.noise_multiplier", "stages.2.rounds"])
def test_a_missing_key_is_named(path):
    assert f"missing key '{path}'; add it" in refusal(changed(PLAN, path, None))


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("federation.quorum", 3, "quorum is 3, and the plan has 2 sites: write 2 or less"),
        ("image.size", 20 + 2, "multiple of 4"),
        ("stages.2.levels", 3, "divisible by 2^levels = 8"),
        ("stages.0.bandwidth", 21, "bandwidth is larger than the image"),
        ("stages.2", {"kind": "gan", **DP_SGD}, "each kind may occur once"),
        ("stages.0", {"kind": "cinn"}, "stages.0"),
        ("release.0.model", "cinn", "release.0.model"),
        ("labels", ["normal", "normal"], "differ from each other"),
        ("labels", ["normal"], "labels"),
        ("labels.0", "Normal Finding", "labels.0"),
        ("privacy.unit", "image", "privacy.unit"),
        ("privacy.epsilon", float("inf"), "privacy.epsilon"),
        ("privacy.epsilon", float("nan"), "privacy.epsilon"),
        ("privacy.epsilon", "10", "privacy.epsilon"),
        ("privacy.delta", 0.0, "privacy.delta"),
        ("stages.1.sampling_rate", 0.0, "sampling_rate"),
        ("stages.1.noise_multiplier", 0.0, "noise_multiplier"),
        ("stages.1.rounds", 2.0, "rounds"),
        ("stages.1.rounds", True, "rounds"),
        ("sites", {}, "sites"),
        ("sites", {"../north": {"nominal_patients": 100}}, "sites"),
        ("study", "../../etc", "study"),
    ],
)
def test_bad_values_are_refused_by_name(path, value, words):
    assert words in refusal(changed(PLAN, path, value))


def test_the_first_stage_is_spectral_and_releases_name_trained_models_once():
    assert "first stage must be 'spectral'" in refusal({**PLAN, "stages": PLAN["stages"][1:]})
    assert "which no stage trains" in refusal({**PLAN, "stages": PLAN["stages"][:1]})
    assert "released once" in refusal({**PLAN, "release": PLAN["release"] * 2})


CHOICE = {"kind": "choice", "noise_multiplier": 2.0}


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        (
            changed(PLAN, "image", {"size": 20, "channels": 3, "bits": 16}),
            "study.yaml: 'image': 16 bits a value are for grey images only; write 'bits: 8', which colour cameras give",
        ),
        (
            # one set of classifiers a study: a second one would be a second look at the same patients
            {**PLAN, "stages": [*PLAN["stages"], CHOICE, CHOICE]},
            "study.yaml: stage 'choice' is there more than once; each kind may occur once, remove the others",
        ),
    ],
)
def test_what_is_not_supported_is_one_sentence_when_the_plan_is_read(value, sentence):
    assert refusal(value) == sentence


def test_a_generator_begins_at_an_earlier_embedding_stage_or_at_pinned_weights():
    spectral, gan, *others = PLAN["stages"]
    embedding = {"kind": "embedding", "noise_multiplier": 1.0}
    begun = {**gan, "generator_start": "embedding"}
    assert parse({**PLAN, "stages": [spectral, embedding, begun, *others]}, Plan, "study.yaml")
    assert "needs an 'embedding' stage before" in refusal({**PLAN, "stages": [spectral, begun, *others]})
    assert "needs an 'embedding' stage before" in refusal({**PLAN, "stages": [spectral, begun, embedding, *others]})
    pinned = {**begun, "start": {"source": "phantom", "sha256": "0" * 64}}
    assert "give one of them" in refusal({**PLAN, "stages": [spectral, embedding, pinned, *others]})


def test_plain_values_of_the_wrong_kind_are_refused():
    for value in (None, [], "plan", 3):
        assert "mapping" in refusal(value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("study: a\nstudy: b\n", "key 'study' is given twice"),
        ("image:\n  size: 20\n  size: 24\n", "line 3: key 'size' is given twice"),
        ("study: [a\n", "not valid YAML"),
        ("- a\n- b\n", "mapping"),
        ("", "mapping"),
        ("study: !!python/object/apply:os.system ['true']\n", "line 1: 'study': a type in the file"),
        ("? [a, b]\n: 1\n", "line 1: a key is not a plain word"),
        ("study: a\nno: 1\n", "line 2: unknown key 'no'"),
        ("study: 2001-99-99\n", "line 1: 'study': '2001-99-99' is no name here"),
        ("study: " + "9" * 5000 + "\n", "longer than any number"),
        ("study: " + "[" * 3000 + "]" * 3000 + "\n", "cannot be read"),
    ],
)
def test_bad_yaml_is_told_with_its_line(tmp_path, text, words):
    file = tmp_path / "study.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_yaml(file, Plan)
    assert words in str(caught.value)
    assert len(str(caught.value)) < 1000
    assert str(tmp_path) not in str(caught.value)


def test_aliases_of_aliases_are_refused_before_they_are_written_out(tmp_path):
    """Nine levels of nine aliases: 9^9 words once written out, and the same of merged keys, which add none."""
    words, file = [*"abcdefghi"], tmp_path / "study.yaml"
    levels = [f"{word}: &{word} [{', '.join(['*' + before] * 9)}]" for before, word in itertools.pairwise(words)]
    file.write_text("\n".join(["a: &a [x, x, x, x, x, x, x, x, x]", *levels]))
    started = time.process_time()
    merges = [
        f"{word}: &{word} {{<<: [{', '.join(['*' + before] * 9)}]}}" for before, word in itertools.pairwise(words)
    ]
    merged = "\n".join(["a: &a {}", *merges])
    for text in (
        file.read_text(),
        file.read_text() + "\nstudy: *i\n",
        merged,
        "study: &a [*a]\n",
        "s: &a {t: {<<: *a}}",
    ):
        file.write_text(text)
        with pytest.raises(ConfigError) as caught:
            load_yaml(file, Plan)
        assert "aliases repeat it without end" in str(caught.value)
    assert time.process_time() - started < 2.0


def test_unreadable_files_are_one_clear_line(tmp_path):
    binary = tmp_path / "study.yaml"
    binary.write_bytes(b"\xff\xfe\x00")
    for path in (binary, tmp_path / "absent.yaml", tmp_path):
        with pytest.raises(ConfigError, match="cannot be read"):
            load_yaml(path, Plan)


def test_the_digest_is_stable_and_independent_of_the_way_of_writing(tmp_path):
    plan = parse(PLAN, Plan, "study.yaml")
    file = tmp_path / "study.yaml"
    file.write_text("# a comment\n" + yaml.safe_dump(PLAN, sort_keys=False, default_flow_style=True))
    assert load_yaml(file, Plan).digest == plan.digest
    backwards = dict(reversed(PLAN.items()))
    assert parse(backwards, Plan, "x").digest == plan.digest
    stored = plan.model_dump(mode="json")
    assert parse(stored, Plan, "x").digest == plan.digest  # what a site pins and reads back
    assert len(plan.digest) == 64


def leaves(value, path=()):
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from leaves(inner, (*path, key))
    elif isinstance(value, list):
        for at, inner in enumerate(value):
            yield from leaves(inner, (*path, str(at)))
    else:
        yield ".".join(path), value


NUDGED = [
    (path, value * 2 if isinstance(value, int) else value / 2)
    for path, value in leaves(PLAN)
    if isinstance(value, int | float) and path not in ("image.channels", "federation.quorum", "stages.2.levels")
] + [("study", "other"), ("labels.0", "other"), ("image.channels", 3), ("federation.quorum", 1), ("stages.2.levels", 1)]


@pytest.mark.parametrize(("path", "value"), NUDGED)
def test_the_digest_changes_with_any_value(path, value):
    assert parse(changed(PLAN, path, value), Plan, "x").digest != parse(PLAN, Plan, "x").digest


def test_defaults_are_part_of_the_digest():
    spelled_out = changed(PLAN, "federation.round_deadline_s", 300)
    assert parse(spelled_out, Plan, "x").digest == parse(PLAN, Plan, "x").digest
    assert parse(changed(PLAN, "federation.round_deadline_s", 301), Plan, "x").digest != parse(PLAN, Plan, "x").digest


def test_configuration_is_frozen():
    plan = parse(PLAN, Plan, "x")
    with pytest.raises(ValueError, match="frozen"):
        plan.study = "other"


EVERY_KIND = {
    **PLAN,
    "stages": [
        {**PLAN["stages"][0], "by_site": True, "radii": "charged"},
        {"kind": "embedding", "noise_multiplier": 1.0, "width": 8},
        {**PLAN["stages"][1], "width": 8, "discriminators": "per-site", "server": {"kind": "momentum"}},
        {**PLAN["stages"][2], "architecture": "cinn", "start": {"source": "phantom", "sha256": "0" * 64}},
        {"kind": "choice", "noise_multiplier": 2.0},
    ],
    "release": [
        {"model": "best", "images": 4},
        {"method": "k-salsa", "images": 4, "model": "embedding"},
        {"method": "dp-glow", "images": 4, "radius": 1.0, "epsilon": 1.0},
    ],
}


@pytest.mark.parametrize(
    ("value", "digest"),
    [
        (PLAN, "e272fc2ab8e231c1c54ff4fd19bdd331900a2430cddc8958156da96759960693"),
        # sites are asked anew: what 'label' of dp-glow and 'distance' of k-salsa stand for was another thing before
        (EVERY_KIND, "9b6ff0ff631720a27f0b9f4ecc114932670396754c83e7c023fcf791e54f106f"),
    ],
)
def test_the_digest_of_a_plan_that_sites_accepted_never_changes(value, digest):
    assert parse(value, Plan, "study.yaml").digest == digest
