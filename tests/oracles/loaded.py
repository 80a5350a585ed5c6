"""Our networks under the weights of PyTorch's, through the converter's maps."""

from collections.abc import Mapping
from typing import TypeVar

import jax
import jax.numpy as jnp
import torch
from flax import nnx
from oracles import transformers_names
from oracles.release import ReleaseModels
from transformers import CLIPTextModel

from converters import maps
from converters.weightmap import WeightMap, load_state_dict
from magiccolor_jax.conditioning.assemble import Encoders
from magiccolor_jax.encoders.clip import CLIPText, CLIPVision
from magiccolor_jax.encoders.clip_config import CLIPTextConfig, CLIPVisionConfig
from magiccolor_jax.encoders.dinov2 import DINOv2
from magiccolor_jax.encoders.dinov2_config import DINOv2Config
from magiccolor_jax.encoders.vae import VAE, VAEConfig
from magiccolor_jax.models.magiccolor import MagicColor, MagicColorConfig
from magiccolor_jax.nn.abstract import abstract
from magiccolor_jax.sampling.sampler import Networks
from magiccolor_jax.types import NullContexts

Module = TypeVar("Module", bound=nnx.Module)


def loaded(module: Module, weight_map: WeightMap, state: Mapping[str, torch.Tensor]) -> Module:
    """The module with these weights, all of them and no others."""
    tensors = {key: tensor.detach().numpy() for key, tensor in state.items()}
    load_state_dict(module, weight_map, tensors, "oracle")
    return module


def nano_networks(theirs: ReleaseModels) -> tuple[Networks, NullContexts]:
    """All of `nano.nano_release_models`."""
    model = abstract(MagicColor, MagicColorConfig.nano())
    loaded(model.denoiser, maps.UNET, theirs.denoiser.state_dict())
    reference = _without(theirs.reference.state_dict(), "conv_norm_out", "conv_out")
    loaded(model.reference, maps.UNET, reference)
    sketch = _without(theirs.sketch_guider.state_dict(), "dino_adapter")
    loaded(model.sketch_guider, maps.CONTROLNET, sketch)
    loaded(model.instance_guider, maps.CONTROLNET, theirs.multi_guider.state_dict())
    vae = loaded(abstract(VAE, VAEConfig.nano()), maps.VAE, theirs.vae.state_dict())
    clip = abstract(CLIPVision, CLIPVisionConfig.nano())
    loaded(clip, maps.CLIP_VISION, theirs.clip_vision.state_dict())
    dino = loaded(abstract(DINOv2, DINOv2Config.nano()), maps.DINOV2, theirs.dino.state_dict())
    nulls = NullContexts(_null_context(theirs.text_encoder), _null_context(theirs.clip_text))
    return Networks(model, Encoders(vae, clip), dino), nulls


def _without(state: Mapping[str, torch.Tensor], *prefixes: str) -> dict[str, torch.Tensor]:
    return {key: tensor for key, tensor in state.items() if not key.startswith(prefixes)}


def _null_context(text_model: CLIPTextModel) -> jax.Array:
    cfg = CLIPTextConfig.nano()
    state = transformers_names.clip_text(text_model.state_dict())
    network = loaded(abstract(CLIPText, cfg), maps.CLIP_TEXT, state)
    return network(jnp.array([cfg.empty_prompt]))[:, :1]
