"""Costs against PyTorch's counter, against sums done by hand, and against each other."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from magiccolor_jax.diffusion.schedule import Schedule
from magiccolor_jax.encoders.vae import VAE
from magiccolor_jax.encoders.vgg import VGG19, VGG19Config
from magiccolor_jax.losses.color import warp_colors
from magiccolor_jax.losses.objective import Frozen, LossConfig, Objective
from magiccolor_jax.models.unet import UNet
from magiccolor_jax.nn.abstract import abstract
from magiccolor_jax.nn.attention import QUERY_CHUNK, attend
from magiccolor_jax.nn.plain import plain_programs
from magiccolor_jax.recipe import Recipe
from magiccolor_jax.training.cost import peak_flops, program_cost, step_cost
from magiccolor_jax.training.parameters import Layout
from magiccolor_jax.training.step import StepContext, first_state
from magiccolor_jax.types import TrainingBatch

ELEMENTS = 0.03
"""Largest share of FLOPs that are not products, at full size; XLA counts them, PyTorch does not."""


def floats(*shape):
    return jax.ShapeDtypeStruct(shape, jnp.float32)


def looped_flops(function, *shapes):
    """XLA's count of the program as it is run."""
    return jax.jit(lambda *x: function(*x)).lower(*shapes).cost_analysis()["flops"]


def encode(vae, pixels):
    return vae.encode(pixels)


def slope(vgg, pixels):
    """Gradient with respect to the picture."""
    return jax.grad(lambda x: vgg(x)[-1].sum())(pixels)


def evaluate(unet, latents, context, bank=None):
    return unet(latents, jnp.zeros(1, jnp.int32), unet.project(context, None, bank))


@pytest.mark.torch
@pytest.mark.parametrize("network", ["vae", "denoiser"])
def test_forward_passes_equal_torchs_count(network):
    """Full size, so that products are nearly everything."""
    pytest.importorskip("torch")
    from abstract_training import networks
    from flops_torch import TorchNetworks

    nets = networks("full")
    oracle = TorchNetworks("full", nets.dinov2, nets.vgg)
    if network == "vae":
        ours = program_cost(encode, abstract(VAE, nets.vae), floats(1, 256, 256, 3))
        theirs = oracle.encode(256)
    else:
        unet = abstract(UNet, nets.trained.denoiser)
        operands = unet, floats(1, 32, 32, 4), floats(1, 77, 768)
        bank = jax.eval_shape(evaluate, *operands).features.hidden
        ours = program_cost(evaluate, *operands, bank)
        theirs = oracle.denoiser(256, 77, bank=True)
    assert theirs.inside < ours.flops < (1 + ELEMENTS) * theirs.inside


def test_attention_is_counted_whole():
    length, heads, width = 4 * QUERY_CHUNK, 4, 64
    shapes = [floats(1, length, heads, width)] * 3
    products = 4 * length**2 * heads * width
    assert products < program_cost(attend, *shapes).flops < 1.05 * products
    assert looped_flops(attend, *shapes) < 0.1 * products  # one of 4 heads x 4 chunks


def test_every_instance_is_counted():
    def operands(count):
        grid = (1, count, 8, 8)
        owner = jax.ShapeDtypeStruct((1, 8, 8), jnp.int32)
        counts = jax.ShapeDtypeStruct(grid, bool)
        return floats(1, 8, 8, 96), owner, floats(*grid, 96), floats(*grid, 3), counts

    one, five = (program_cost(warp_colors, *operands(k)).flops for k in (1, 5))
    assert 4.5 * one < five < 5.5 * one
    assert looped_flops(warp_colors, *operands(5)) < 0.5 * five


def test_instances_written_out_give_the_same_colours():
    random = np.random.default_rng(0)
    operands = (
        jnp.float32(random.normal(size=(1, 4, 4, 8))),
        jnp.int32(random.integers(0, 4, (1, 4, 4))),
        jnp.float32(random.normal(size=(1, 3, 4, 4, 8))),
        jnp.float32(random.normal(size=(1, 3, 4, 4, 3))),
        jnp.asarray(random.random((1, 3, 4, 4)) < 0.5),
    )
    expected = warp_colors(*operands)
    with plain_programs():
        found = warp_colors(*operands)
    np.testing.assert_array_equal(found.colors, expected.colors)


