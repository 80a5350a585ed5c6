"""A release folder in PyTorch, opened as its own code does: by diffusers, transformers, torch.load.

Nothing of the converters is used, so what is compared with our networks is independent of them.
"""

import json
import os
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
import transformers
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.controlnets.controlnet import ControlNetModel
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.utils import logging as diffusers_logging
from oracles.dinov2_hub import DINOv2Hub
from oracles.release import ReleaseInputs, ReleaseNoise, with_dino_adapter
from random_inputs import Arrays
from torch import Tensor, nn

from magiccolor_jax.encoders.dinov2_config import DINOv2Config

ENCODING = ("vae", "text_encoder", "clip_text", "clip_vision", "dino")
DENOISING = ("reference", "denoiser", "sketch_guider", "multi_guider")


class TorchRelease:
    """The networks under the names of `oracles.release.ReleaseModels`.

    They are loaded when they are first asked for. Only one stage (`ENCODING`, `DENOISING`) is kept
    at a time, so that memory holds 9.7 GB of the 13.5 GB.
    """

    def __init__(self, root: Path, dinov2: DINOv2Config):
        """`dinov2`: its sizes; the hub's file has no config."""
        torch.set_num_threads(len(os.sched_getaffinity(0)))
        transformers.logging.set_verbosity_error()
        transformers.logging.disable_progress_bar()
        diffusers_logging.set_verbosity_error()
        self._root, self._dinov2 = root, dinov2
        self._loaded: dict[str, nn.Module] = {}

    def __getattr__(self, name: str) -> Any:
        if name not in ENCODING + DENOISING:
            raise AttributeError(name)
        if name not in self._loaded:
            stage = ENCODING if name in ENCODING else DENOISING
            self._loaded = {key: self._loaded[key] for key in self._loaded if key in stage}
            self._loaded[name] = self._load(name).eval().requires_grad_(False)
        return self._loaded[name]

    def only(self, name: str) -> Any:
        """One network, and the memory of all others given back."""
        self._loaded = {key: self._loaded[key] for key in self._loaded if key == name}
        return getattr(self, name)

    def _load(self, name: str) -> Any:
        root, clip = self._root, self._root / "clip-vit-large-patch14"
        match name:
            case "vae":
                folder = root / "sd-vae-ft-mse"
                is_safe = (folder / "diffusion_pytorch_model.safetensors").is_file()
                return AutoencoderKL.from_pretrained(folder, use_safetensors=is_safe)
            case "text_encoder":
                folder = root / "stable-diffusion-v1-5/text_encoder"
                return transformers.CLIPTextModel.from_pretrained(folder)
            case "clip_text":
                return transformers.CLIPTextModel.from_pretrained(clip)
            case "clip_vision":
                return transformers.CLIPVisionModelWithProjection.from_pretrained(clip)
            case "dino":
                state = _state_dict(root / "dinov2_vitl14_reg4_pretrain")
                with torch.device("meta"):
                    model = DINOv2Hub(self._dinov2)
                model.load_state_dict(state, assign=True)
                return model
            case "reference" | "denoiser":
                return self._unet("reference_unet" if name == "reference" else "denoising_unet")
        return self._guider(root / f"MagicColor/controlnet_{name.removesuffix('_guider')}")

    def _unet(self, stem: str) -> Any:
        config = json.loads((self._root / "stable-diffusion-v1-5/unet/config.json").read_text())
        state = _state_dict(self._root / "MagicColor" / stem)
        with torch.device("meta"):
            model: Any = UNet2DConditionModel.from_config(config)
        if "conv_norm_out.weight" not in state:
            model.conv_norm_out = nn.Identity()  # the reference UNet's output is not used
        model.load_state_dict(state, assign=True)
        return model

    def _guider(self, folder: Path) -> Any:
        config = json.loads((folder / "config.json").read_text())
        with torch.device("meta"):
            guider: Any = ControlNetModel.from_config(config)
            model: Any = with_dino_adapter(guider)
        state = _state_dict(folder / "diffusion_pytorch_model")
        model.load_state_dict(state, assign=True)
        return model


def _state_dict(stem: Path) -> dict[str, Tensor]:
    """The float32 tensors of `stem` with whichever suffix is there."""
    path = next(
        path
        for suffix in (".safetensors", ".pth", ".bin")
        if (path := stem.with_name(stem.name + suffix)).is_file()
    )
    if path.suffix == ".safetensors":
        state = safetensors.torch.load_file(path)
    else:
        state = torch.load(path, weights_only=True)
    return {key: tensor.float() for key, tensor in state.items()}


def to_release(case: Arrays) -> tuple[ReleaseInputs, ReleaseNoise]:
    """`random_inputs.case_inputs` as the oracle takes it."""
    pictures = ("sketch", "canvas", "clip_pixels", "reference_pixels")
    found: dict[str, Any] = {name: channels_first(case[name]) for name in pictures}
    inputs = ReleaseInputs(**found, id_map=torch.from_numpy(case["id_map"]))
    noise = ReleaseNoise(
        channels_first(case["noise"]),
        channels_first(case["canvas_noise"]),
        torch.from_numpy(case["order"]),
    )
    return inputs, noise


def channels_first(array: Any) -> Tensor:
    """[B H W C] -> [B C H W]; other arrays as they are."""
    tensor = torch.from_numpy(array)
    return tensor.movedim(-1, 1).contiguous() if tensor.ndim == 4 else tensor


def channels_last(tensor: Tensor) -> Any:
    """[B C H W] -> [B H W C]; other tensors as they are."""
    return (tensor.movedim(1, -1) if tensor.ndim == 4 else tensor).numpy()
