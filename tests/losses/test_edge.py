"""Sobel edges against OpenCV's, and what they weigh."""

import cv2
import jax.numpy as jnp
import numpy as np
import pytest

from magiccolor_jax.losses.edge import edge_weight, sobel_edges

GREY = np.array([0.299, 0.587, 0.114], np.float32)


def picture(shape, seed=0):
    return np.random.default_rng(seed).uniform(-1, 1, (*shape, 3)).astype(np.float32)


@pytest.mark.parametrize("shape", [(8, 8), (17, 30), (3, 2)])
def test_equals_opencv(shape):
    pixels = picture(shape)
    grey = pixels @ GREY
    across, down = (cv2.Sobel(grey, cv2.CV_32F, *axis, ksize=3) for axis in ((1, 0), (0, 1)))
    expected = np.hypot(across, down) / 8
    np.testing.assert_allclose(sobel_edges(jnp.asarray(pixels[None]))[0], expected, atol=1e-6)


def test_a_full_contrast_edge_is_one():
    pixels = np.full((1, 16, 16, 3), -1, np.float32)
    pixels[:, :, 8:] = 1
    edges = np.asarray(sobel_edges(jnp.asarray(pixels)))
    np.testing.assert_allclose(edges[0, :, 7:9], 1, rtol=1e-6)
    assert not edges[0, :, :7].any() and not edges[0, :, 9:].any()


@pytest.mark.parametrize(("progress", "at_edge"), [(0.0, 1.0), (0.5, 1.5), (1.0, 2.0)])
def test_the_weight_grows_at_edges_alone(progress, at_edge):
    pixels = np.full((2, 16, 32, 3), -1, np.float32)
    pixels[1, :, 12:] = 1
    weight = np.asarray(edge_weight(jnp.asarray(pixels), 8, progress))
    assert weight.shape == (2, 2, 4, 1)
    np.testing.assert_allclose(weight[0], 1)
    np.testing.assert_allclose(weight[1, :, 1], at_edge, rtol=1e-6)
    np.testing.assert_allclose(weight[1, :, [0, 2, 3]], 1)
