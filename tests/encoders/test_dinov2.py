"""DINOv2 against the hub's model and transformers': tiny, perturbed, non-square."""

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from oracles import transformers_names  # noqa: E402
from oracles.dinov2_hub import DINOv2Hub  # noqa: E402
from oracles.parity import relative_error, run  # noqa: E402
from oracles.perturb import perturb_  # noqa: E402

from converters import maps  # noqa: E402
from magiccolor_jax.encoders.dinov2 import DINOv2, position_matrix  # noqa: E402
from magiccolor_jax.encoders.dinov2_config import DINOv2Config  # noqa: E402

pytestmark = pytest.mark.torch

TOLERANCE = 1e-5


def compare(cfg, state, pixels, cls, patches):
    """The larger error of the two outputs; `patches` is [B C h w]."""
    features = run(lambda: DINOv2(cfg, rngs=nnx.Rngs(0)), maps.DINOV2, state, pixels)
    return max(
        relative_error(features.cls, cls),
        relative_error(features.patches, patches.permute(0, 2, 3, 1)),
    )


def picture(height, width):
    return np.random.default_rng(0).standard_normal((2, height, width, 3)).astype(np.float32)


@pytest.mark.parametrize(
    ("height", "width", "swiglu"),
    [
        (70, 70, False),  # native: 5x5 patches, the position table as it is
        (70, 70, True),
        (98, 56, True),
        (28, 126, False),
        (70, 14, False),  # one axis native
        (14, 350, False),  # as many patches as the table, in another shape
    ],
)
@pytest.mark.parametrize("registers", [0, 4])
def test_equals_the_hub_model(height, width, swiglu, registers):
    cfg = DINOv2Config.nano(registers, use_swiglu_ffn=swiglu)
    oracle = perturb_(DINOv2Hub(cfg), seed=0)
    x = picture(height, width)
    cls, patches = oracle(torch.tensor(x).permute(0, 3, 1, 2))
    assert compare(cfg, oracle.state_dict(), x, cls, patches) < TOLERANCE


@pytest.mark.parametrize("swiglu", [False, True])
@pytest.mark.parametrize(
    ("kind", "height", "width"),
    [("Dinov2", 56, 56), ("Dinov2WithRegisters", 56, 56), ("Dinov2WithRegisters", 98, 42)],
)
def test_equals_transformers_where_the_two_agree(kind, height, width, swiglu):
    """Without registers transformers interpolates by size, the hub by factor: native size only."""
    config = getattr(transformers, f"{kind}Config")(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=56,
        patch_size=14,
        use_swiglu_ffn=swiglu,
    )
    oracle = perturb_(getattr(transformers, f"{kind}Model")(config), seed=0)
    x = picture(height, width)
    tokens = oracle(torch.tensor(x).permute(0, 3, 1, 2)).last_hidden_state
    rows, columns = height // 14, width // 14
    patches = tokens[:, -rows * columns :].transpose(1, 2).unflatten(2, (rows, columns))
    cfg = DINOv2Config.from_hf(config.to_dict())
    state = transformers_names.dinov2_hub(oracle.state_dict())
    assert compare(cfg, state, x, tokens[:, 0], patches) < TOLERANCE


@pytest.mark.parametrize("registers", [0, 4])
@pytest.mark.parametrize("target", [1, 16, 36, 37, 38, 64, 100])
def test_positions_are_interpolated_as_by_torch(registers, target):
    """The released 37x37 table, along one axis; the other axis stays."""
    line = torch.randn(1, 3, 37, 37, generator=torch.Generator().manual_seed(0))
    if registers:
        how = {"size": (target, 37), "antialias": True}
    else:
        how = {"scale_factor": ((target + 0.1) / 37, 37.1 / 37)}
    theirs = torch.nn.functional.interpolate(line, mode="bicubic", **how)
    down, across = (position_matrix(37, side, registers) for side in (target, 37))
    ours = np.einsum("ri,cj,bdij->bdrc", down, across, line.numpy())
    assert relative_error(ours, theirs) < TOLERANCE


@pytest.mark.parametrize("registers", [0, 4])
def test_half_precision_stays_half(registers):
    cfg = DINOv2Config.nano(registers, dtype=jnp.bfloat16, param_dtype=jnp.bfloat16)
    x = jnp.ones((1, 28, 42, 3))
    features = nnx.eval_shape(lambda: DINOv2(cfg, rngs=nnx.Rngs(0))(x))
    assert features.patches.shape == (1, 2, 3, 32)
    assert features.cls.dtype == features.patches.dtype == jnp.bfloat16


@pytest.mark.parametrize("shape", [(1, 71, 70, 3), (1, 70, 69, 3), (1, 0, 70, 3)])
def test_sides_must_be_multiples_of_the_patch(shape):
    network = nnx.eval_shape(lambda: DINOv2(DINOv2Config.nano(), rngs=nnx.Rngs(0)))
    with pytest.raises(ValueError, match=f"multiples of 14, got {shape[1]} x {shape[2]}"):
        network(jnp.zeros(shape))
