"""L*a*b* and CIEDE2000 against scikit-image's."""

import jax
import numpy as np
import pytest
from skimage.color import deltaE_ciede2000, rgb2lab

from magiccolor_jax.evaluation.ciede2000 import ciede2000, srgb_to_lab

COUNT = 4000


def colours(seed=0):
    """All kinds, with greys, and pairs that are close to each other among them."""
    random = np.random.default_rng(seed)
    first, second = random.uniform(0, 1, (2, COUNT, 3))
    first[:100] = first[:100, :1]
    second[:50] = second[:50, :1]
    near = slice(COUNT // 2, None)
    second[near] = np.clip(first[near] + random.normal(0, 0.02, first[near].shape), 0, 1)
    return first, second


def ours(function, *arrays):
    return np.asarray(jax.jit(function)(*(a.astype(np.float32) for a in arrays)))


def test_lab():
    first, _ = colours()
    first[:3] = [[0, 0, 0], [1, 1, 1], [0.04, 0.0405, 0.001]]
    np.testing.assert_allclose(ours(srgb_to_lab, first), rgb2lab(first), atol=2e-4)


def test_distances():
    first, second = map(rgb2lab, colours())
    first[:100, 1:] = 0  # exact greys, whose hue is none
    expected = deltaE_ciede2000(first, second)
    np.testing.assert_allclose(ours(ciede2000, first, second), expected, atol=1e-3)
    np.testing.assert_allclose(ours(ciede2000, second, first), expected, atol=1e-3)


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ((50, 2.5, 0), (50, 0, -2.5), 4.3065),  # hues more than half a turn apart
        ((50, -1, 2), (50, 0, 0), 2.3669),
        ((2.0776, 0.0795, -1.135), (0.9033, -0.0636, -0.5514), 0.9082),
        ((0, 0, 0), (100, 0, 0), 100.0),
        ((30, 20, -70), (30, 20, -70), 0.0),
    ],
)
def test_known_pairs(first, second, expected):
    """Most are of the table of Sharma, Wu and Dalal."""
    pair = np.array([first, second], np.float64)[:, None]
    assert ours(ciede2000, *pair)[0] == pytest.approx(expected, abs=5e-5)
