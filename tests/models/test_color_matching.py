"""Colour matching against plain loops and against the release's own order of writing."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from magiccolor_jax.models.color_matching import (
    RELEASE_POINTS,
    Matching,
    match_colors,
    match_release,
    nearest_positions,
    release_order,
)


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


@pytest.mark.torch
@pytest.mark.parametrize("points", [64, 40])
@pytest.mark.parametrize("alike", [False, True], ids=["spread", "many to one"])
def test_release_equals_the_oracle(points, alike):
    """`many to one`: all sources look alike, so that targets are written again and again."""
    torch = pytest.importorskip("torch")
    from oracles.release_parts import ColorMatcher

    source, target = normal(2, 8, 8, 6), normal(2, 8, 8, 6, seed=1)
    if alike:
        source = 0.2 * source + 3
    order = np.random.default_rng(2).permutation(64)[:points]
    as_torch = [torch.tensor(x).permute(0, 3, 1, 2) for x in (source, target)]
    matcher = ColorMatcher(as_torch[0], torch.tensor(order), None)
    theirs = matcher(as_torch[1]).permute(0, 2, 3, 1).numpy()
    matching = Matching(jnp.asarray(source), order=jnp.asarray(order)[None])
    ours, nearest = match_release(jnp.asarray(target), matching)
    assert np.array_equal(nearest[0], matcher.nearest)
    assert np.abs(ours - theirs).max() < 1e-6
    hits = np.unique(nearest[0]).size
    assert hits < (0.3 if alike else 0.8) * points


def test_release_keeps_the_cases_of_a_batch_apart():
    """Rows are [unconditional of all | conditional of all]; each case is its own pair."""
    source, target = normal(4, 4, 4, 3), normal(4, 4, 4, 3, seed=1)
    order = np.stack([np.random.default_rng(i).permutation(16) for i in range(2)])
    both, nearest = match_release(
        jnp.asarray(target), Matching(jnp.asarray(source), order=jnp.asarray(order))
    )
    for case in range(2):
        matching = Matching(jnp.asarray(source[case::2]), order=jnp.asarray(order[case : case + 1]))
        alone, found = match_release(jnp.asarray(target[case::2]), matching)
        assert np.allclose(both[case::2], alone, atol=1e-6)
        assert np.array_equal(nearest[case], found[0])


def test_release_without_guidance_has_one_row_per_case():
    source, target = normal(1, 4, 4, 3), normal(1, 4, 4, 3, seed=1)
    order = jnp.arange(16)[None]
    one, _ = match_release(jnp.asarray(target), Matching(jnp.asarray(source), order=order))
    pair = [jnp.asarray(np.repeat(x, 2, 0)) for x in (source, target)]
    two, _ = match_release(pair[1], Matching(pair[0], order=order))
    assert np.allclose(one[0], two[0])


def test_release_takes_given_positions_instead_of_searching():
    source, target = normal(2, 4, 4, 3), normal(2, 4, 4, 3, seed=1)
    order, nearest = jnp.asarray([[1, 2, 7]]), jnp.asarray([[6, 11, 6]])
    matching = Matching(jnp.asarray(source), order=order, nearest=nearest)
    expected = target.mean(0)
    for p, q in ((1, 6), (2, 11), (7, 6)):  # the last one overwrites the first
        expected[q % 4, q // 4] = source.mean(0)[p % 4, p // 4]
    assert np.allclose(match_colors(jnp.asarray(target), matching), expected[None], atol=1e-6)


@pytest.mark.parametrize(
    ("source", "target"), [((2, 4, 6, 3), (2, 4, 6, 3)), ((2, 4, 4, 3), (2, 6, 6, 3))]
)
def test_release_refuses_maps_that_it_cannot_swap(source, target):
    matching = Matching(jnp.zeros(source), order=jnp.arange(4)[None])
    with pytest.raises(ValueError, match="expected square maps of one shape"):
        match_colors(jnp.zeros(target), matching)


def test_fixed_equals_a_plain_loop():
    """Two of three rows are served; page and canvas differ in shape."""
    target, source = normal(3, 5, 7, 6), normal(2, 4, 4, 6, seed=1)
    inside = np.random.default_rng(2).random((2, 5, 7)) < 0.5
    expected = target.copy()
    for row in range(2):
        candidates = source[row].reshape(-1, 6)
        for y, x in np.argwhere(inside[row]):
            likeness = unit(candidates) @ unit(target[row + 1, y, x])
            expected[row + 1, y, x] = candidates[likeness.argmax()]
    matching = Matching(jnp.asarray(source), inside=jnp.asarray(inside))
    assert np.array_equal(match_colors(jnp.asarray(target), matching), expected)


def test_fixed_keeps_the_targets_dtype():
    matching = Matching(jnp.ones((1, 2, 2, 3)), inside=jnp.ones((1, 2, 2), bool))
    assert match_colors(jnp.ones((1, 2, 2, 3), jnp.bfloat16), matching).dtype == jnp.bfloat16


def test_likeness_ignores_length():
    query, among = normal(1, 9, 5), normal(1, 11, 5, seed=1)
    lengths = np.linspace(0.01, 100, 11, dtype=np.float32)[None, :, None]
    plain = nearest_positions(jnp.asarray(query), jnp.asarray(among))
    assert np.array_equal(
        plain, nearest_positions(jnp.asarray(7 * query), jnp.asarray(among * lengths))
    )


@pytest.mark.parametrize(("positions", "drawn"), [(64, 64), (1024, RELEASE_POINTS)])
def test_the_order_is_a_permutation_of_the_key(positions, drawn):
    order = release_order(jax.random.key(0), positions)
    assert order.shape == (drawn,)
    assert np.unique(order).size == drawn
    assert np.array_equal(order, release_order(jax.random.key(0), positions))
    assert not np.array_equal(order, release_order(jax.random.key(1), positions))
