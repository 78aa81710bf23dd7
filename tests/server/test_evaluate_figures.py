"""Figures of an evaluation: one contract for all of them, and a planted fault that each has to find."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from support.evaluation import evaluation_of, phantoms

from sfumato_common.metrics.tstr import macro_auc
from sfumato_server.evaluate.evaluation import Evaluation
from sfumato_server.evaluate.figures import FIGURES, figure
from sfumato_server.evaluate.images import Images
from sfumato_server.evaluate.rows import Row
from sfumato_server.evaluate.settings import Settings, paced
from sfumato_server.evaluate.training import Training, material

TRAIN, TEST, MADE = (7, 110, 1), (7, 90, 1000), (8, 110, 1)


@pytest.fixture(scope="module")
def whole() -> Evaluation:
    """All figures' trainings, of a set whose images of 'north' are those of patients with 'east's labels too."""
    evaluation = evaluation_of(phantoms(*MADE), phantoms(*TRAIN), phantoms(*TEST))
    evaluation.trainings.run([one for each in FIGURES.values() for one in each.needs(evaluation)], lambda line: None)
    return evaluation


def lines(name: str, evaluation: Evaluation) -> dict[str, Row]:
    return {line.of: line for line in FIGURES[name].measure(evaluation)}


def with_made(evaluation: Evaluation, made: Images, repeated: int = 0) -> Evaluation:
    """The same real images beside another set; nothing is trained."""
    images = Images(made.pixels, made.labels, np.arange(len(made)), made.groups)
    set_of = replace(evaluation.made, images=images, count=len(images), repeated=repeated)
    return Evaluation(set_of, evaluation.real, evaluation.settings)


@pytest.mark.parametrize("name", list(FIGURES))
def test_a_figure_says_what_it_is_and_gives_numbers_inside_their_intervals_or_the_reason_why_not(
    whole: Evaluation, name: str
) -> None:
    each = FIGURES[name]
    assert each.name == name and each.title and each.says.endswith(".")
    assert each.measure.__module__ == f"sfumato_server.evaluate.figures.{name}"
    found = each.measure(whole)
    assert found and {line.figure for line in found} == {name}
    assert len({line.of for line in found}) == len(found)
    for line in found:
        assert line.note or line.value is not None
        for value, low, high in (
            (line.value, line.low, line.high),
            (line.real, line.real_low, line.real_high),
            (line.compared, line.compared_low, line.compared_high),
        ):
            # half of the draws of a share of none are none
            assert low is None or value is None or low - 1e-9 <= value <= high + 1e-9, line
        assert (line.compared is None) == (line.comparison == "") or line.compared is None
        json.dumps(line.as_json(), allow_nan=False)
    assert [line.as_json() for line in each.measure(whole)] == [line.as_json() for line in found]


def test_shuffled_labels_teach_nothing_and_honest_ones_most_of_what_real_ones_do(whole: Evaluation) -> None:
    honest = lines("tstr", whole)["cnn: AUC"]
    assert honest.value > 0.8 and honest.real > 0.8 and honest.compared == pytest.approx(honest.value / honest.real)
    made = whole.made.images
    shuffled = replace(made, labels=np.random.default_rng(0).permutation(made.labels))
    evaluation = with_made(whole, shuffled)
    evaluation.trainings.run(figure.all_seeds(evaluation, figure.on_synthetic("cnn")), lambda line: None)
    evaluation.trainings._found |= {Training("cnn", 0, real=1.0): whole.trainings[Training("cnn", 0, real=1.0)]}
    only_cnn = Evaluation(evaluation.made, evaluation.real, replace(whole.settings, steps={"cnn": 45}))
    only_cnn.trainings._found |= evaluation.trainings._found
    assert abs(lines("tstr", only_cnn)["cnn: AUC"].value - 0.5) < 0.2


