"""The residual block against diffusers', also far from zero mean."""

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

torch = pytest.importorskip("torch")
diffusers_resnet = pytest.importorskip("diffusers.models.resnet")

from oracles.parity import relative_error, run  # noqa: E402
from oracles.perturb import perturb_  # noqa: E402

from converters.weightmap import WeightMap  # noqa: E402
from magiccolor_jax.nn.resnet import ResnetBlock  # noqa: E402

pytestmark = pytest.mark.torch


@pytest.mark.parametrize("mean", [0, 300], ids=["centred", "mean 300"])
@pytest.mark.parametrize("outputs", [8, 12], ids=["plain", "shortcut"])
@pytest.mark.parametrize(("time", "epsilon"), [(16, 1e-5), (None, 1e-6)], ids=["unet", "vae"])
def test_equals_diffusers(time, epsilon, outputs, mean):
    """A mean of 300 shows a one-pass variance (E[x^2] - E[x]^2), which is off by a tenth there.

    The oracle computes in f64: at that mean PyTorch's own f32 norm is off by two percent.
    """
    oracle = diffusers_resnet.ResnetBlock2D(
        in_channels=8, out_channels=outputs, temb_channels=time, groups=4, eps=epsilon
    )
    oracle = perturb_(oracle, seed=0).double()
    rng = np.random.default_rng(0)
    x = rng.normal(mean, 1, (2, 5, 7, 8)).astype(np.float32)
    embedding = [] if time is None else [rng.normal(size=(2, time)).astype(np.float32)]
    tensors = [torch.tensor(array).double() for array in (x, *embedding)]
    tensors[0] = tensors[0].permute(0, 3, 1, 2)
    theirs = oracle(*tensors, *[None] * (2 - len(tensors))).permute(0, 2, 3, 1)

    def build():
        kinds = {"dtype": jnp.float32, "param_dtype": jnp.float32, "rngs": nnx.Rngs(0)}
        return ResnetBlock(8, outputs, time=time, groups=4, epsilon=epsilon, **kinds)

    ours = run(build, WeightMap(), oracle.state_dict(), x, *embedding)
    assert relative_error(ours, theirs) < 1e-5
