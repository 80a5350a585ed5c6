"""DINOv2's sizes: of the hub's files, told from their shapes, and of transformers' config.json."""

import math

import pytest

from converters import maps
from magiccolor_jax.checkpoint import parameter_shapes
from magiccolor_jax.encoders.dinov2_config import DINOv2Config, infer_config

HUB_PARAMETERS = {
    "vits14": 22_056_576,
    "vitb14": 86_580_480,
    "vitl14": 304_368_640,
    "vitg14": 1_136_480_768,
}
"""Parameters of the hub's models without registers."""

HF_BASE = {
    "architectures": ["Dinov2Model"],
    "attention_probs_dropout_prob": 0.0,
    "drop_path_rate": 0.0,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.0,
    "hidden_size": 768,
    "image_size": 518,
    "layer_norm_eps": 1e-06,
    "layerscale_value": 1.0,
    "mlp_ratio": 4,
    "model_type": "dinov2",
    "num_attention_heads": 12,
    "num_channels": 3,
    "num_hidden_layers": 12,
    "patch_size": 14,
    "qkv_bias": True,
    "torch_dtype": "float32",
    "use_swiglu_ffn": False,
}


def hub_shapes(cfg):
    shapes = parameter_shapes(cfg)
    return {
        maps.DINOV2.key(path): maps.DINOV2.to_torch_shape(path, shape)
        for path, shape in shapes.items()
    }


@pytest.mark.parametrize("name", HUB_PARAMETERS)
def test_official_sizes_are_told_from_their_shapes(name):
    size = getattr(DINOv2Config, name)
    shapes = hub_shapes(size(4)) | {"mask_token": (1, size(4).hidden_size)}
    assert infer_config(shapes) == size(4)
    del shapes["register_tokens"]
    assert infer_config(shapes) == size(0)
    assert sum(map(math.prod, shapes.values())) == HUB_PARAMETERS[name]


@pytest.mark.parametrize(
    "change", [{"num_register_tokens": 2}, {"num_hidden_layers": 11}, {"image_size": 224}]
)
def test_other_sizes_ask_for_a_config(change):
    shapes = hub_shapes(DINOv2Config.vits14(**change))
    with pytest.raises(ValueError, match=r"no official ViT-S/B/L/g .* config\.json"):
        infer_config(shapes)


def test_a_file_of_another_network_asks_for_a_config():
    with pytest.raises(ValueError, match="no official"):
        infer_config({"features.0.weight": (64, 3, 3, 3)})


def test_transformers_configs():
    assert DINOv2Config.from_hf(HF_BASE) == DINOv2Config.vitb14(registers=0)
    with_registers = HF_BASE | {"model_type": "dinov2_with_registers", "num_register_tokens": 4}
    assert DINOv2Config.from_hf(with_registers) == DINOv2Config.vitb14()


@pytest.mark.parametrize(
    ("kind", "patch", "registers"), [("dinov2", 14, 0), ("dinov2_with_registers", 16, 4)]
)
def test_what_a_file_leaves_out_has_transformers_defaults(kind, patch, registers):
    cfg = DINOv2Config.from_hf({"model_type": kind})
    assert (cfg.patch_size, cfg.num_register_tokens, cfg.image_size) == (patch, registers, 224)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"qkv_bias": False}, "qkv_bias: only True is supported, got False"),
        ({"hidden_act": "gelu_new"}, "hidden_act: only 'gelu' is supported"),
        ({"layer_norm_eps": 1e-5}, "layer_norm_eps: only 1e-06 is supported"),
        ({"image_size": 7}, "grid must be at least 1, got 0"),
        ({"num_attention_heads": 7}, "hidden_size must be a multiple of num_attention_heads"),
        ({"model_type": "dinov3_vit"}, "model_type must be one of .*, got 'dinov3_vit'"),
    ],
)
def test_what_cannot_be_honoured_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        DINOv2Config.from_hf(HF_BASE | change)
