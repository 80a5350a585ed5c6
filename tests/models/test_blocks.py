"""Options of the blocks: rematerialisation, half precision, refused sizes."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from oracles.randomise import randomise

from magiccolor_jax.models.blocks import BlocksConfig
from magiccolor_jax.models.unet import UNet, UNetConfig
from magiccolor_jax.nn.abstract import abstract

pytestmark = pytest.mark.usefixtures("compile_quickly")

CFG = UNetConfig(channels=(8, 16), attention=(True, False), layers=1, heads=2, groups=4, context=6)
"""Two levels: compiled in a second or two."""


@pytest.fixture(scope="module")
def plain():
    return randomise(abstract(UNet, CFG), seed=0)


def with_weights_of(plain, cfg):
    """The same network under other options."""
    unet = abstract(UNet, cfg)
    weights = nnx.state(plain, nnx.Param)
    nnx.update(unet, jax.tree.map(lambda x: x.astype(cfg.param_dtype), weights))
    return unet


@pytest.fixture(scope="module")
def inputs():
    keys = jax.random.split(jax.random.key(1), 2)
    latents = jax.random.normal(keys[0], (2, 6, 10, 4))
    return latents, jnp.asarray([5, 900]), jax.random.normal(keys[1], (2, 3, 6))


def predict(unet, latents, timesteps, context):
    return unet(latents, timesteps, unet.project(context)).sample


@nnx.jit
def output_and_gradients(unet, inputs):
    return nnx.value_and_grad(lambda unet: jnp.sum(jnp.sin(predict(unet, *inputs))))(unet)


@pytest.mark.parametrize("policy", ["full", pytest.param("dots", marks=pytest.mark.slow)])
def test_remat_changes_neither_output_nor_gradients(plain, inputs, policy):
    remat = with_weights_of(plain, dataclasses.replace(CFG, remat=policy))
    # Two levels of one layer: 2 + 2 + 4 residual blocks, 1 + 1 + 2 transformers.
    equations = jax.make_jaxpr(lambda: predict(remat, *inputs))().eqns
    assert sum("remat" in equation.primitive.name for equation in equations) == 8 + 4
    value, gradients = output_and_gradients(plain, inputs)
    again, same = output_and_gradients(remat, inputs)
    assert np.allclose(value, again, rtol=1e-6)
    pairs = zip(jax.tree.leaves(gradients), jax.tree.leaves(same), strict=True)
    for x, y in pairs:
        assert np.allclose(x, y, rtol=1e-4, atol=1e-5 * max(np.abs(x).max(), 1e-3))


@pytest.mark.parametrize("param_dtype", [jnp.float32, jnp.bfloat16])
def test_bfloat16_computes_in_it_and_returns_f32(plain, inputs, param_dtype):
    """bf16 has 8 bits, and a dozen layers follow each other: five percent is what one may ask."""
    cfg = dataclasses.replace(CFG, dtype=jnp.bfloat16, param_dtype=param_dtype)
    half = with_weights_of(plain, cfg)
    run = nnx.jit(predict)
    found, expected = run(half, *inputs), run(plain, *inputs)
    assert found.dtype == jnp.float32
    error = np.abs(found - expected).max() / np.abs(expected).max()
    assert 1e-4 < error < 0.05
    assert half.conv_in.kernel.dtype == param_dtype


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"attention": (True,)}, "one flag per level: expected 4, got 1"),
        ({"groups": 7}, "divisible by groups 7 and heads 8, got 320"),
        ({"heads": 3}, "divisible by groups 32 and heads 3, got 320"),
    ],
)
@pytest.mark.parametrize("config", [BlocksConfig, UNetConfig])
def test_sizes_that_do_not_fit_are_refused(config, sizes, message):
    with pytest.raises(ValueError, match=f"{config.__name__}: .*{message}"):
        config(**sizes)


def test_two_levels_still_find_their_matching_features():
    assert (UNetConfig.sd15().match_reduction, CFG.match_reduction) == (2, 1)
    assert (UNetConfig.sd15().reduction, CFG.reduction) == (8, 2)
