"""Distances between palettes, on colours whose Oklab values are known."""

from pathlib import Path

import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment
from skimage.color import deltaE_ciede2000, rgb2lab

from magiccolor_jax.evaluation.palettes import (
    distance,
    dominant_colors,
    follows,
    leakage,
    oklab_error,
    own_closest,
    palette_of,
    transport,
)
from magiccolor_jax.types import Case

WHITE, BLACK, RED, BLUE = (255, 255, 255), (0, 0, 0), (255, 0, 0), (0, 0, 255)

RED_TO_BLUE = 100 * np.linalg.norm(
    np.subtract((0.62796, 0.22486, 0.12585), (0.45201, -0.03246, -0.31153))
)
"""Oklab of sRGB's primaries (CSS Color 4, sample values)."""


def pixels(*counted):
    return np.concatenate([np.full((count, 3), color, np.uint8) for color, count in counted])


def test_distance_goes_to_the_nearest_colour_by_shares():
    mostly_red = palette_of(pixels((RED, 30), (BLUE, 10)))
    blue = palette_of(pixels((BLUE, 5)))
    assert distance(mostly_red, blue) == pytest.approx(0.75 * RED_TO_BLUE, rel=1e-3)
    assert distance(blue, mostly_red) == pytest.approx(0, abs=1e-3)
    assert distance(palette_of(pixels((WHITE, 9))), palette_of(pixels((BLACK, 9)))) == (
        pytest.approx(100, rel=1e-3)
    )


def two_regions(left, right):
    """A page of two halves, on white, and a case whose references are red and blue."""
    page = np.full((20, 40, 3), 255, np.uint8)
    masks = np.zeros((2, 20, 40), np.uint8)
    masks[0, 4:16, 4:16] = masks[1, 4:16, 24:36] = 255
    page[masks[0] > 0], page[masks[1] > 0] = left, right
    references = tuple(np.full((8, 8, 3), c, np.uint8) for c in (RED, BLUE))
    whole = np.full((8, 8), 255, np.uint8)
    return page, Case("page", Path(), "magiccolor", page, references, (whole,) * 2, tuple(masks))


@pytest.mark.parametrize(
    ("left", "right", "expected"),
    [(RED, BLUE, [True, True]), (BLUE, RED, [False, False]), (RED, RED, [True, False])],
)
def test_own_closest(left, right, expected):
    page, case = two_regions(left, right)
    assert own_closest(leakage(page, case)).tolist() == expected


@pytest.mark.parametrize(
    ("left", "right", "expected"),
    [(RED, BLUE, [True, True]), (BLUE, RED, [False, False]), (RED, RED, [True, False])],
)
def test_colours_follow_the_reference_that_was_given(left, right, expected):
    """A third reference in the colours of the first changes nothing."""
    page, case = two_regions(left, right)
    distances = leakage(page, case)
    three = np.pad(distances, ((0, 1), (0, 1)), constant_values=0.0)
    assert follows(distances).tolist() == follows(three).tolist() == expected


def test_the_edge_of_a_region_does_not_count():
    page, case = two_regions(RED, BLUE)
    page[4, 4:16] = BLUE
    assert leakage(page, case)[0, 0] == pytest.approx(0, abs=1e-3)


def test_the_error_is_a_mean_over_the_inner_region():
    page, case = two_regions(RED, BLUE)
    made = page.copy()
    made[4:16, 4:10] = BLUE
    error = oklab_error(made, page, case.sketch_masks[0] > 0)
    assert error == pytest.approx(0.5 * RED_TO_BLUE, rel=1e-3)
    assert oklab_error(made, page, case.sketch_masks[1] > 0) == 0


def lab(color):
    return rgb2lab(np.array(color, np.uint8)[None, None])[0, 0]


def test_transport_moves_what_is_too_much_alone():
    few, many = (dominant_colors(pixels((RED, n), (BLUE, 40 - n))) for n in (10, 30))
    expected = 0.5 * deltaE_ciede2000(lab(RED), lab(BLUE))
    assert transport(few, many) == pytest.approx(expected, rel=1e-4)
    assert transport(many, few) == pytest.approx(expected, rel=1e-4)
    assert transport(many, many) == pytest.approx(0, abs=1e-4)


def test_transport_takes_the_cheapest_pairs():
    random = np.random.default_rng(0)
    first, second = random.integers(0, 256, (2, 5, 3), dtype=np.uint8)
    costs = deltaE_ciede2000(
        *(rgb2lab(c[None])[0][:, None] for c in (first,)), rgb2lab(second[None])[0][None]
    )
    rows, columns = linear_sum_assignment(costs)
    palettes = (
        dominant_colors(pixels(*((tuple(c), 7) for c in colors))) for colors in (first, second)
    )
    assert transport(*palettes) == pytest.approx(costs[rows, columns].mean(), rel=1e-4)
