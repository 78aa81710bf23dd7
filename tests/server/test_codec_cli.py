"""`sfumato model pretrain codec` and `model reconstruct`: public sources, a folder, a report, clear refusals."""

import csv
import json

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from safetensors.numpy import save
from support.plans import dp_sgd, small_plan
from typer.testing import CliRunner

from sfumato_common.codec.folder import weights_of
from sfumato_common.codec.form import CodecForm
from sfumato_common.codec.network import Codec
from sfumato_common.codec.public_images import read_public
from sfumato_common.errors import DataError, SfumatoError
from sfumato_common.phantom import arrays
from sfumato_common.types import fingerprint
from sfumato_server.cli.main import app

TINY = ["--size", "32", "--numbers", "64", "--kept", "32", "--width", "8", "--blocks", "1", "--batch", "8"]


def run(*words):
    return CliRunner().invoke(app, ["model", *map(str, words)])


@pytest.fixture
def collection(tmp_path):
    """An archive, an index of it and of two sites, and a folder of pictures."""
    images, _, patients = arrays(5, 12, 32)
    np.savez(tmp_path / "set.npz", images=images, patient_id=np.array([f"p{number}" for number in patients]))
    with (tmp_path / "index.csv").open("w", newline="") as stream:
        table = csv.writer(stream)
        table.writerow(["set", "row", "site", "patient_id"])
        for row, patient in enumerate(patients):
            table.writerow(["set", row, "alder" if patient < 6 else "birch", f"p{patient}"])
    (tmp_path / "pictures").mkdir()
    for number, image in enumerate(images[:4]):
        Image.fromarray(image).save(tmp_path / "pictures" / f"{number}.png")
    Image.fromarray(images[4]).resize((40, 50)).save(tmp_path / "pictures" / "other.jpg")
    with (tmp_path / "files.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([["file", "patient_id"], ["pictures/0.png", "a"], ["pictures/1.png", "a"]])
    return tmp_path, images, patients


def test_a_codec_is_trained_scored_and_written_and_read_again(tmp_path):
    out = tmp_path / "codec"
    made = run("pretrain", "codec", "--on", "phantom", "--out", out, "--steps", 3, "--patients", 12, *TINY)
    assert made.exit_code == 0, made.output
    assert "100%  step      3" in made.output
    assert {path.name for path in out.iterdir()} == {"config.json", "codec.safetensors", "sheet.png"}
    stated = json.loads((out / "config.json").read_text())
    assert stated["licence"] == "drawn by Sfumato: nobody's"
    assert [source["name"] for source in stated["sources"]] == ["phantom"]
    assert stated["report"]["steps"] == 3 and stated["report"]["held_out_images"] >= 1
    assert stated["weights_sha256"] in made.output.replace("\n", "")
    with Image.open(out / "sheet.png") as sheet:
        assert sheet.height == 3 * 32 + 2 * 2  # images, cosines, codec at their own size
    again = run(
        "reconstruct",
        out,
        "--on",
        "phantom",
        "-o",
        tmp_path / "s.png",
        "--patients",
        4,
        "--sha256",
        stated["weights_sha256"],
    )
    assert again.exit_code == 0, again.output
    assert "64 cosines:" in again.output and (tmp_path / "s.png").exists()
    further = run(
        "pretrain", "codec", "--from", out, "--on", "phantom", "--out", tmp_path / "on", "--steps", 2, "--patients", 12
    )
    assert further.exit_code == 0, further.output
    later = json.loads((tmp_path / "on" / "config.json").read_text())
    assert (later["form"], later["sources"]) == (stated["form"], stated["sources"])
    assert later["weights_sha256"] != stated["weights_sha256"]
    other = run("reconstruct", out, "--on", "phantom", "-o", tmp_path / "s.png", "--sha256", "0" * 64)
    assert "not the one" in str(other.exception)


def test_sources_are_read_together_and_patients_stay_apart(collection):
    folder, images, _ = collection
    names = [str(folder / "index.csv"), str(folder / "pictures"), "phantom"]
    public = read_public(names, 32, 1, patients=4, seed=0)
    assert (public.images[: len(images)] == images).all()
    assert [source.name for source in public.sources] == ["index.csv", "pictures", "phantom"]
    assert [source.patients for source in public.sources] == [12, 5, 4]
    assert public.patient_index.max() == 12 + 5 + 4 - 1


def test_patients_that_are_scored_are_not_trained_on(collection):
    folder, images, patients = collection
    shown, held = read_public([str(folder / "index.csv")], 32, 1, patients=4, seed=0).halves(0, 0.3)
    assert len(shown) + len(held) == len(images)
    parts = [
        {patients[row] for row in range(len(images)) if (images[row] == part).all((1, 2)).any()}
        for part in (shown, held)
    ]
    assert len(parts[1]) == 4
    assert not parts[0] & parts[1]


def test_of_an_index_only_the_named_sites_are_read(collection):
    folder, images, patients = collection
    public = read_public([str(folder / "index.csv")], 32, 1, patients=4, seed=0, sites=["birch"])
    assert (public.images == images[patients >= 6]).all()
    files = read_public([str(folder / "files.csv")], 32, 1, patients=4, seed=0)
    assert files.patient_index.tolist() == [0, 0]


@pytest.mark.parametrize(
    ("on", "said"),
    [
        ("nothing.npz", "cannot be read"),
        ("nothing.csv", "cannot be read"),
        ("nothing", "neither 'phantom'"),
        ("empty", "no image to learn from"),
        ("colour.npz", "in colour; set --channels"),
        ("outside.csv", "not beside it"),
        ("columns.csv", "needs the columns"),
        ("rows.csv", "a row that its archive does not have"),
        ("broken", "cannot be decoded"),
    ],
)
def test_a_source_that_cannot_be_read_says_why_without_its_folder(collection, on, said):
    folder, images, _ = collection
    (folder / "empty").mkdir()
    (folder / "broken").mkdir()
    (folder / "broken" / "x.png").write_bytes(b"no picture")
    np.savez(folder / "colour.npz", images=np.stack([images] * 3, axis=-1))
    (folder / "outside.csv").write_text("file\n../x.png\n")
    (folder / "columns.csv").write_text("name\nx\n")
    (folder / "rows.csv").write_text("set,row\nset,999\n")
    with pytest.raises(SfumatoError, match=said) as refused:
        read_public([str(folder / on)], 32, 1, patients=4, seed=0)
    assert str(folder) not in str(refused.value)


def test_images_of_one_patient_cannot_be_scored_apart(collection):
    public = read_public([str(collection[0] / "files.csv")], 32, 1, patients=4, seed=0)
    with pytest.raises(DataError, match="one patient"):
        public.halves(0)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--on", "phantom"], "--minutes or --steps"),
        (["--on", "set.npz", "--steps", "1"], "--licence"),
        (["--on", "phantom", "--steps", "1", "--numbers", "9999999"], "more than a quarter"),
        (["--on", "phantom", "--steps", "1", "--losses", "pixels=1"], "did you mean 'pixel'"),
        (["--on", "phantom", "--steps", "1", "--losses", "pixel"], "a list such as"),
    ],
)
def test_what_is_lacking_or_wrong_is_said_before_anything_is_trained(tmp_path, words, said):
    done = run("pretrain", "codec", "--out", tmp_path / "codec", *words)
    assert said in str(done.exception)
    assert not (tmp_path / "codec").exists()


