"""The embedded default: the whole method at a size that a laptop trains and runs.

All networks together have less than 10 million parameters. Pages are 256 px, and lines come back
at the sketch's own size when the colours are laid under them (recipe `finish`), evened out over
the width of a latent. The context is DINOv2's tokens, so that neither CLIP nor a text encoder is
needed.
"""

from dataclasses import replace
from typing import Any

from magiccolor_jax.checkpoint import ModelConfig
from magiccolor_jax.diffusion.schedule import Schedule
from magiccolor_jax.encoders.dinov2_config import DINOv2Config
from magiccolor_jax.encoders.vae import VAEConfig
from magiccolor_jax.models.context import ContextConfig
from magiccolor_jax.models.controlnet import ControlNetConfig
from magiccolor_jax.models.unet import UNetConfig
from magiccolor_jax.recipe import Recipe
from magiccolor_jax.types import Sizes

SIZES = Sizes(page=256, canvas=256, reference=112, clip=32)

RECIPE = Recipe(context="dinov2", finish="lines", finish_reach=8)

SCHEDULE = replace(Schedule.sd15(), prediction_type="v_prediction", timestep_spacing="trailing")
"""Velocity and trailing steps suit few steps."""

AUTOENCODER = VAEConfig(
    channels=(8, 16, 32, 64), layers=1, latent_channels=12, groups=2, scaling_factor=1.0
)

ENCODER = DINOv2Config(
    hidden_size=96,
    num_hidden_layers=4,
    num_attention_heads=4,
    num_register_tokens=0,
    image_size=SIZES.reference,
)

CONTEXT = 64

BLOCKS: dict[str, Any] = {
    "in_channels": AUTOENCODER.latent_channels,
    "channels": (32, 64, 96),
    "attention": (False, True, True),
    "layers": 1,
    "heads": 4,
    "groups": 8,
    "context": CONTEXT,
}

UNET: dict[str, Any] = BLOCKS | {"out_channels": AUTOENCODER.latent_channels}

GUIDER: dict[str, Any] = BLOCKS | {"embedding_channels": (8, 16, 32, 32)}


def model(autoencoder: VAEConfig) -> ModelConfig:
    """The model folder's config.json.

    Args:
        autoencoder: with its measured scaling factor.
    """
    width = ENCODER.hidden_size
    networks = {
        "denoiser": UNetConfig(**UNET),
        "reference": UNetConfig(**UNET, head=False),
        "sketch_guider": ControlNetConfig(**GUIDER),
        "instance_guider": ControlNetConfig(**GUIDER, conditioning_channels=width, adapter=True),
        "context": ContextConfig(inputs=width, hidden=width, outputs=CONTEXT),
        "vae": autoencoder,
        "dinov2": ENCODER,
    }
    return ModelConfig(networks=networks, recipe=RECIPE, sizes=SIZES, schedule=SCHEDULE)
