"""VGG-19 against a torch.nn.Sequential laid out as torchvision's `features`."""

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

torch = pytest.importorskip("torch")

from oracles.parity import relative_error, run  # noqa: E402
from oracles.vgg import activations, vgg_oracle  # noqa: E402

from converters import maps  # noqa: E402
from magiccolor_jax.encoders.vgg import LAYERS, VGG19, VGG19Config  # noqa: E402

pytestmark = pytest.mark.torch

TOLERANCE = 1e-5


@pytest.mark.parametrize("layers", [VGG19Config().layers, tuple(LAYERS), ("relu2_2", "relu4_3")])
def test_equals_torchvisions_layout(layers):
    cfg = VGG19Config.nano(layers=layers)
    oracle = vgg_oracle(cfg.widths)
    unused = [f"classifier.{i}.{leaf}" for i in (0, 3, 6) for leaf in ("weight", "bias")]
    state = oracle.state_dict() | dict.fromkeys(unused, torch.zeros(3))
    pixels = np.random.default_rng(0).random((2, 37, 50, 3)).astype(np.float32)
    theirs = activations(oracle, torch.tensor(pixels).permute(0, 3, 1, 2))
    found = run(lambda: VGG19(cfg, rngs=nnx.Rngs(0)), maps.VGG19, state, pixels)
    assert len(found) == len(layers)
    for name, activation in zip(layers, found, strict=True):
        assert relative_error(activation, theirs[name].permute(0, 2, 3, 1)) < TOLERANCE, name


def test_half_precision_stays_half():
    cfg = VGG19Config.nano(dtype=jnp.bfloat16, param_dtype=jnp.bfloat16)
    x = jnp.ones((1, 16, 20, 3))
    found = nnx.eval_shape(lambda: VGG19(cfg, rngs=nnx.Rngs(0))(x))
    assert {activation.dtype for activation in found} == {jnp.dtype(jnp.bfloat16)}


def test_too_small_a_picture_is_refused():
    network = nnx.eval_shape(lambda: VGG19(VGG19Config.nano(), rngs=nnx.Rngs(0)))
    with pytest.raises(ValueError, match="relu5_1 needs sides of at least 16 pixels, got 15 x 20"):
        network(jnp.ones((1, 15, 20, 3)))


@pytest.mark.parametrize("layers", [(), ("relu6_1",), ("relu2_1", "relu1_1"), ("relu1_1",) * 2])
def test_unknown_or_disordered_layers_are_refused(layers):
    with pytest.raises(ValueError, match="layers must be some of"):
        VGG19Config(layers=layers)
