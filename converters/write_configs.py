"""Our configs -> config.json of diffusers and transformers: the inverse of configs.py."""

import dataclasses
from collections.abc import Callable
from typing import Any

from converters.configs import WITH_ATTENTION, WITHOUT
from magiccolor_jax.diffusion.schedule import Schedule
from magiccolor_jax.encoders.clip_config import CLIPTextConfig, CLIPVisionConfig
from magiccolor_jax.encoders.dinov2_config import LAYER_NORM_EPS, DINOv2Config
from magiccolor_jax.encoders.vae import VAEConfig
from magiccolor_jax.models.controlnet import ControlNetConfig
from magiccolor_jax.models.unet import UNetConfig
from magiccolor_jax.segment.sam_config import SAMConfig
from magiccolor_jax.types import LATENT_FACTOR


def to_hf(config: Any, *, page: int) -> dict[str, Any]:
    """The config.json from which diffusers or transformers build the same network.

    Args:
        page: `Sizes.page`; the UNet's file carries it as `sample_size`.

    Raises:
        ValueError: no such library has this network (VGG-19 is torchvision's).
    """
    writers: dict[type, Callable[[Any], dict[str, Any]]] = {
        UNetConfig: _unet_to_hf,
        ControlNetConfig: _controlnet_to_hf,
        VAEConfig: _vae_to_hf,
        CLIPVisionConfig: _clip_vision_to_hf,
        CLIPTextConfig: _clip_text_to_hf,
        DINOv2Config: _dinov2_to_hf,
        SAMConfig: _sam_to_hf,
    }
    if type(config) not in writers:
        raise ValueError(f"no config.json describes a {type(config).__name__}")
    written = writers[type(config)](config)
    if isinstance(config, UNetConfig):
        written["sample_size"] = page // LATENT_FACTOR
    return written


def clip_to_hf(vision: CLIPVisionConfig, text: CLIPTextConfig | None) -> dict[str, Any]:
    """The config.json of a CLIPModel, whose towers share a file."""
    towers = {"vision_config": to_hf(vision, page=0)}
    if text is not None:
        towers["text_config"] = to_hf(text, page=0)
    return {
        "architectures": ["CLIPModel"],
        "model_type": "clip",
        "projection_dim": vision.projection_dim,
        **towers,
    }


def schedule_to_hf(schedule: Schedule) -> dict[str, Any]:
    """The scheduler_config.json of the same schedule."""
    return {
        "_class_name": "DDIMScheduler",
        **dataclasses.asdict(schedule),
        "clip_sample": False,
        "trained_betas": None,
    }


def _blocks_to_hf(config: UNetConfig | ControlNetConfig) -> dict[str, Any]:
    return {
        "in_channels": config.in_channels,
        "block_out_channels": list(config.channels),
        "down_block_types": [(WITH_ATTENTION if a else WITHOUT)[0] for a in config.attention],
        "layers_per_block": config.layers,
        "attention_head_dim": config.heads,
        "cross_attention_dim": config.context,
        "norm_num_groups": config.groups,
    }


def _unet_to_hf(config: UNetConfig) -> dict[str, Any]:
    return {
        "_class_name": "UNet2DConditionModel",
        **_blocks_to_hf(config),
        "out_channels": config.out_channels,
        "up_block_types": [
            (WITH_ATTENTION if a else WITHOUT)[1] for a in reversed(config.attention)
        ],
    }


def _controlnet_to_hf(config: ControlNetConfig) -> dict[str, Any]:
    return {
        "_class_name": "ControlNetModel",
        **_blocks_to_hf(config),
        "conditioning_channels": config.conditioning_channels,
        "conditioning_embedding_out_channels": list(config.embedding_channels),
    }


def _vae_to_hf(config: VAEConfig) -> dict[str, Any]:
    levels = len(config.channels)
    return {
        "_class_name": "AutoencoderKL",
        "in_channels": config.picture_channels,
        "out_channels": config.picture_channels,
        "block_out_channels": list(config.channels),
        "down_block_types": ["DownEncoderBlock2D"] * levels,
        "up_block_types": ["UpDecoderBlock2D"] * levels,
        "layers_per_block": config.layers,
        "latent_channels": config.latent_channels,
        "norm_num_groups": config.groups,
        "scaling_factor": config.scaling_factor,
    }


def _fields(config: Any, names: str) -> dict[str, Any]:
    return {name: getattr(config, name) for name in names.split()}


TOWER = "hidden_size intermediate_size num_hidden_layers num_attention_heads hidden_act"


def _clip_vision_to_hf(config: CLIPVisionConfig) -> dict[str, Any]:
    return {
        "architectures": ["CLIPVisionModelWithProjection"],
        "model_type": "clip_vision_model",
        **_fields(config, f"{TOWER} layer_norm_eps image_size patch_size projection_dim"),
    }


def _clip_text_to_hf(config: CLIPTextConfig) -> dict[str, Any]:
    return {
        "architectures": ["CLIPTextModel"],
        "model_type": "clip_text_model",
        **_fields(config, f"{TOWER} layer_norm_eps vocab_size max_position_embeddings"),
        **_fields(config, "bos_token_id eos_token_id"),
    }


def _dinov2_to_hf(config: DINOv2Config) -> dict[str, Any]:
    registers = config.num_register_tokens
    written = {
        "architectures": ["Dinov2WithRegistersModel" if registers else "Dinov2Model"],
        "model_type": "dinov2_with_registers" if registers else "dinov2",
        "layer_norm_eps": LAYER_NORM_EPS,
        **_fields(config, "hidden_size num_hidden_layers num_attention_heads mlp_ratio"),
        **_fields(config, "image_size patch_size use_swiglu_ffn"),
    }
    return written | ({"num_register_tokens": registers} if registers else {})


def _sam_to_hf(config: SAMConfig) -> dict[str, Any]:
    sides = _fields(config, "image_size patch_size")
    return {
        "architectures": ["SamModel"],
        "model_type": "sam",
        "vision_config": {
            "hidden_size": config.width,
            "num_hidden_layers": config.depth,
            "num_attention_heads": config.heads,
            "global_attn_indexes": list(config.global_blocks),
            "window_size": config.window,
            "mlp_ratio": float(config.mlp_ratio),
            "mlp_dim": config.mlp_ratio * config.width,
            "output_channels": config.channels,
            "num_pos_feats": config.channels // 2,
            **sides,
        },
        "prompt_encoder_config": {
            "hidden_size": config.channels,
            "mask_input_channels": config.mask_channels,
            "image_embedding_size": config.grid,
            **sides,
        },
        "mask_decoder_config": {
            "hidden_size": config.channels,
            "iou_head_hidden_dim": config.channels,
            "mlp_dim": config.decoder_width,
            "num_hidden_layers": config.decoder_depth,
            "num_attention_heads": config.decoder_heads,
            "layer_norm_eps": config.decoder_eps,
        },
    }
