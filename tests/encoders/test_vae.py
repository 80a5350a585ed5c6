"""The autoencoder against diffusers: odd sizes, both directions, tiles."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")

from oracles.parity import relative_error  # noqa: E402
from oracles.perturb import perturb_  # noqa: E402

from converters import maps, weightmap  # noqa: E402
from magiccolor_jax.checkpoint import parameter_shapes  # noqa: E402
from magiccolor_jax.encoders.vae import VAE, Posterior, VAEConfig  # noqa: E402
from magiccolor_jax.nn.abstract import abstract  # noqa: E402

pytestmark = pytest.mark.torch

TOLERANCE = 1e-5
TILE = 8
"""Latents; 64 px."""

CFG = VAEConfig.nano()
encode = nnx.jit(VAE.encode)


@functools.partial(nnx.jit, static_argnames="tile")
def decode(vae, latents, tile=None):
    return vae.decode(latents, tile=tile)


def channels_last(tensor):
    return jnp.asarray(tensor.movedim(1, -1).contiguous().numpy())


@pytest.fixture(scope="module")
def oracle():
    levels = len(CFG.channels)
    vae = diffusers.AutoencoderKL(
        block_out_channels=CFG.channels,
        layers_per_block=CFG.layers,
        norm_num_groups=CFG.groups,
        latent_channels=CFG.latent_channels,
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
    )
    return perturb_(vae, seed=0)


@pytest.fixture(scope="module")
def ours(oracle):
    vae = abstract(VAE, CFG)
    weights = {key: tensor.numpy() for key, tensor in oracle.state_dict().items()}
    weightmap.load_state_dict(vae, maps.VAE, weights, "vae")
    return vae


@torch.inference_mode()
def test_encode_equals_diffusers(oracle, ours):
    pixels = 2 * torch.rand(2, 3, 72, 104, generator=torch.Generator().manual_seed(0)) - 1
    theirs = oracle.encode(pixels).latent_dist
    found = encode(ours, channels_last(pixels))
    assert relative_error(found.mean, channels_last(theirs.mean * CFG.scaling_factor)) < TOLERANCE
    assert relative_error(found.std, channels_last(theirs.std * CFG.scaling_factor)) < TOLERANCE


def test_a_sample_is_mean_plus_deviation_times_noise():
    mean, std, noise = (jnp.full((1, 2, 2, 4), x) for x in (3.0, 0.5, -2.0))
    assert np.array_equal(Posterior(mean, std).sample(noise), jnp.full((1, 2, 2, 4), 2.0))


def test_the_log_variance_is_clipped_like_diffusers(ours):
    """An encoder that shouts: exp(0.5 * 20) and exp(0.5 * -30) are the ends."""
    graph, state = nnx.split(ours)
    loud = nnx.merge(graph, jax.tree.map(jnp.copy, state))
    bias = jnp.asarray([0, 0, 0, 0, 1e3, 1e3, -1e3, -1e3], jnp.float32)
    loud.quant_conv.bias.set_value(bias)
    std = np.asarray(encode(loud, jnp.zeros((2, 72, 104, 3))).std) / CFG.scaling_factor
    assert np.allclose(std[..., :2], np.exp(10), rtol=1e-5)
    assert np.allclose(std[..., 2:], np.exp(-15), rtol=1e-5)


@pytest.mark.parametrize("tile", [None, TILE], ids=["whole", "tiled"])
@torch.inference_mode()
def test_decode_equals_diffusers(oracle, ours, tile):
    """11x17 latents are two rows and three columns of tiles, none of them whole at the ends."""
    latents = torch.randn(1, 4, 11, 17, generator=torch.Generator().manual_seed(1))
    oracle.use_tiling = tile is not None
    oracle.tile_latent_min_size, oracle.tile_sample_min_size = TILE, TILE * CFG.reduction
    theirs = channels_last(oracle.decode(latents / CFG.scaling_factor).sample)
    found = decode(ours, channels_last(latents), tile)
    assert found.shape == (1, 88, 136, 3)
    assert relative_error(found, theirs) < TOLERANCE
    if tile:
        whole = decode(ours, channels_last(latents))
        assert relative_error(found, whole) > 1e-3  # tiles do change the picture


@pytest.mark.parametrize("tile", [1, 2, 5, 6, 10])
def test_any_tile_gives_a_picture_of_the_right_size(ours, tile):
    """Tiles that no quarter divides overlap by less; far from the seams they agree."""
    latents = jnp.asarray(np.random.default_rng(0).normal(size=(1, 11, 17, 4)), jnp.float32)
    out = jax.eval_shape(functools.partial(ours.decode, tile=tile), latents)
    assert out.shape == (1, 88, 136, 3)


def test_a_picture_within_one_tile_is_decoded_whole(ours):
    latents = jnp.ones((1, 5, TILE, 4))
    tiled, whole = (
        jax.make_jaxpr(functools.partial(ours.decode, tile=tile))(latents) for tile in (TILE, None)
    )
    assert str(tiled) == str(whole)


@pytest.mark.parametrize(("height", "width"), [(72, 100), (60, 64)])
def test_sides_that_cannot_be_halved_are_refused(ours, height, width):
    with pytest.raises(ValueError, match=f"multiples of 8 px, got {height}x{width}"):
        ours.encode(jnp.zeros((1, height, width, 3)))


def test_groups_must_divide_the_widths():
    with pytest.raises(ValueError, match="divisible by groups 3, got 8"):
        VAEConfig.nano(groups=3)


def test_half_precision_gives_full_precision_outputs(ours):
    """bf16 has 8 bits; through some thirty layers a percent or two is what is left of them."""
    cfg = VAEConfig.nano(dtype=jnp.bfloat16, param_dtype=jnp.bfloat16)
    half = abstract(VAE, cfg)
    values = jax.tree.map(lambda x: x.astype(jnp.bfloat16), nnx.state(ours, nnx.Param))
    nnx.update(half, values)
    latents = jax.random.normal(jax.random.key(0), (1, 11, 17, 4))
    found = decode(half, latents)
    assert found.dtype == jnp.float32
    assert relative_error(found, decode(ours, latents)) < 0.05


def test_full_size():
    """stabilityai/sd-vae-ft-mse has 83,653,863 parameters."""
    shapes = parameter_shapes(VAEConfig.sd15())
    assert sum(int(np.prod(shape)) for shape in shapes.values()) == 83_653_863
