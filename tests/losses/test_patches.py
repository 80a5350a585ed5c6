"""Cells of the page and patches of the references."""

import jax.numpy as jnp
import numpy as np
import pytest

from magiccolor_jax.data.transforms import IMAGENET_MEAN, IMAGENET_STD
from magiccolor_jax.losses.patches import cell_colors, cell_owners, dino_input


def test_only_whole_cells_have_an_owner():
    owner = np.zeros((1, 48, 64), np.int32)
    owner[0, :16, 16:48] = 2
    owner[0, 32:, :31] = 3
    owner[0, 40:, 48:] = 1
    expected = [[0, 2, 2, 0], [0, 0, 0, 0], [3, 0, 0, 0]]
    assert np.array_equal(cell_owners(jnp.asarray(owner))[0], expected)


def test_cell_colours_are_means():
    pixels = np.random.default_rng(0).uniform(-1, 1, (2, 32, 48, 3)).astype(np.float32)
    found = cell_colors(jnp.asarray(pixels))
    assert found.shape == (2, 2, 3, 3)
    np.testing.assert_allclose(found[1, 1, 2], pixels[1, 16:, 32:].mean((0, 1)), rtol=1e-5)


@pytest.mark.parametrize("patch", [14, 16])
def test_a_cell_becomes_a_patch(patch):
    """Cells of one colour each stay so, whatever DINOv2's patch is."""
    colors = np.random.default_rng(0).uniform(-1, 1, (1, 3, 5, 3)).astype(np.float32)
    pixels = colors.repeat(16, 1).repeat(16, 2)
    found = np.asarray(dino_input(jnp.asarray(pixels), patch))
    assert found.shape == (1, 3 * patch, 5 * patch, 3)
    centres = found[:, patch // 2 :: patch, patch // 2 :: patch]
    expected = ((colors + 1) / 2 - IMAGENET_MEAN) / IMAGENET_STD
    np.testing.assert_allclose(centres, expected, atol=1e-5)