def test_a_method_is_known_by_its_own_images_and_one_without_all_labels_has_no_figure(whole: Evaluation) -> None:
    """Half of the set is of a method that has the labels at random, three images of one that has a single label."""
    made, rng = whole.made.images, np.random.default_rng(0)
    source = np.where(np.arange(len(made)) % 2, "honest (spectral)", "random (gan)")
    source[np.flatnonzero(made.labels == 0)[:3]] = "single (gan)"
    labels = np.where(source == "random (gan)", rng.permutation(made.labels), made.labels)
    evaluation = with_made(whole, replace(made, labels=labels, groups={**made.groups, "source": source}))
    evaluation.trainings.run(FIGURES["methods"].needs(evaluation), lambda line: None)
    found = {line.subject: line for line in FIGURES["methods"].measure(evaluation)}
    assert set(found) == {"honest (spectral)", "random (gan)", "single (gan)"}
    assert found["honest (spectral)"].value > 0.75 and abs(found["random (gan)"].value - 0.5) < 0.25
    assert found["single (gan)"].note == "no figure: its images do not have all labels"
    assert found["honest (spectral)"].real == whole.score(figure.on_real("cnn"), macro_auc).value


def test_copies_of_training_images_are_memorisation_and_strangers_are_not(whole: Evaluation) -> None:
    name, apart = "share of near copies of training images", "share nearer to 90 training than to 90 tested patients"
    honest = lines("memorisation", whole)
    assert honest[name].value == 0.0 and "memorisation" not in honest[name].note
    assert abs(honest[apart].value - 0.5) < 0.15 and honest[apart].note == "a half by chance"
    copied = np.clip(
        whole.real.train.pixels + np.random.default_rng(0).normal(0, 2, whole.real.train.pixels.shape), 0, 255
    )
    copies = replace(whole.real.train, pixels=copied.astype(np.uint8))
    found = lines("memorisation", with_made(whole, copies))
    assert found[name].value > 0.95 and found[name].note == "memorisation found"
    # a copy whose own image is among the 90 is nearer to training, and any other as often as not
    among = 90 / len(copies)
    assert found[apart].value > among + 0.5 * (1.0 - among) - 0.1 and "memorisation found" in found[apart].note
    assert found["distance to the nearest training image, median"].compared_high < 0.2
    # one copied patient in a hundred images is seen too
    few = replace(whole.made.images, pixels=np.concatenate([copied[:3].astype(np.uint8), whole.made.images.pixels[3:]]))
    assert lines("memorisation", with_made(whole, few))[name].value == pytest.approx(3 / len(few))


def test_a_set_of_three_images_is_neither_like_real_ones_nor_diverse(whole: Evaluation) -> None:
    made, rng = whole.made.images, np.random.default_rng(0)
    three = made.pixels[np.arange(len(made)) % 3]
    noisy = np.clip(three + rng.normal(0, 1, three.shape), 0, 255).astype(np.uint8)
    collapsed = with_made(whole, replace(made, pixels=noisy), repeated=17)
    before, after = lines("fidelity", whole), lines("fidelity", collapsed)
    recall, coverage = "random convolutions: recall", "random convolutions: coverage"
    assert before[recall].value > 0.8 and after[recall].value < 0.1
    assert before[coverage].value > 0.8 and after[coverage].value < 0.3
    distance = "random convolutions: Frechet distance"
    assert after[distance].value > 3.0 * before[distance].value
    kernel = "random convolutions: kernel distance x 1000"
    assert before[kernel].low < before[kernel].value < before[kernel].high < after[kernel].value
    before, after = lines("diversity", whole), lines("diversity", collapsed)
    assert after["effective number of images"].compared_high < 0.6 < before["effective number of images"].compared
    near = "share nearer to another than all but 1 % of real images"
    assert after[near].value > 0.9 > before[near].value
    assert after["share of the set with the pixels of another image"].value == 17 / len(made)


def test_an_overconfident_classifier_is_miscalibrated(whole: Evaluation) -> None:
    name = "cnn: expected calibration error"
    honest = lines("calibration", whole)
    evaluation = Evaluation(whole.made, whole.real, whole.settings)
    for training, probabilities in whole.trainings._found.items():
        sharp = probabilities**30
        sure = training.synthetic and not training.real
        evaluation.trainings._found[training] = sharp / sharp.sum(axis=1, keepdims=True) if sure else probabilities
    found = lines("calibration", evaluation)
    assert found[name].value > honest[name].value + 0.03
    assert found[name].real == honest[name].real
    assert found["cnn: Brier score"].value > honest["cnn: Brier score"].value


