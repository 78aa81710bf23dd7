"""Area averaging against a slow oracle."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from sfumato_common.imaging import area_resize, fit_square


def _oracle(image: np.ndarray, target: int) -> np.ndarray:
    """Repeat every pixel `target` times and average blocks of the source length: exact, for one axis."""
    return np.repeat(image, target, axis=0).reshape(target, image.shape[0], *image.shape[1:]).mean(axis=1)


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 24), st.integers(1, 24), st.integers(0, 2**32 - 1))
def test_equals_the_block_mean_of_the_repeated_image(h: int, w: int, th: int, tw: int, seed: int) -> None:
    image = np.random.default_rng(seed).uniform(0, 4095, (h, w))
    expected = _oracle(_oracle(image, th).T, tw).T
    np.testing.assert_allclose(area_resize(image, th, tw), expected, rtol=1e-4, atol=1e-2)


@pytest.mark.parametrize("factor", [2, 3, 16])
def test_where_pixels_fit_whole_it_is_the_box_filter_of_pillow(factor: int) -> None:
    """Elsewhere Pillow weighs a pixel whole or not at all, by its centre; the difference is seen at small ratios."""
    image = np.random.default_rng(factor).uniform(0, 4095, (16 * factor, 16 * factor)).astype(np.float32)
    wanted = np.asarray(Image.fromarray(image).resize((16, 16), Image.Resampling.BOX))
    np.testing.assert_allclose(area_resize(image, 16, 16), wanted, rtol=1e-5)
    cut = image[: 16 * factor - 5, : 16 * factor - 5]
    other = np.asarray(Image.fromarray(cut).resize((16, 16), Image.Resampling.BOX))
    assert np.abs(area_resize(cut, 16, 16) - other).max() > 1.0


def test_same_size_changes_nothing() -> None:
    image = np.random.default_rng(0).integers(0, 256, (64, 64)).astype(np.uint8)
    assert np.array_equal(np.rint(area_resize(image, 64, 64)), image)


def test_colour_goes_plane_by_plane() -> None:
    image = np.random.default_rng(0).uniform(0, 1, (30, 20, 3))
    out = area_resize(image, 12, 8)
    for channel in range(3):
        np.testing.assert_allclose(out[..., channel], area_resize(image[..., channel], 12, 8), rtol=1e-6)


@pytest.mark.parametrize(("shape", "rows", "columns"), [((40, 20), (0, 32), (8, 24)), ((10, 40), (12, 20), (0, 32))])
def test_fit_square_pads_the_shorter_side_with_black(
    shape: tuple[int, int], rows: tuple[int, int], columns: tuple[int, int]
) -> None:
    out = fit_square(np.ones(shape), 32)
    inside = np.zeros((32, 32), dtype=bool)
    inside[slice(*rows), slice(*columns)] = True
    np.testing.assert_allclose(out[inside], 1.0, rtol=1e-6)
    assert not out[~inside].any()


def test_extreme_ratio_keeps_at_least_one_pixel() -> None:
    assert fit_square(np.ones((1, 5000)), 16).sum() == pytest.approx(16)
