"""The guidance map that is never made, against the one that is."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from magiccolor_jax.conditioning.instances import (
    drop_tokens,
    guidance_hint,
    instance_pixels,
    place,
    valid_tokens,
)
from magiccolor_jax.models.controlnet import ControlNet, ControlNetConfig
from magiccolor_jax.nn.abstract import abstract
from magiccolor_jax.recipe import Recipe

TOLERANCE = 3e-6
COUNT, GRID, WIDTH = 5, 6, 10
PAGE = (64, 104)


def instance_map():
    """Overlapping boxes (the higher id wins), a ring, one pixel, one row; 4 has a hole of 2."""
    owner = np.zeros(PAGE, np.int32)
    owner[5:40, 10:60] = 1
    owner[20:64, 40:104] = 2
    owner[30, 70] = 3
    owner[2:3, 64:100] = 4
    owner[45:60, 3:30] = 5
    owner[50:55, 9:20] = 0
    return owner


def boxes_of(owner, count=COUNT):
    boxes = np.zeros((count, 4), np.int32)
    for i in range(count):
        rows, columns = np.nonzero(owner == i + 1)
        if rows.size:
            boxes[i] = rows.min(), columns.min(), rows.max(), columns.max()
    return boxes


ROI = {
    "whole": np.tile(np.float32([0, 0, GRID - 1, GRID - 1]), (COUNT, 1)),
    "parts": np.float32(
        [[0, 1, 5, 4], [1.5, 0.25, 3, 5], [2, 2, 3, 3], [0, 0, 5, 2], [3, 1, 3, 4]]
    ),
}


@pytest.fixture(scope="module")
def guiders():
    """(diffusers' hint embedding and adapter, our guider with the same weights)."""
    torch = pytest.importorskip("torch")
    from diffusers import ControlNetModel
    from oracles.perturb import perturb_
    from oracles.release import with_dino_adapter

    from converters import maps, weightmap

    cfg = ControlNetConfig.nano(conditioning_channels=WIDTH, adapter=True)
    oracle = ControlNetModel(
        block_out_channels=cfg.channels,
        attention_head_dim=cfg.heads,
        cross_attention_dim=cfg.context,
        norm_num_groups=cfg.groups,
        conditioning_embedding_out_channels=cfg.embedding_channels,
        conditioning_channels=WIDTH,
    )
    oracle = perturb_(with_dino_adapter(oracle), seed=0)
    ours = abstract(ControlNet, cfg)
    weights = {key: tensor.numpy() for key, tensor in oracle.state_dict().items()}
    weightmap.load_state_dict(ours, maps.CONTROLNET, weights, "guider")
    assert torch
    return oracle, ours


hint_of = nnx.jit(guidance_hint)


def patches(seed=0):
    shape = (1, COUNT, GRID, GRID, WIDTH)
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def placement(recipe, roi=ROI["whole"], valid=None, owner=None):
    owner = instance_map() if owner is None else owner
    valid = np.ones(COUNT, bool) if valid is None else valid
    arrays = (owner, boxes_of(owner), roi, valid)
    return place(*(jnp.asarray(x)[None] for x in arrays), GRID, recipe)


@pytest.mark.torch
@pytest.mark.parametrize("area", ROI)
@pytest.mark.parametrize("box_end", ["inclusive", "exclusive"])
@pytest.mark.parametrize("grid_order", ["xy", "yx"])
def test_equals_the_hint_of_the_map(guiders, grid_order, box_end, area):
    import torch
    from oracles.parity import relative_error
    from oracles.release_parts import guidance_map

    oracle, ours = guiders
    recipe = dataclasses.replace(Recipe(), grid_order=grid_order, box_end=box_end)
    with torch.inference_mode():
        tokens = oracle.dino_adapter(torch.tensor(patches()[0]).flatten(1, 2))
        page = guidance_map(
            tokens,
            torch.tensor(instance_map()),
            grid_order=grid_order,
            box_end=box_end,
            roi=torch.tensor(ROI[area]),
        )
        theirs = oracle.controlnet_cond_embedding(page).permute(0, 2, 3, 1)
    found = hint_of(ours, jnp.asarray(patches()), placement(recipe, ROI[area]))
    assert relative_error(found, theirs) < TOLERANCE


@pytest.mark.torch
def test_padded_and_invalid_instances_leave_no_trace(guiders):
    """A bucket's padding (tokens of any value), and an instance declared invalid."""
    _, ours = guiders
    valid = np.array([True, True, False, True, False])
    owner = instance_map()
    erased = np.where(np.isin(owner, [3, 5]), 0, owner)
    noise = patches()
    noise[:, ~valid] = 1e3
    expected = hint_of(ours, jnp.asarray(patches()), placement(Recipe(), owner=erased))
    found = hint_of(ours, jnp.asarray(noise), placement(Recipe(), valid=valid))
    assert np.array_equal(found, expected)


@pytest.mark.parametrize(("box_end", "lost"), [("inclusive", 0), ("exclusive", 1)])
def test_weights_cover_the_boxes(box_end, lost):
    """Weights of a pixel sum to one inside, else to zero; exclusive ends lose one row, column."""
    recipe = dataclasses.replace(Recipe(), box_end=box_end)
    total = np.asarray(placement(recipe).weight.sum(0)[0])
    owner, expected = instance_map(), np.zeros(PAGE)
    for i, (top, left, bottom, right) in enumerate(boxes_of(owner)):
        box = (slice(top, bottom + 1 - lost), slice(left, right + 1 - lost))
        expected[box] += owner[box] == i + 1
    assert np.allclose(total, expected, atol=1e-6)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 1.0])
def test_a_share_of_the_tokens_becomes_the_global_embedding(share):
    cls = jnp.arange(2 * 3 * 4, dtype=jnp.float32).reshape(2, 3, 4) + 100
    tokens = jnp.zeros((2, 3, 20, 20, 4))
    dropped = np.asarray(drop_tokens(jax.random.key(0), tokens, cls, share))
    hit = (dropped != 0).all(-1)
    assert np.array_equal(dropped, np.where(hit[..., None], cls[:, :, None, None], 0))
    assert abs(hit.mean() - share) < 0.03
    again = drop_tokens(jax.random.key(0), tokens, cls, share)
    assert np.array_equal(dropped, again)


def test_valid_tokens_put_each_cls_before_its_patches():
    cls = jnp.asarray([[[0.0], [10.0]]])
    grid = jnp.asarray([1.0, 2, 3, 4, 11, 12, 13, 14]).reshape(1, 2, 2, 2, 1)
    tokens, mask = valid_tokens(cls, grid, jnp.asarray([[True, False]]))
    assert np.array_equal(tokens[0, :, 0], [0, 1, 2, 3, 4, 10, 11, 12, 13, 14])
    assert np.array_equal(mask[0], [True] * 5 + [False] * 5)


def test_a_block_is_inside_when_half_of_it_is():
    owner = np.zeros((1, 4, 8), np.int32)
    owner[0, :2, :2] = [[1, 0], [0, 2]]  # two of four
    owner[0, 2, 2] = 3  # one of four
    owner[0, 2:, 6:] = 1
    found = instance_pixels(jnp.asarray(owner), 2)
    assert np.array_equal(found[0], [[True, False, False, False], [False, False, False, True]])