def test_a_group_whose_labels_are_noise_is_seen_in_its_row_and_small_groups_have_none(whole: Evaluation) -> None:
    test = whole.real.test
    labels, rare = test.labels.copy(), np.where(test.patients < np.sort(np.unique(test.patients))[5], "rare", "other")
    male = np.flatnonzero(test.groups["sex"] == "male")
    labels[male] = np.random.default_rng(3).permutation(labels[male])
    groups = {**test.groups, "age": rare}
    evaluation = Evaluation(
        whole.made, replace(whole.real, test=replace(test, labels=labels, groups=groups)), whole.settings
    )
    evaluation.trainings._found |= whole.trainings._found
    found = lines("groups", evaluation)
    assert found["cnn: AUC of sex female"].value > 0.8 > 0.7 > found["cnn: AUC of sex male"].value
    assert found["cnn: AUC of age rare"].value is None and "too few" in found["cnn: AUC of age rare"].note


def test_a_site_without_one_label_has_the_reason_in_place_of_a_figure(whole: Evaluation) -> None:
    found = lines("own", whole)
    assert found["cnn: AUC of east by its own images"].value is not None
    assert "do not have all labels" in found["cnn: AUC of north by its own images"].note
    assert not any(one.site == "north" for one in FIGURES["own"].needs(whole))


def test_a_site_whose_labels_are_the_wrong_way_round_is_seen_by_its_own_images(whole: Evaluation) -> None:
    name, made = "cnn: AUC of east by its own images", whole.made.images
    assert lines("own", whole)[name].value > 0.7
    turned = with_made(
        whole, replace(made, labels=np.where(made.groups["site"] == "east", 1 - made.labels, made.labels))
    )
    mine, real = FIGURES["own"].needs(turned)
    assert mine.synthetic and real == Training("cnn", 0, real=1.0, site="east")
    turned.trainings.run([mine], lambda line: None)
    turned.trainings._found[real] = whole.trainings[real]
    assert lines("own", turned)[name].value < 0.3


def test_augmentation_is_of_the_same_patients_with_and_without_the_set(whole: Evaluation) -> None:
    some, mixed = (
        material(Training("cnn", 4, real=0.2, synthetic=synthetic), whole.made.images, whole.real.train)
        for synthetic in (False, True)
    )
    share = len(np.unique(whole.real.train.patients)) * 0.2
    alone = whole.real.train.of_share(0.2, np.random.default_rng([4, 1]))
    assert share <= alone.people() <= share + 2 and np.array_equal(some[0], alone.pixels)
    assert set(alone.labels.tolist()) == {0, 1}
    # real images are repeated to about half of what is seen
    assert np.array_equal(mixed[0][: len(some[0])], some[0])
    assert abs((len(mixed[0]) - len(whole.made.images)) / len(mixed[0]) - 0.5) < 0.1
    line = lines("augmentation", whole)["cnn: AUC of 10% of the real patients with the set"]
    assert line.compared == pytest.approx(line.value - line.real) and "1 seeds gain" in line.note


def test_an_interval_is_over_patients_and_not_over_their_images(whole: Evaluation) -> None:
    def width(patients: Any) -> float:
        evaluation = Evaluation(
            whole.made, replace(whole.real, test=replace(whole.real.test, patients=patients)), whole.settings
        )
        evaluation.trainings._found |= whole.trainings._found
        line = lines("tstr", evaluation)["cnn: AUC"]
        return line.high - line.low

    patients = whole.real.test.patients
    assert width(patients // 3 * 3) > 1.2 * width(np.arange(len(patients)))


def test_minutes_cut_every_training_alike_and_refuse_what_trains_nothing() -> None:
    count, seconds = {"cnn": 4, "resnet18": 2}, {"cnn": 0.1, "resnet18": 0.5}
    steps = {"cnn": 600, "resnet18": 600}
    assert paced(steps, count, seconds, 60.0) == steps
    cut = paced(steps, count, seconds, 7.0)
    assert cut == {"cnn": 300, "resnet18": 300}
    with pytest.raises(Exception, match="trains nothing"):
        paced(steps, count, seconds, 0.1)


def test_settings_have_no_seed_that_a_figure_could_be_chosen_by() -> None:
    assert not [name for name in vars(Settings()) if "seed" in name and name != "seeds"]
    assert math.isclose(sum(Settings().fractions), 1.1)
