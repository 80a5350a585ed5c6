"""The guiders against diffusers' ControlNetModel with the release's `dino_adapter`."""

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")

from oracles.parity import relative_error  # noqa: E402
from oracles.perturb import perturb_  # noqa: E402
from oracles.release import with_dino_adapter  # noqa: E402

from converters import maps, weightmap  # noqa: E402
from magiccolor_jax.checkpoint import parameter_shapes  # noqa: E402
from magiccolor_jax.models.controlnet import ControlNet, ControlNetConfig  # noqa: E402
from magiccolor_jax.nn.abstract import abstract  # noqa: E402

pytestmark = pytest.mark.torch

TOLERANCE = 1e-5


def channels_last(tensor):
    return jnp.asarray(tensor.movedim(1, -1).contiguous().numpy())


def make(cfg, weight_map):
    oracle = diffusers.ControlNetModel(
        block_out_channels=cfg.channels,
        attention_head_dim=cfg.heads,
        cross_attention_dim=cfg.context,
        norm_num_groups=cfg.groups,
        conditioning_embedding_out_channels=cfg.embedding_channels,
        conditioning_channels=cfg.conditioning_channels,
    )
    oracle = perturb_(with_dino_adapter(oracle), seed=cfg.conditioning_channels)
    ours = abstract(ControlNet, cfg)
    weights = {key: tensor.numpy() for key, tensor in oracle.state_dict().items()}
    weightmap.load_state_dict(ours, weight_map, weights, "guider")
    return oracle, ours


@nnx.jit
def evaluate(guider, latents, timesteps, hint, context):
    return guider(latents, timesteps, guider.embed(hint), guider.project(context))


@pytest.mark.parametrize(
    ("cfg", "weight_map"),
    [
        (ControlNetConfig.nano(), maps.SKETCH_GUIDER),
        (ControlNetConfig.nano(conditioning_channels=5, adapter=True), maps.CONTROLNET),
    ],
    ids=["sketch", "instances"],
)
def test_equals_diffusers(cfg, weight_map):
    oracle, ours = make(cfg, weight_map)
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn(2, 4, 24, 40, generator=generator)
    hint = torch.randn(2, cfg.conditioning_channels, 192, 320, generator=generator)
    context = torch.randn(2, 3, cfg.context, generator=generator)
    timesteps = torch.tensor([37, 951])
    with torch.inference_mode():
        down, mid = oracle(latents, timesteps, context, hint, return_dict=False)
    found = evaluate(
        ours,
        channels_last(latents),
        jnp.asarray(timesteps.numpy()),
        channels_last(hint),
        jnp.asarray(context.numpy()),
    )
    assert len(found.down) == len(down) == 12
    for x, y in zip((*found.down, found.mid), (*down, mid), strict=True):
        assert relative_error(x, channels_last(y)) < TOLERANCE
    if cfg.adapter:
        tokens = torch.randn(2, 7, cfg.conditioning_channels, generator=generator)
        adapted = ours.adapt(jnp.asarray(tokens.numpy()))
        assert relative_error(adapted, oracle.dino_adapter(tokens)) < TOLERANCE
        assert (np.asarray(adapted) == 0).any()


@pytest.mark.parametrize(
    ("cfg", "parameters"),
    [
        (ControlNetConfig.sketch(), 361_279_120),
        # 16 wider first kernels and the adapter.
        (ControlNetConfig.multi(), 361_279_120 + 9 * 16 * (1024 - 3) + 1024 * 1025),
    ],
    ids=["sketch", "multi"],
)
def test_full_size(cfg, parameters):
    """lllyasviel/control_v11p_sd15s2_lineart_anime has 361,279,120 parameters."""
    shapes = parameter_shapes(cfg)
    assert sum(int(np.prod(shape)) for shape in shapes.values()) == parameters
