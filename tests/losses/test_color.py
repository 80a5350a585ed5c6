"""Colour matching as a loss, against loops over patches."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from magiccolor_jax.losses.color import Warped, color_loss, warp_colors

BATCH, INSTANCES, ROWS, COLUMNS, SIDE, CHANNELS = 2, 3, 4, 5, 3, 6


@pytest.fixture
def case():
    random = np.random.default_rng(0)
    target = random.standard_normal((BATCH, ROWS, COLUMNS, CHANNELS)).astype(np.float32)
    references = random.standard_normal((BATCH, INSTANCES, SIDE, SIDE, CHANNELS)).astype(np.float32)
    colors = random.uniform(-1, 1, (BATCH, INSTANCES, SIDE, SIDE, 3)).astype(np.float32)
    owner = random.integers(0, INSTANCES + 1, (BATCH, ROWS, COLUMNS)).astype(np.int32)
    counts = random.random((BATCH, INSTANCES, SIDE, SIDE)) < 0.6
    counts[1, 2] = False  # a reference of which nothing counts
    return tuple(map(jnp.asarray, (target, owner, 7 * references, colors, counts)))


def by_loops(*case):
    target, owner, references, colors, counts = map(np.asarray, case)
    found, valid = np.zeros((BATCH, ROWS, COLUMNS, 3)), np.zeros((BATCH, ROWS, COLUMNS), bool)
    for b, row, column in np.ndindex(owner.shape):
        k = owner[b, row, column] - 1
        if k < 0 or not counts[b, k].any():
            continue
        patch, best = target[b, row, column], -np.inf
        for y, x in np.argwhere(counts[b, k]):
            other = references[b, k, y, x]
            cosine = patch @ other / np.linalg.norm(patch) / np.linalg.norm(other)
            if cosine > best:
                best, found[b, row, column] = cosine, colors[b, k, y, x]
        valid[b, row, column] = True
    return found, valid


def test_each_patch_finds_its_nearest_in_its_own_reference(case):
    warped = warp_colors(*case)
    colors, valid = by_loops(*case)
    assert valid.any() and not valid.all()
    np.testing.assert_array_equal(warped.valid, valid)
    np.testing.assert_allclose(warped.colors, colors, rtol=1e-6)


def test_swapped_references_swap_the_colours(case):
    target, owner, references, colors, counts = case
    there = np.array([1, 0, 2])
    swapped = warp_colors(
        target, owner, references[:, there], colors[:, there], counts[:, there]
    ).colors
    first = owner == 1
    as_second = warp_colors(target, jnp.where(first, 2, 0), references, colors, counts).colors
    np.testing.assert_allclose(swapped[first], as_second[first])


def test_the_loss_looks_at_valid_patches_alone(case):
    warped = warp_colors(*case)
    random = np.random.default_rng(1)
    predicted = jnp.float32(random.uniform(-1, 1, warped.colors.shape))
    expected = [
        np.abs(predicted[b] - warped.colors[b]).mean(-1)[warped.valid[b]].mean()
        for b in range(BATCH)
    ]
    np.testing.assert_allclose(color_loss(predicted, warped), expected, rtol=1e-6)
    nowhere = Warped(warped.colors, jnp.zeros_like(warped.valid))
    assert not color_loss(predicted, nowhere).any()
    gradient = jax.grad(lambda x: color_loss(x, warped).sum())(predicted)
    assert not gradient[~np.asarray(warped.valid)].any() and np.isfinite(gradient).all()


def test_nothing_is_learned_by_moving_the_match(case):
    target, *rest = case
    gradient = jax.grad(lambda target: warp_colors(target, *rest).colors.sum())(target)
    assert not gradient.any()
