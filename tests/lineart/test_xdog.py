"""XDoG against its formula written out as sums, and on pictures whose lines are known."""

import math

import numpy as np
import pytest

from magiccolor_jax.lineart import EXTRACTORS
from magiccolor_jax.lineart.xdog import XDoG, xdog


def slow_blur(values: np.ndarray, sigma: float) -> np.ndarray:
    """A Gaussian as a plain double sum, the picture mirrored about its edges."""
    radius = math.ceil(4 * sigma)
    weights = np.exp(-(np.arange(-radius, radius + 1) ** 2) / (2 * sigma**2))
    kernel = np.outer(weights, weights) / weights.sum() ** 2
    padded = np.pad(values, radius, mode="symmetric")
    out = np.zeros_like(values)
    for y, x in np.ndindex(kernel.shape):
        out += kernel[y, x] * padded[y : y + values.shape[0], x : x + values.shape[1]]
    return out


def slow_xdog(picture: np.ndarray, config: XDoG) -> np.ndarray:
    grey = picture @ (0.299, 0.587, 0.114) / 255
    sigma = config.sigma * math.sqrt(grey.size) / 512
    narrow, wide = slow_blur(grey, sigma), slow_blur(grey, sigma * config.ratio)
    u = narrow + config.sharpness * (narrow - wide)
    soft = 1 + np.tanh(config.steepness * (u - config.threshold))
    return 255 * np.where(u >= config.threshold, 1, soft)


@pytest.mark.parametrize(
    "config",
    [
        XDoG(sigma=6.0),
        XDoG(sigma=9.0, ratio=2.5, sharpness=3.0, threshold=0.6, steepness=2.0),
        XDoG(sigma=4.0, sharpness=0.0, threshold=1.0, steepness=1.0),
    ],
)
def test_equals_the_formula(config: XDoG):
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 256, (41, 67, 3), dtype=np.uint8)
    picture[8:30, 20:50] = (200, 30, 90)
    found, expected = xdog(picture, config), slow_xdog(picture, config)
    assert found.shape == (41, 67) and found.dtype == np.uint8
    assert np.abs(found - expected).max() < 0.55
    assert expected.std() > 10


@pytest.mark.parametrize(("colour", "paper"), [((255, 255, 255), 255), ((200, 60, 30), 255)])
def test_a_plain_picture_has_no_lines(colour: tuple[int, int, int], paper: int):
    plain = np.full((33, 50, 3), colour, np.uint8)
    np.testing.assert_array_equal(xdog(plain), paper)


def test_black_areas_are_ink():
    np.testing.assert_array_less(xdog(np.zeros((33, 50, 3), np.uint8)), 12)


def test_an_edge_is_a_line_on_its_dark_side():
    picture = np.full((64, 200, 3), (180, 200, 220), np.uint8)
    picture[:, 100:] = (120, 60, 60)
    lines = xdog(picture, XDoG(sigma=3.0))
    assert (lines == lines[:1]).all()
    ink = np.flatnonzero(lines[0] < 30)
    assert ink.min() == 100 and ink.max() <= 103
    np.testing.assert_array_equal(lines[:, :99], 255)
    np.testing.assert_array_equal(lines[:, 110:], 255)


def test_lines_grow_with_the_picture():
    def width(side: int) -> int:
        picture = np.full((side, side, 3), 220, np.uint8)
        picture[:, side // 2 :] = 90
        return int((xdog(picture, XDoG(sigma=2.0))[0] < 128).sum())

    assert width(512) >= 2
    assert width(2048) == pytest.approx(4 * width(512), abs=3)


def test_extractors_go_by_name():
    picture = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    for extract in EXTRACTORS.values():
        lines = extract(picture)
        assert lines.shape == (20, 30) and lines.dtype == np.uint8
    np.testing.assert_array_equal(EXTRACTORS["xdog"](picture), xdog(picture, XDoG()))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("sigma", 0.0),
        ("sigma", math.inf),
        ("ratio", 1.0),
        ("sharpness", -1.0),
        ("threshold", 1.5),
        ("steepness", math.nan),
    ],
)
def test_bad_parameters(field: str, value: float):
    with pytest.raises(ValueError, match=f"XDoG.{field}: expected"):
        XDoG(**{field: value})
