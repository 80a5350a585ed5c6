"""Options of the encoders: rematerialisation (losses need their gradients), half precision."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from oracles.randomise import randomise

from magiccolor_jax.encoders.clip import CLIPText, CLIPVision
from magiccolor_jax.encoders.clip_config import CLIPTextConfig, CLIPVisionConfig
from magiccolor_jax.encoders.dinov2 import DINOv2
from magiccolor_jax.encoders.dinov2_config import DINOv2Config
from magiccolor_jax.encoders.vae import VAE, VAEConfig
from magiccolor_jax.encoders.vgg import VGG19, VGG19Config
from magiccolor_jax.models.context import ContextConfig, ContextEncoder
from magiccolor_jax.models.controlnet import ControlNet, ControlNetConfig
from magiccolor_jax.models.unet import UNet, UNetConfig
from magiccolor_jax.nn.abstract import abstract

pytestmark = pytest.mark.usefixtures("compile_quickly")


def encoded_and_decoded(vae, pixels):
    posterior = vae.encode(pixels)
    return posterior, vae.decode(posterior.mean)


def called(network, pixels):
    return network(pixels)


NETWORKS = [
    pytest.param(VAE, VAEConfig.nano(), encoded_and_decoded, 16, id="vae"),
    pytest.param(CLIPVision, CLIPVisionConfig.nano(), called, 32, id="clip"),
    pytest.param(DINOv2, DINOv2Config.nano(), called, 28, id="dinov2"),
    pytest.param(VGG19, VGG19Config.nano(), called, 32, id="vgg19"),
]
"""Network, its sizes, how it is run, side of a picture that it takes."""


@pytest.mark.parametrize(("kind", "cfg", "apply", "side"), NETWORKS)
def test_remat_changes_neither_output_nor_gradients(kind, cfg, apply, side):
    plain = randomise(abstract(kind, cfg), seed=0)
    again = abstract(kind, dataclasses.replace(cfg, remat="full"))
    nnx.update(again, nnx.state(plain, nnx.Param))
    pixels = jax.random.uniform(jax.random.key(1), (1, side, side, 3))

    @nnx.jit
    def value_and_gradients(network):
        def loss(network, pixels):
            return sum(jnp.sum(jnp.sin(x)) for x in jax.tree.leaves(apply(network, pixels)))

        return nnx.value_and_grad(loss, argnums=(0, 1))(network, pixels)

    assert "remat" in str(jax.make_jaxpr(lambda: apply(again, pixels))())
    assert "remat" not in str(jax.make_jaxpr(lambda: apply(plain, pixels))())
    expected, found = value_and_gradients(plain), value_and_gradients(again)
    for x, y in zip(jax.tree.leaves(expected), jax.tree.leaves(found), strict=True):
        # The gradient of an attention key's bias is zero but for rounding, hence the floor.
        assert np.allclose(x, y, rtol=1e-4, atol=1e-5 * max(np.abs(x).max(), 0.1))


@pytest.mark.parametrize(("kind", "cfg", "apply", "side"), NETWORKS)
def test_bfloat16_differs_by_its_rounding_alone(kind, cfg, apply, side):
    """bf16 has 8 bits; a few layers leave some percent of the largest value."""
    plain = randomise(abstract(kind, cfg), seed=0)
    half = abstract(kind, dataclasses.replace(cfg, dtype=jnp.bfloat16))
    nnx.update(half, nnx.state(plain, nnx.Param))
    pixels = jax.random.uniform(jax.random.key(1), (1, side, side, 3))
    run = nnx.jit(apply)
    for x, y in zip(*(jax.tree.leaves(run(n, pixels)) for n in (plain, half)), strict=True):
        error = np.abs(x - y.astype(jnp.float32)).max() / np.abs(x).max()
        assert 1e-5 < error < 0.05


def test_positions_are_interpolated_in_f32_whatever_the_compute_type():
    plain = randomise(abstract(DINOv2, DINOv2Config.nano()), seed=0)
    half = abstract(DINOv2, DINOv2Config.nano(dtype=jnp.bfloat16))
    nnx.update(half, nnx.state(plain, nnx.Param))
    for x, y in zip(plain._positions(3, 4), half._positions(3, 4), strict=True):
        assert y.dtype == jnp.float32 and np.array_equal(x, y)


@pytest.mark.parametrize(
    ("kind", "cfg"),
    [
        (DINOv2, DINOv2Config.nano()),
        (CLIPVision, CLIPVisionConfig.nano()),
        (CLIPText, CLIPTextConfig.nano()),
        (VAE, VAEConfig.nano()),
        (UNet, UNetConfig.nano()),
        (ControlNet, ControlNetConfig.nano()),
        (ContextEncoder, ContextConfig.nano()),
    ],
)
def test_every_norm_takes_its_variance_in_two_passes(kind, cfg):
    """E[x^2] - E[x]^2 is off by a tenth at a mean of 300 (see nn/test_resnet.py)."""
    norms = [
        module
        for _, module in nnx.iter_modules(abstract(kind, cfg))
        if isinstance(module, nnx.LayerNorm | nnx.GroupNorm)
    ]
    assert norms and not any(norm.use_fast_variance for norm in norms)
