"""CLIP's towers against transformers: tiny, perturbed, through the real weight maps."""

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from oracles import transformers_names  # noqa: E402
from oracles.parity import relative_error, run  # noqa: E402
from oracles.perturb import perturb_  # noqa: E402

from converters import maps  # noqa: E402
from magiccolor_jax.encoders.clip import CLIPText, CLIPVision  # noqa: E402
from magiccolor_jax.encoders.clip_config import CLIPTextConfig, CLIPVisionConfig  # noqa: E402

pytestmark = pytest.mark.torch

TOLERANCE = 1e-5
PIXELS = np.random.default_rng(0).standard_normal((3, 35, 35, 3)).astype(np.float32)


def vision_oracle(**sizes):
    """35 px is no multiple of the patch: both leave the last 3 pixels out."""
    nano = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
    nano |= {"num_attention_heads": 2, "image_size": 35, "patch_size": 8, "projection_dim": 24}
    config = transformers.CLIPVisionConfig(**(nano | sizes))
    return perturb_(transformers.CLIPVisionModelWithProjection(config), seed=0)


def text_oracle(**sizes):
    nano = {"hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 2}
    nano |= {"num_attention_heads": 2, "vocab_size": 64, "max_position_embeddings": 16}
    nano |= {"bos_token_id": 62, "eos_token_id": 63, "pad_token_id": 63}
    return perturb_(
        transformers.CLIPTextModel(transformers.CLIPTextConfig(**(nano | sizes))), seed=0
    )


def vision(config):
    return lambda: CLIPVision(CLIPVisionConfig.from_hf(config.to_dict()), rngs=nnx.Rngs(0))


def text(config):
    return lambda: CLIPText(CLIPTextConfig.from_hf(config.to_dict()), rngs=nnx.Rngs(0))


@pytest.mark.parametrize("sizes", [{}, {"hidden_act": "gelu", "layer_norm_eps": 1e-3}])
def test_vision_equals_transformers(sizes):
    oracle = vision_oracle(**sizes)
    theirs = oracle(torch.tensor(PIXELS).permute(0, 3, 1, 2)).image_embeds
    ours = run(vision(oracle.config), maps.CLIP_VISION, oracle.state_dict(), PIXELS)
    assert relative_error(ours, theirs) < TOLERANCE


@pytest.mark.parametrize("length", [1, 2, 7, 16])
@pytest.mark.parametrize("sizes", [{}, {"hidden_act": "gelu", "layer_norm_eps": 1e-3}])
def test_text_equals_transformers(sizes, length):
    oracle = text_oracle(**sizes)
    ids = np.random.default_rng(0).integers(0, 62, (3, length)).astype(np.int32)
    ids[:, -1] = 63
    theirs = oracle(torch.tensor(ids)).last_hidden_state
    state = transformers_names.clip_text(oracle.state_dict())
    ours = run(text(oracle.config), maps.CLIP_TEXT, state, ids)
    assert relative_error(ours, theirs) < TOLERANCE


def test_both_towers_load_from_one_file():
    """A CLIPModel file: each tower takes its half, and what is left is known."""
    config = transformers.CLIPConfig(
        text_config=text_oracle().config.to_dict(),
        vision_config=vision_oracle().config.to_dict(),
        projection_dim=20,
    )
    oracle = perturb_(transformers.CLIPModel(config), seed=0)
    state = oracle.state_dict()
    for tower in ("text", "vision"):
        state[f"{tower}_model.embeddings.position_ids"] = torch.arange(17)[None]
    of_text = {key: tensor for key, tensor in state.items() if key.startswith("text_")}
    of_vision = {key: tensor for key, tensor in state.items() if key not in of_text}

    embeds = oracle.get_image_features(torch.tensor(PIXELS).permute(0, 3, 1, 2)).pooler_output
    ours = run(vision(config), maps.CLIP_VISION, of_vision, PIXELS)
    assert relative_error(ours, embeds) < TOLERANCE

    ids = np.array([[62, 3, 63]], np.int32)
    hidden = oracle.text_model(torch.tensor(ids)).last_hidden_state
    assert relative_error(run(text(config), maps.CLIP_TEXT, of_text, ids), hidden) < TOLERANCE


@pytest.mark.parametrize("network", ["vision", "text"])
def test_half_precision_stays_half(network):
    half = {"dtype": jnp.bfloat16, "param_dtype": jnp.bfloat16}
    if network == "vision":
        cfg, x = CLIPVisionConfig.nano(**half), jnp.ones((1, 32, 32, 3))
        out = nnx.eval_shape(lambda: CLIPVision(cfg, rngs=nnx.Rngs(0))(x))
    else:
        cfg, ids = CLIPTextConfig.nano(**half), jnp.ones((1, 4), int)
        out = nnx.eval_shape(lambda: CLIPText(cfg, rngs=nnx.Rngs(0))(ids))
    assert out.dtype == jnp.bfloat16


def test_a_picture_of_another_size_is_refused():
    network = nnx.eval_shape(lambda: CLIPVision(CLIPVisionConfig.nano(), rngs=nnx.Rngs(0)))
    with pytest.raises(ValueError, match=r"must be \[B 32 32 3\], got \(1, 32, 40, 3\)"):
        network(jnp.zeros((1, 32, 40, 3)))


def test_too_long_a_prompt_is_refused():
    network = nnx.eval_shape(lambda: CLIPText(CLIPTextConfig.nano(), rngs=nnx.Rngs(0)))
    with pytest.raises(ValueError, match="at most 16 tokens, got 17"):
        network(jnp.zeros((1, 17), int))