def test_remat_does_not_change_the_models_cost():
    pixels = floats(1, 32, 32, 3)
    kept, again = (abstract(VGG19, VGG19Config.nano(remat=remat)) for remat in ("off", "full"))
    assert program_cost(slope, again, pixels) == program_cost(slope, kept, pixels)
    assert looped_flops(slope, again, pixels) > 1.2 * looped_flops(slope, kept, pixels)


def test_compiling_fuses_and_counts_the_same():
    wide = VGG19Config(widths=(32, 64, 64, 64, 64))  # products are nearly everything
    operands = abstract(VGG19, wide), floats(1, 32, 32, 3)
    traced, compiled = (program_cost(slope, *operands, compiled=c) for c in (False, True))
    assert compiled.flops == pytest.approx(traced.flops, rel=0.02)
    picture = floats(1000, 1000)
    chain = lambda x: jnp.sin(2 * jnp.tanh(x) + 1)  # noqa: E731
    assert program_cost(chain, picture, compiled=True).bytes == 2 * 4e6  # read once, written once
    assert program_cost(chain, picture).bytes > 4 * 4e6


def test_nothing_is_allocated():
    side = 10**6
    found = program_cost(jnp.matmul, *[floats(side, side)] * 2)
    assert found.flops == pytest.approx(2 * side**3, rel=1e-6)


class Cheap(Objective):
    """One product, and as many again where it looks at pictures."""

    def __call__(self, model, frozen, batch, keys, progress):
        value = jnp.mean(model(batch.target))
        if self.cfg.sees_pictures:
            looks = jax.random.bernoulli(keys.pictures, self.cfg.picture_share)
            more = lambda x: jnp.mean(model(2 * x))  # noqa: E731
            value += jax.lax.cond(looks, more, lambda _: 0.0, batch.target)
        return value, {"loss": value}


def cost_of_step(accumulate=1, cases=8, **losses):
    width = 256
    model = abstract(lambda _, rngs: nnx.Linear(width, width, rngs=rngs), None)
    weights = {"kernel": floats(width, width), "bias": floats(width)}
    context = StepContext(
        layout=Layout(model),
        loss=Cheap(LossConfig(**losses), Recipe.paper(), Schedule.sd15()),
        optimizer=optax.sgd(0.1),
        steps=10,
        accumulate=accumulate,
    )
    state = jax.eval_shape(lambda values: first_state(context, values), weights)
    batch = TrainingBatch(None, floats(cases, 16, 16, width), None, None)
    return step_cost(context, {}, Frozen(None, None, None), state, batch).flops


def test_a_step_costs_what_it_is_expected_to():
    blind = cost_of_step(perceptual=0.0, color=0.0)
    looks = cost_of_step(picture_share=1.0)
    assert looks > 1.9 * blind
    for share in (0.25, 0.5):
        expected = share * looks + (1 - share) * blind
        assert cost_of_step(picture_share=share) == pytest.approx(expected, rel=1e-3)


def test_a_batch_costs_the_same_in_parts():
    assert cost_of_step(accumulate=4) == cost_of_step()
    assert cost_of_step(cases=16) == pytest.approx(2 * cost_of_step(), rel=0.01)


@pytest.mark.parametrize(
    ("kind", "peak"),
    [
        ("TPU v4", 275e12),
        ("TPU v5 lite", 197e12),
        ("TPU v5e", 197e12),
        ("TPU v5", 459e12),
        ("TPU v5p", 459e12),
        ("TPU v6 lite", 918e12),
        ("NVIDIA A100-SXM4-80GB", 312e12),
        ("NVIDIA H100 80GB HBM3", 989e12),
        ("NVIDIA H100 PCIe", 756e12),
        ("NVIDIA L4", 121e12),
        ("NVIDIA L40S", 362e12),
        ("NVIDIA GeForce GTX 1080", None),
        ("TPU v4 lite", None),
        ("cpu", None),
    ],
)
def test_peaks(kind, peak):
    assert peak_flops(kind) == peak