def test_a_start_is_asked_for_by_name(tmp_path):
    words = (tmp_path / "plan.yaml", "--out", tmp_path / "w.safetensors")
    assert "plan.yaml: cannot be read" in str(run("pretrain", "start", *words).exception)
    bare = run("pretrain", *words)
    assert bare.exit_code == 2 and "No such command" in bare.output


def test_a_start_on_codes_takes_the_codec_that_the_plan_pins_and_no_other(tmp_path):
    form = {"size": 32, "cosines": 64, "kept": 32, "width": 8, "encoder_blocks": 1, "decoder_blocks": 1}
    codec = Codec(CodecForm(**form), torch.Generator().manual_seed(0))
    weights = weights_of(codec)
    stages = [
        {"kind": "codec", "noise_multiplier": 0.5, "form": form},
        {"kind": "flow", "levels": 1, "hidden": 8, **dp_sgd()},
    ]
    stages[0]["start"] = {"source": "phantom", "sha256": fingerprint(weights)}
    values = small_plan(released="flow", sites={"alder": 40}) | {"image": {"size": 32}, "stages": stages}
    plan, file, other, out = (tmp_path / name for name in ("plan.yaml", "codec.st", "other.st", "start.st"))
    plan.write_text(yaml.safe_dump(values))
    file.write_bytes(save(weights))
    other.write_bytes(save({name: value + 1 for name, value in weights.items()}))
    words = ["pretrain", "start", plan, "--out", out, "--stage", "flow", "--steps", 2, "--patients", 10]
    assert "name its 'codec.safetensors'" in str(run(*words).exception)
    assert "pins by its sha256" in str(run(*words, "--codec", other).exception)
    done = run(*words, "--codec", file)
    assert done.exit_code == 0 and "stage 'flow' of the plan: start:" in done.output and out.exists()
    bare = values | {"stages": [{**stages[0], "start": None}, stages[1]]}
    plan.write_text(yaml.safe_dump(bare))
    assert "pins no codec" in str(run(*words, "--codec", file).exception)
