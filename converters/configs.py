"""config.json of diffusers and transformers -> our configs (write_configs.py is the way back).

Reading is strict: a field that we do not know, or know at another value only, is an error
(facts: diffusers `unet_2d_condition.py`, `controlnet.py`, `autoencoder_kl.py`). transformers' files
are read by the encoders' own `from_hf`.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from magiccolor_jax.encoders.clip_config import CLIPTextConfig, CLIPVisionConfig
from magiccolor_jax.encoders.dinov2_config import DINOv2Config
from magiccolor_jax.encoders.vae import VAEConfig
from magiccolor_jax.models.controlnet import ControlNetConfig
from magiccolor_jax.models.unet import UNetConfig
from magiccolor_jax.segment.sam_config import SAMConfig
from magiccolor_jax.types import LATENT_FACTOR, Sizes

Config = Mapping[str, Any]
Made = TypeVar("Made")

DEFAULT_SAMPLE_SIZE = 64
"""Side of the latent where a UNet's file gives none: Stable Diffusion 1.5's."""

WITH_ATTENTION = ("CrossAttnDownBlock2D", "CrossAttnUpBlock2D")
WITHOUT = ("DownBlock2D", "UpBlock2D")
"""Class names of a level, on the way down and up."""

BOOKKEEPING = frozenset({"_class_name", "_diffusers_version", "_name_or_path", "sample_size"})
"""Fields without influence on the weights or on what is computed."""

BLOCKS_DEFAULTS = {
    "in_channels": 4,
    "block_out_channels": [320, 640, 1280, 1280],
    "down_block_types": [WITH_ATTENTION[0]] * 3 + [WITHOUT[0]],
    "layers_per_block": 2,
    "attention_head_dim": 8,
    "num_attention_heads": None,
    "cross_attention_dim": 1280,
    "norm_num_groups": 32,
}
"""What diffusers assumes where a file says nothing, for the fields that we read."""

BLOCKS_FIXED = {
    "act_fn": "silu",
    "addition_embed_type": None,
    "addition_embed_type_num_heads": 64,
    "addition_time_embed_dim": None,
    "class_embed_type": None,
    "downsample_padding": 1,
    "encoder_hid_dim": None,
    "encoder_hid_dim_type": None,
    "flip_sin_to_cos": True,
    "freq_shift": 0,
    "mid_block_scale_factor": 1,
    "mid_block_type": "UNetMidBlock2DCrossAttn",
    "norm_eps": 1e-5,
    "num_class_embeds": None,
    "only_cross_attention": False,
    "projection_class_embeddings_input_dim": None,
    "resnet_time_scale_shift": "default",
    "transformer_layers_per_block": 1,
    "upcast_attention": False,
    "use_linear_projection": False,
}
"""Fields that the networks honour at one value only."""

UNET_DEFAULTS = BLOCKS_DEFAULTS | {
    "out_channels": 4,
    "up_block_types": [WITHOUT[1]] + [WITH_ATTENTION[1]] * 3,
}
UNET_FIXED = BLOCKS_FIXED | {
    "attention_type": "default",
    "center_input_sample": False,
    "class_embeddings_concat": False,
    "conv_in_kernel": 3,
    "conv_out_kernel": 3,
    "cross_attention_norm": None,
    "dropout": 0.0,
    "dual_cross_attention": False,
    "mid_block_only_cross_attention": None,
    "resnet_out_scale_factor": 1.0,
    "resnet_skip_time_act": False,
    "reverse_transformer_layers_per_block": None,
    "time_cond_proj_dim": None,
    "time_embedding_act_fn": None,
    "time_embedding_dim": None,
    "time_embedding_type": "positional",
    "timestep_post_act": None,
}
CONTROLNET_DEFAULTS = BLOCKS_DEFAULTS | {
    "conditioning_channels": 3,
    "conditioning_embedding_out_channels": [16, 32, 96, 256],
}
CONTROLNET_FIXED = BLOCKS_FIXED | {
    "controlnet_conditioning_channel_order": "rgb",
    "global_pool_conditions": False,
}
VAE_DEFAULTS = {
    "in_channels": 3,
    "block_out_channels": [64],
    "layers_per_block": 1,
    "latent_channels": 4,
    "norm_num_groups": 32,
    "scaling_factor": 0.18215,
}
VAE_FIXED = {
    "act_fn": "silu",
    "latents_mean": None,
    "latents_std": None,
    "mid_block_add_attention": True,
    "shift_factor": None,
    "use_post_quant_conv": True,
    "use_quant_conv": True,
}


def unet_from_hf(config: Config, where: str, *, head: bool = True) -> UNetConfig:
    """Reads a UNet2DConditionModel's config.

    Args:
        where: names the file in the error.
        head: False for the reference UNet.

    Raises:
        ValueError: one report of all that we cannot honour.
    """
    values = _read(config, where, "UNet2DConditionModel", UNET_DEFAULTS, UNET_FIXED)
    ups = [name.replace("Up", "Down") for name in reversed(values["up_block_types"])]
    if ups != list(values["down_block_types"]):
        raise ValueError(
            f"{where}: up_block_types must mirror down_block_types, got "
            f"{values['down_block_types']} and {values['up_block_types']}"
        )
    return UNetConfig(
        out_channels=values["out_channels"], head=head, **_blocks_fields(values, where)
    )


def controlnet_from_hf(config: Config, where: str, *, adapter: bool = False) -> ControlNetConfig:
    """Reads a ControlNetModel's config.

    Args:
        where: names the file in the error.
        adapter: True for the instance guider, whose `dino_adapter` is used.

    Raises:
        ValueError: one report of all that we cannot honour.
    """
    values = _read(config, where, "ControlNetModel", CONTROLNET_DEFAULTS, CONTROLNET_FIXED)
    return ControlNetConfig(
        conditioning_channels=values["conditioning_channels"],
        embedding_channels=tuple(values["conditioning_embedding_out_channels"]),
        adapter=adapter,
        **_blocks_fields(values, where),
    )


def vae_from_hf(config: Config, where: str) -> VAEConfig:
    """Reads an AutoencoderKL's config.

    Raises:
        ValueError: one report of all that we cannot honour.
    """
    channels = config.get("block_out_channels", VAE_DEFAULTS["block_out_channels"])
    levels = len(channels) if isinstance(channels, list | tuple) else 0
    fixed = VAE_FIXED | {
        "down_block_types": ["DownEncoderBlock2D"] * levels,
        "up_block_types": ["UpDecoderBlock2D"] * levels,
        "out_channels": config.get("in_channels", 3),
    }
    values = _read(config, where, "AutoencoderKL", VAE_DEFAULTS, fixed, {"force_upcast"})
    return VAEConfig(
        channels=tuple(values["block_out_channels"]),
        layers=values["layers_per_block"],
        latent_channels=values["latent_channels"],
        picture_channels=values["in_channels"],
        groups=values["norm_num_groups"],
        scaling_factor=values["scaling_factor"],
    )


def from_hf(kind: str, config: Config, where: Path, **role: Any) -> Any:
    """Reads the config.json of a network of this kind (`FROM_HF`).

    Args:
        role: arguments of the kind's reader, such as `head`.

    Raises:
        ValueError: one report of all that we cannot honour; it names the file.
    """
    return named(where, lambda: FROM_HF[kind](config, str(where), **role))


def named(where: Path, make: Callable[[], Made]) -> Made:
    """`make()`, whose ValueErrors get to name the file that they are about."""
    try:
        return make()
    except ValueError as error:
        text = str(error)
        raise ValueError(text if text.startswith(str(where)) else f"{where}: {text}") from None


FROM_HF: dict[str, Callable[..., Any]] = {
    "unet": unet_from_hf,
    "controlnet": controlnet_from_hf,
    "vae": vae_from_hf,
    "clip_vision": lambda config, where: CLIPVisionConfig.from_hf(config),
    "clip_text": lambda config, where: CLIPTextConfig.from_hf(config),
    "dinov2": lambda config, where: DINOv2Config.from_hf(config),
    "sam": lambda config, where: SAMConfig.from_hf(config),
}
"""Kind of network -> reader of its config.json: (content, name for errors) -> our config."""


def _read(
    config: Config,
    where: str,
    class_name: str,
    defaults: dict[str, Any],
    fixed: dict[str, Any],
    ignored: frozenset[str] | set[str] = frozenset(),
) -> dict[str, Any]:
    """The values of `defaults`' fields; every other field must be known and at its one value."""
    report = []
    if config.get("_class_name", class_name) != class_name:
        report.append(f"  _class_name: expected {class_name!r}, got {config['_class_name']!r}")
    for key, value in config.items():
        if key in fixed and value != fixed[key]:
            report.append(f"  {key}: expected {fixed[key]!r}, got {value!r}")
        elif key not in (fixed.keys() | defaults.keys() | ignored | BOOKKEEPING):
            report.append(f"  {key}: unknown field with value {value!r}")
    values = {key: config.get(key, default) for key, default in defaults.items()}
    for key, default in defaults.items():
        if not _fits(values[key], default):
            report.append(f"  {key}: expected something like {default!r}, got {values[key]!r}")
    if report:
        raise ValueError(f"{where}: describes a network that we do not have:\n" + "\n".join(report))
    return values


