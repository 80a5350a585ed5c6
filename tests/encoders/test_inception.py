"""FID's network against pytorch-fid's own, by a golden of scripts/goldens_inception.py.

Both sides make the full-sized weights from the names of the tensors, so this needs no PyTorch.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from golden_weights import seeded
from goldens_inception import GOLDEN, GROUPS, SHOWN

from converters import maps
from converters.weightmap import load_state_dict
from magiccolor_jax.encoders.inception import WIDTH_UNIT, Inception, InceptionConfig, pool, resize
from magiccolor_jax.nn.abstract import abstract

TOLERANCE = 2e-6
"""Of the largest feature: four times what is left by sums in another order."""

RESIZE_TOLERANCE = 1e-6
"""Of the range: a few roundings."""


@pytest.fixture(scope="module")
def golden():
    with np.load(GOLDEN) as file:
        return dict(file)


@pytest.fixture(scope="module")
def network(golden):
    """FID's, full-sized, filled from a state dict with exactly pytorch-fid's names."""
    module = abstract(Inception, InceptionConfig.fid())
    tensors = {}
    for line in golden["names"]:
        key, _, shape = line.partition(" ")
        tensors[key] = seeded(key, tuple(map(int, filter(None, shape.split(",")))))
    load_state_dict(module, maps.INCEPTION, tensors, "golden")
    return module


def unit(golden, group):
    """The pictures of a group in [0, 1]."""
    return jnp.asarray(golden[f"{group}_u8"], jnp.float32) / 255


@pytest.mark.parametrize("group", GROUPS)
def test_equals_pytorch_fid(network, golden, group):
    theirs = golden[f"{group}_features"]
    ours = np.asarray(nnx.jit(lambda network, x: network(x))(network, unit(golden, group)))
    assert ours.shape == theirs.shape == (GROUPS[group][0], 2048)
    assert np.abs(ours - theirs).max() < TOLERANCE * theirs.max()


@pytest.mark.parametrize("group", GROUPS)
def test_resizes_as_pytorch_does(golden, group):
    ours = resize(unit(golden, group), (299, 299))[:, SHOWN][:, :, SHOWN]
    np.testing.assert_allclose(ours, golden[f"{group}_resized"], rtol=0, atol=RESIZE_TOLERANCE)


@pytest.mark.parametrize("divide", [1, 2, WIDTH_UNIT])
def test_sizes(divide):
    cfg = InceptionConfig(divide=divide)
    module = abstract(Inception, cfg)
    found = nnx.eval_shape(lambda module, x: module(x), module, jnp.ones((2, 33, 20, 3)))
    assert (found.shape, found.dtype) == ((2, cfg.features), jnp.float32)
    assert cfg.features == 2048 // divide


def test_parameter_count():
    leaves = jax.tree.leaves(nnx.state(abstract(Inception, InceptionConfig.fid()), nnx.Param))
    statistics = 2 * 17_216  # which PyTorch counts as buffers
    assert sum(math.prod(leaf.shape) for leaf in leaves) == 21_785_568 + statistics


def test_half_precision_stays_half_until_the_last_mean():
    cfg = InceptionConfig.nano(dtype=jnp.bfloat16, param_dtype=jnp.bfloat16)
    module = abstract(Inception, cfg)
    block = nnx.eval_shape(lambda m, x: m.Mixed_7c(x), module, jnp.ones((1, 8, 8, 128), cfg.dtype))
    features = nnx.eval_shape(lambda m, x: m(x), module, jnp.ones((1, 9, 9, 3)))
    assert (block.dtype, features.dtype) == (jnp.bfloat16, jnp.float32)


@pytest.mark.parametrize(
    ("kind", "row"),
    [("mean", [1.5, 2, 3, 4, 4.5]), ("max", [2, 3, 4, 5, 5]), ("halve", [3, 5])],
)
def test_pools_leave_padding_out(kind, row):
    ramp = jnp.broadcast_to(jnp.arange(1.0, 6.0), (1, 5, 5))[..., None]
    for offset in (0, -9):
        found = pool(ramp + offset, kind)[0, :, :, 0]
        np.testing.assert_allclose(found, np.broadcast_to(row, found.shape) + offset, rtol=1e-6)


@pytest.mark.parametrize("divide", [0, -2, 3, 32])
def test_widths_must_stay_whole(divide):
    with pytest.raises(ValueError, match=f"divisor of 16, got {divide}"):
        InceptionConfig(divide=divide)
