"""One look at a whole set: what is asked, what an answer does, what is only noted."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sfumato_client.dataset import SiteStore
from sfumato_client.ingest import Answers, Facts, SiteImage, Skipped
from sfumato_client.ingest.alike import id_kind, is_placeholder, placeholders, plain_id, plain_person
from sfumato_common.errors import DataError
from sfumato_common.study.terms import ImageForm

FORM, LABELS, KEY = ImageForm(size=16), ("normal", "opacity"), b"k" * 32


def image(patient: str, picture: int, label: int = 0, split: Any = None, **facts: str) -> SiteImage:
    """The `picture`-th picture, of `patient`."""
    pixels = np.random.default_rng(picture).integers(0, 256, (16, 16)).astype(np.uint8)
    return SiteImage(pixels, label, patient, split, "", (), Facts(facts.pop("reference", f"{picture}.png"), **facts))


def ingest(folder: Path, images: Iterable[SiteImage | Skipped], **answers: Any) -> dict[str, Any]:
    """The report of an ingest. Raises DataError as it does."""
    try:
        SiteStore.create(folder / "store", images, FORM, LABELS, KEY, KEY, answers=Answers(**answers))
    finally:
        found = json.loads((folder / "ingest-report.json").read_text())
    return found


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("00123", "123"),
        ("123", "123.0"),
        ("p01", "P01"),
        ("DOE7", "DOE7^"),
        ("12 34", "12  34"),
        ("77\xa01", "77 1"),
        ("M\u00fcller", "Mu\u0308ller"),
        ("M\u00fcller", "M\u00fcller\u200b"),
        ("\uff11\uff12", "12"),
    ],
)
def test_ids_that_look_alike_are_asked_about(tmp_path: Path, one: str, other: str) -> None:
    assert plain_id(one) == plain_id(other)
    images = [image(one, 1), image(other, 2), image("other", 3)]
    with pytest.raises(DataError, match="alike_ids"):
        ingest(tmp_path, images)
    assert not (tmp_path / "store").exists()
    assert ingest(tmp_path, images, alike_ids="merge")["patients"] == 2


def test_ids_that_are_kept_apart_stay_so(tmp_path: Path) -> None:
    assert ingest(tmp_path, [image("p01", 1), image("P01", 2)], alike_ids="separate")["patients"] == 2


def test_ids_that_differ_are_no_question(tmp_path: Path) -> None:
    assert ingest(tmp_path, [image(f"p{n}", n) for n in range(1, 40)])["patients"] == 39


@pytest.mark.parametrize("facts", [{"person": "SAME^PERSON 19500101"}, {"study": "1.2.3"}])
def test_one_person_under_two_ids_is_asked_about(tmp_path: Path, facts: dict[str, str]) -> None:
    images = [image("a", 1, **facts), image("b", 2, **facts)]
    with pytest.raises(DataError, match="same_person"):
        ingest(tmp_path, images)
    assert ingest(tmp_path, images, same_person="merge")["patients"] == 1


def test_what_one_answer_joins_no_other_asks_again(tmp_path: Path) -> None:
    images = [image("p1", 1, study="1.2"), image("P1", 2, study="1.2")]
    assert ingest(tmp_path, images, alike_ids="merge")["patients"] == 1


@pytest.mark.parametrize("facts", [{}, {"instance": "1.2.3"}])
def test_one_image_of_two_patients_is_asked_about(tmp_path: Path, facts: dict[str, str]) -> None:
    images = [image("a", 1, **facts), image("b", 2 if facts else 1, **facts)]
    with pytest.raises(DataError, match="image_of_two_patients"):
        ingest(tmp_path, images)
    merged = ingest(tmp_path, images, image_of_two_patients="merge")
    assert (merged["patients"], merged["kept"]) == (1, 1)


def test_two_patients_may_share_pixels_where_a_person_says_so(tmp_path: Path) -> None:
    found = ingest(tmp_path, [image("a", 1), image("b", 1)], image_of_two_patients="separate")
    assert (found["patients"], found["kept"]) == (2, 2)


def test_no_answer_lets_one_patient_decide_what_another_gives() -> None:
    """Dropping what two share would take from one of them as soon as the other comes."""
    with pytest.raises(ValueError, match="merge"):
        Answers(image_of_two_patients="drop")  # type: ignore[arg-type]


def test_brackets_in_a_files_name_hide_no_copy(tmp_path: Path) -> None:
    images = [image(name, at, instance="1.2", reference=f"x[{at}].dcm") for at, name in enumerate("ab", 1)]
    with pytest.raises(DataError, match="image_of_two_patients"):
        ingest(tmp_path, images)


def test_frames_of_one_object_are_no_copies(tmp_path: Path) -> None:
    images = [image("a", at, instance=f"1.2[{at}]", reference=f"film.dcm[{at}]") for at in range(3)]
    assert ingest(tmp_path, images)["kept"] == 3


def test_the_same_image_again_is_kept_once(tmp_path: Path) -> None:
    found = ingest(tmp_path, [image("a", 1, reference="x.png"), image("a", 1, reference="y.png"), image("b", 2)])
    assert found["kept"] == 2
    assert found["skipped"] == [{"reference": "y.png", "reason": "the same image again (as x.png)"}]
    store = SiteStore.open(tmp_path / "store", KEY)
    pixels, _, owners = store.cohort("train").everything()
    both = [*pixels, *store.cohort("holdout").everything()[0]]
    assert len(both) == 2
    assert len(owners) <= 2


@pytest.mark.parametrize(("answer", "kept"), [("first", 2), ("drop", 1)])
def test_one_image_under_two_labels_is_asked_about(tmp_path: Path, answer: str, kept: int) -> None:
    images = [image("a", 1, 0), image("a", 1, 1), image("a", 2)]
    with pytest.raises(DataError, match="image_of_two_labels"):
        ingest(tmp_path, images)
    assert ingest(tmp_path, images, image_of_two_labels=answer, most_dropped=1.0)["kept"] == kept


@pytest.mark.parametrize("name", ["ANONYMOUS", "anonymous", "Unknown", "0", "000", "1.23457E+11", "1,5e9", "no id"])
def test_an_id_of_anybody_is_asked_about(tmp_path: Path, name: str) -> None:
    images = [image(name, 1), image("a", 2)]
    with pytest.raises(DataError, match="placeholder_ids"):
        ingest(tmp_path, images)
    assert ingest(tmp_path, images, placeholder_ids="drop")["kept"] == 1


def test_zero_is_a_number_where_patients_are_counted() -> None:
    assert is_placeholder("0")
    assert not placeholders({name: id_kind(name) for name in ("0", "1", "2")})
    assert placeholders({name: id_kind(name) for name in ("0", "7134")}) == {"0"}


def test_excel_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="Excel lost digits"):
        ingest(tmp_path, [image("1.23457E+11", 1)])


def test_all_questions_come_at_once(tmp_path: Path) -> None:
    images = [image("p1", 1), image("P1", 2), image("a", 3), image("b", 3), image("ANONYMOUS", 4)]
    with pytest.raises(DataError) as told:
        ingest(tmp_path, images)
    text = str(told.value)
    assert all(key in text for key in ("alike_ids", "image_of_two_patients", "placeholder_ids"))
    assert "P1" not in text, "whose they are stands in the report alone"
    report = json.loads((tmp_path / "ingest-report.json").read_text())
    assert report["questions"][0]["about"] == ["P1 = p1"]


def test_a_set_that_lost_most_of_its_rows_is_a_question(tmp_path: Path) -> None:
    images = [image("a", 1), *(Skipped(f"{n}.png", "file not found") for n in range(3))]
    with pytest.raises(DataError, match="3 of 4 rows were dropped"):
        ingest(tmp_path, images)
    assert ingest(tmp_path, images, most_dropped=0.8)["kept"] == 1


def test_files_that_nobody_listed_are_no_loss(tmp_path: Path) -> None:
    unlisted = [Skipped(f"{n}.png", "no row in the labels table") for n in range(30)]
    assert ingest(tmp_path, [image("a", 1), *unlisted])["kept"] == 1


def test_what_is_only_noted(tmp_path: Path) -> None:
    images = [image("a", 1, 0, "train"), image("a", 2, 0, "holdout"), image("b", 3, 0, "train")]
    notes = ingest(tmp_path, images)["notes"]
    assert any("two splits" in note for note in notes)


def test_a_table_without_holdout_is_noted(tmp_path: Path) -> None:
    notes = ingest(tmp_path, [image(f"p{n}", n, 0, "train") for n in range(3)])["notes"]
    assert any("holds nobody out" in note for note in notes)


def test_a_patient_stays_the_same_whoever_else_is_there(tmp_path: Path) -> None:
    """Pseudonym and split of a merged patient follow from that patient's own identifiers."""
    own = [image("P1", 1), image("p1", 2)]
    names = []
    for at, others in enumerate([[], [image("zz", 3)], [image("a", 4), image("b", 5)]]):
        folder = tmp_path / str(at)
        folder.mkdir()
        ingest(folder, [*others, *own], alike_ids="merge")
        members = SiteStore.open(folder / "store", KEY).members("train", "holdout")
        names.append(members.train | members.holdout)
    assert len(names[0]) == 2, "known again by either identifier"
    assert names[0] < names[1]
    assert names[0] < names[2]