def _fits(value: Any, default: Any) -> bool:
    """Whether `value` may stand where `default` stands: of its kind, and numbers are positive."""
    if default is None:
        return value is None or _fits(value, 1)
    if isinstance(default, list):
        return (
            isinstance(value, list | tuple)
            and len(value) > 0
            and all(_fits(item, default[0]) for item in value)
        )
    if isinstance(default, float):
        return isinstance(value, int | float) and not isinstance(value, bool) and value > 0
    return type(value) is type(default) and (not isinstance(value, int) or value > 0)


def _blocks_fields(values: dict[str, Any], where: str) -> dict[str, Any]:
    """The fields that UNet and guiders share, in our words."""
    types = values["down_block_types"]
    unknown = [name for name in types if name not in (WITH_ATTENTION[0], WITHOUT[0])]
    if unknown or len(types) != len(values["block_out_channels"]):
        raise ValueError(
            f"{where}: down_block_types must name one of {WITH_ATTENTION[0]}, {WITHOUT[0]} for "
            f"each of the {len(values['block_out_channels'])} levels, got {types}"
        )
    # diffusers calls the number of heads attention_head_dim and keeps the name for old files' sake.
    heads = values["num_attention_heads"] or values["attention_head_dim"]
    return {
        "in_channels": values["in_channels"],
        "channels": tuple(values["block_out_channels"]),
        "attention": tuple(name == WITH_ATTENTION[0] for name in types),
        "layers": values["layers_per_block"],
        "heads": heads,
        "context": values["cross_attention_dim"],
        "groups": values["norm_num_groups"],
    }


def read_page(unet: Config) -> int:
    """Side in pixels of the page that a UNet was made for.

    Args:
        unet: content of its config.json; `sample_size`, in latents, may be given per axis.

    Raises:
        ValueError: it is no size.
    """
    size = unet.get("sample_size") or DEFAULT_SAMPLE_SIZE
    side = size[0] if isinstance(size, list) and size and size == size[:1] * 2 else size
    if type(side) is not int or side < 1:
        raise ValueError(f"sample_size: expected the side of a square in latents, got {size!r}")
    return side * LATENT_FACTOR


def read_sizes(
    page: int, clip: CLIPVisionConfig | None = None, dinov2: DINOv2Config | None = None
) -> Sizes:
    """The picture sizes that a model works at, from its networks' configs.

    DINOv2 sees one patch less per side than its position table was trained for: the release takes
    504 px = 36 patches where the table has 37 (release.md §4), and so do we at every size.

    Args:
        page: from `read_page`.
    """
    sizes = Sizes(page=page, canvas=page)
    if dinov2 is not None:
        patch = dinov2.patch_size
        sizes = sizes._replace(reference=(dinov2.grid - 1) * patch, patch=patch)
    return sizes if clip is None else sizes._replace(clip=clip.image_size)
