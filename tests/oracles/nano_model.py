"""A whole model folder of test size with lively random weights; needs no PyTorch."""

import zlib
from pathlib import Path
from typing import Any

import numpy as np

from magiccolor_jax.checkpoint import ModelConfig, parameter_shapes, write_config
from magiccolor_jax.encoders.clip_config import CLIPTextConfig, CLIPVisionConfig
from magiccolor_jax.encoders.dinov2_config import DINOv2Config
from magiccolor_jax.encoders.vae import VAEConfig
from magiccolor_jax.models.magiccolor import MagicColorConfig
from magiccolor_jax.tensorfile import TensorFileWriter, TensorSpec
from magiccolor_jax.types import Sizes

SIZES = Sizes(page=128, canvas=128, reference=56, patch=14, clip=32)
HINT_GAIN = 1.7
"""As in `perturb`: a hint is lost after eight plain convolutions otherwise."""


def write_nano_model(
    folder: Path,
    trainable: MagicColorConfig | None = None,
    sizes: Sizes = SIZES,
    **others: Any,
) -> Path:
    """Makes the folder; recipe `paper`.

    Args:
        others: more networks, by name.
    """
    trainable = trainable or MagicColorConfig.nano()
    names = ("denoiser", "reference", "sketch_guider", "instance_guider")
    networks = {name: getattr(trainable, name) for name in names} | others
    networks |= {
        "vae": VAEConfig.nano(),
        "dinov2": DINOv2Config.nano(),
        "clip_vision": CLIPVisionConfig.nano(),
        "clip_text": CLIPTextConfig.nano(),
        "text_encoder": CLIPTextConfig.nano(),
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name, cfg in networks.items():
        shapes = parameter_shapes(cfg)
        specs = {key: TensorSpec(np.dtype(np.float32), shape) for key, shape in shapes.items()}
        with TensorFileWriter(folder / f"{name}.safetensors", specs) as writer:
            for key, shape in shapes.items():
                writer.write(key, _lively(f"{name}/{key}", shape))
    write_config(folder, ModelConfig(networks=networks, sizes=sizes))
    return folder


def _lively(key: str, shape: tuple[int, ...]) -> np.ndarray:
    """Keeps activations of order one; nothing is zero, one or symmetric."""
    noise = np.random.default_rng(zlib.crc32(key.encode())).standard_normal(shape, np.float32)
    leaf = key.rsplit("/", 1)[-1]
    if leaf == "kernel":
        gain = HINT_GAIN if "controlnet_cond_embedding" in key else 1.0
        return gain * noise / np.float32(np.sqrt(np.prod(shape[:-1])))
    if leaf == "bias":
        return np.float32(0.1) * noise
    if leaf in ("scale", "gamma"):
        return 1 + np.float32(0.2) * noise
    return np.float32(0.5) * noise
