"""Ordinary judges: their layouts, that they learn what is there and nothing else, and that a seed is a figure."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sfumato_common.metrics.judges import JUDGES, fit_judge
from sfumato_common.metrics.tstr import macro_auc


def bars(count: int, seed: int, classes: int = 2, colour: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Noisy images of 32 px; class k has a bright bar k + 1 quarters from the left."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(classes, size=count)
    images = rng.normal(100.0, 20.0, (count, 32, 32))
    for image, label in zip(images, labels, strict=True):
        image[8 * label + 4 : 8 * label + 8] += 80.0
    images = np.clip(images, 0, 255).astype(np.uint8)
    return (np.stack([images] * 3, axis=-1) if colour else images), labels


@pytest.mark.parametrize(("classes", "colour"), [(2, False), (3, True)])
def test_the_quick_one_learns_without_steps_and_nothing_from_labels_at_random(classes, colour):
    images, labels = bars(400, 1, classes, colour)
    tested, truth = bars(200, 2, classes, colour)
    judge = fit_judge("quick", images, labels, classes, 0)
    assert macro_auc(judge.probabilities(tested), truth) > 0.9
    assert judge.features(tested).shape == (200, 1024)
    again = fit_judge("quick", images, labels, classes, 0)
    assert np.array_equal(judge.probabilities(tested), again.probabilities(tested))
    shuffled = fit_judge("quick", images, np.random.default_rng(3).permutation(labels), classes, 0)
    assert abs(macro_auc(shuffled.probabilities(tested), truth) - 0.5) < 0.15


def test_the_quick_one_gives_a_rare_class_the_same_weight():
    images, labels = bars(400, 1)
    kept = (labels == 0) | (np.cumsum(labels == 1) <= 20)
    tested, truth = bars(200, 2)
    found = fit_judge("quick", images[kept], labels[kept], 2, 0).probabilities(tested)
    assert macro_auc(found, truth) > 0.85 and abs((found.argmax(1) == 1).mean() - 0.5) < 0.2


def test_the_residual_network_has_the_size_that_its_paper_and_torchvision_give():
    network = JUDGES["resnet18"].network(3, 1000)
    assert sum(value.numel() for value in network.parameters()) == 11_689_512
    assert network(torch.zeros(2, 3, 224, 224)).shape == (2, 1000)
    assert (
        sum(isinstance(module, torch.nn.Conv2d) and module.kernel_size != (1, 1) for module in network.modules()) == 17
    )


def test_pooling_before_rectifying_is_rectifying_before_pooling_also_in_its_gradients():
    torch.manual_seed(0)
    for pool in (torch.nn.MaxPool2d(2), torch.nn.MaxPool2d(3, 2, 1)):
        x = torch.randn(2, 3, 12, 12, requires_grad=True)
        weights = torch.randn_like(pool(x))
        sides = [pool(x.relu()), pool(x).relu()]
        assert torch.equal(*sides)
        assert torch.equal(*(torch.autograd.grad((side * weights).sum(), x)[0] for side in sides))


@pytest.mark.parametrize("name", list(JUDGES))
@pytest.mark.parametrize("size", [28, 64])
def test_a_judge_takes_the_sizes_of_the_benches_and_gives_probabilities(name, size):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (9, size, size), dtype=np.uint8)
    found = fit_judge(name, images, np.arange(9) % 3, 3, 0, steps=1).probabilities(images)
    assert found.shape == (9, 3) and np.allclose(found.sum(axis=1), 1.0)


def test_it_learns_bars_in_colour_and_more_than_two_classes_and_nothing_from_shuffled_labels():
    images, labels = bars(150, 0, classes=3, colour=True)
    shown, truth = bars(120, 1, classes=3, colour=True)
    assert macro_auc(fit_judge("cnn", images, labels, 3, 0, steps=60).probabilities(shown), truth) > 0.95
    shuffled = np.random.default_rng(2).permutation(labels)
    assert abs(macro_auc(fit_judge("cnn", images, shuffled, 3, 0, steps=60).probabilities(shown), truth) - 0.5) < 0.3


def test_a_seed_gives_the_same_judge_another_seed_another_and_no_state_of_torch_matters():
    images, labels = bars(40, 0)
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = fit_judge("cnn", images, labels, 2, 5, steps=3).probabilities(images)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert np.array_equal(first, fit_judge("cnn", images, labels, 2, 5, steps=3).probabilities(images))
    assert not np.array_equal(first, fit_judge("cnn", images, labels, 2, 6, steps=3).probabilities(images))