def test_another_identifier_in_a_header_is_asked_about(tmp_path: Path) -> None:
    images = [image("0123", 1), image("b", 2, others="123\nc"), image("d", 3, others="C"), image("e", 4)]
    with pytest.raises(DataError, match="same_person"):
        ingest(tmp_path, images)
    # by the identifier itself, however it is written, and by one that two of them have
    assert ingest(tmp_path, images, same_person="merge")["patients"] == 2


@pytest.mark.parametrize(
    ("name", "birth", "expected"),
    [
        ("DOE^JOHN", "19600102", "doejohn 19600102"),
        ("Doe^John^^^", "1960.01.02", "doejohn 19600102"),
        ("DOE, JOHN", "1960-01-02", "doejohn 19600102"),
        ("Doe^John=\u5c71\u7530", "19600102", "doejohn 19600102"),
        ("M\u00fcller^A", "19600102", plain_person("Mu\u0308ller^A", "19600102")),
        # phantoms and pseudonyms differ by digits alone
        ("PHANTOM^0012", "19600102", "phantom0012 19600102"),
        ("ANONYMOUS", "19600102", ""),
        ("Anonymous^Patient", "19600102", ""),
        ("DOE^JOHN", "", ""),
        ("DOE^JOHN", "19000101", ""),
        ("", "19600102", ""),
    ],
)
def test_a_person_is_a_name_and_a_birth_date_however_they_are_written(name: str, birth: str, expected: str) -> None:
    assert plain_person(name, birth) == expected
