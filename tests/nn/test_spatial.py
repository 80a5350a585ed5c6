"""Changes of resolution against PyTorch: padding at stride 2, nearest neighbours."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

torch = pytest.importorskip("torch")

from oracles.parity import relative_error, run  # noqa: E402
from oracles.perturb import perturb_  # noqa: E402
from torch.nn import functional  # noqa: E402

from converters.weightmap import WeightMap  # noqa: E402
from magiccolor_jax.nn.spatial import Downsample, Upsample, convolve  # noqa: E402

pytestmark = pytest.mark.torch

KINDS = {"dtype": jnp.float32, "param_dtype": jnp.float32}


def picture(height, width):
    return np.random.default_rng(0).normal(size=(2, height, width, 6)).astype(np.float32)


def channels_first(x):
    return torch.tensor(x).permute(0, 3, 1, 2)


@pytest.mark.parametrize("padding", ["both", "end"])
@pytest.mark.parametrize(("height", "width"), [(8, 12), (7, 10)])
def test_downsample(height, width, padding):
    oracle = perturb_(torch.nn.ModuleDict({"conv": torch.nn.Conv2d(6, 6, 3, stride=2)}), seed=0)
    pads = (1, 1, 1, 1) if padding == "both" else (0, 1, 0, 1)
    x = picture(height, width)
    theirs = oracle["conv"](functional.pad(channels_first(x), pads)).permute(0, 2, 3, 1)
    ours = run(
        lambda: Downsample(6, padding=padding, rngs=nnx.Rngs(0), **KINDS),
        WeightMap(),
        oracle.state_dict(),
        x,
    )
    assert relative_error(ours, theirs) < 1e-5


def test_upsample():
    oracle = perturb_(torch.nn.ModuleDict({"conv": torch.nn.Conv2d(6, 6, 3, padding=1)}), seed=0)
    x = picture(5, 7)
    doubled = functional.interpolate(channels_first(x), scale_factor=2.0, mode="nearest")
    theirs = oracle["conv"](doubled).permute(0, 2, 3, 1)
    ours = run(lambda: Upsample(6, rngs=nnx.Rngs(0), **KINDS), WeightMap(), oracle.state_dict(), x)
    assert relative_error(ours, theirs) < 1e-5


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_gradients_of_wide_convolutions_are_xlas(dtype):
    random = np.random.default_rng(1)
    x, kernel, slope = (
        jnp.asarray(random.normal(size=shape), dtype)
        for shape in ((2, 7, 10, 49), (3, 3, 49, 56), (2, 7, 10, 56))
    )
    options = {"dimension_numbers": ("NHWC", "HWIO", "NHWC")}
    geometry = (1, 1), ((1, 1), (1, 1))

    def gradients(function):
        made, back = jax.vjp(lambda *given: function(*given, *geometry, **options), x, kernel)
        return made, *back(slope)

    got, expected = gradients(convolve), gradients(jax.lax.conv_general_dilated)
    assert [g.dtype for g in got] == [e.dtype for e in expected]
    limit = 1e-6 if dtype == jnp.float32 else 1e-2
    assert max(map(relative_error, got, expected)) < limit
