"""PyTorch's side of `--verify`: the source's tensors in the libraries' own modules."""

from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from diffusers.models.attention import BasicTransformerBlock
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.controlnets.controlnet import ControlNetModel
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import nn

from converters import maps, verify_lineart
from converters.containers import open_weights
from converters.manifest import SourceRecord
from converters.to_diffusers import library_style
from converters.to_torch import kind_of
from converters.verify import Arrays, random_inputs
from converters.weightmap import wanted
from converters.write_configs import to_hf
from magiccolor_jax.encoders.vgg import BLOCK_STARTS, DEPTHS, IMAGENET_MEAN, IMAGENET_STD
from magiccolor_jax.tensorfile import TensorFile

State = dict[str, torch.Tensor]
Named = Iterator[tuple[str, torch.Tensor]]

HEAD = ("conv_norm_out.", "conv_out.")
ADAPTER = "dino_adapter.0."


def run(root: Path, source: SourceRecord, ours: Path, config: Any) -> Arrays:
    """The outputs of one network, channels last.

    Args:
        root: the folder that was converted.
        ours: the network's file in the JAX folder; only its names and shapes are read.
    """
    state = _state_dict(root, source, ours, kind_of(config))
    inputs = {name: _channels_first(value) for name, value in random_inputs(config).items()}
    with torch.inference_mode():
        named = TORCH[kind_of(config)](config, state, inputs)
        return {name: _channels_last(value.numpy()) for name, value in named}


def _state_dict(root: Path, source: SourceRecord, ours: Path, kind: str) -> State:
    """The source's tensors in float32 under the names that the library loads."""
    shapes = {path: spec.shape for path, spec in TensorFile(ours).specs.items()}
    weight_map, style = maps.BY_KIND[kind], maps.style_named(kind, source.style)
    named = library_style(kind)
    state = {}
    with ExitStack() as stack:
        files = [stack.enter_context(open_weights(root / file.path)) for file in source.files]
        held = {key: file for file in files for key in file.specs}

        def read(key: str) -> np.ndarray:
            return held[key].read(key).astype(np.float32)

        pairs = zip(
            wanted(weight_map, shapes, style), wanted(weight_map, shapes, named), strict=True
        )
        for theirs, loaded in pairs:
            whole = np.concatenate([read(key).reshape(theirs.part) for key in theirs.keys])
            for key, piece in zip(loaded.keys, np.split(whole, len(loaded.keys)), strict=True):
                state[key] = torch.from_numpy(piece.reshape(loaded.part))
    return state


def _channels_first(value: np.ndarray) -> torch.Tensor:
    tensor = torch.from_numpy(value)
    return tensor.movedim(-1, 1) if tensor.ndim == 4 else tensor


def _channels_last(value: np.ndarray) -> np.ndarray:
    return np.moveaxis(value, 1, -1) if value.ndim == 4 else value


def _diffusers(kind: type, config: Any, state: State, absent: tuple[str, ...] = ()) -> Any:
    """A diffusers model with exactly these weights.

    Args:
        absent: prefixes of parameters that the state does not have.
    """
    with torch.device("meta"):
        model = kind.from_config(to_hf(config, page=512))
    result = model.load_state_dict(state, strict=False, assign=True)
    missing = [key for key in result.missing_keys if not key.startswith(absent)]
    if missing or result.unexpected_keys:
        raise ValueError(f"{kind.__name__}: missing {missing}, unused {result.unexpected_keys}")
    return model.eval()


def _transformers(kind: type, config_kind: type, config: Any, state: State) -> Any:
    """A transformers model with exactly these weights, which may have its older names."""
    fields = {k: v for k, v in to_hf(config, page=512).items() if k != "model_type"}
    model, info = kind.from_pretrained(
        None,
        config=config_kind(**fields),
        state_dict=state,
        output_loading_info=True,
        attn_implementation="eager",
    )
    missing = {key for key in info["missing_keys"] if not key.endswith("mask_token")}
    if missing or info["unexpected_keys"]:
        raise ValueError(f"{kind.__name__}: {info}")
    return model.eval()


def _unet(config: Any, state: State, inputs: State) -> Named:
    absent = () if config.head else HEAD
    model, hidden = _diffusers(UNet2DConditionModel, config, state, absent), []
    if not config.head:
        model.conv_norm_out, model.conv_out = nn.Identity(), nn.Identity()
    for block in model.modules():
        if isinstance(block, BasicTransformerBlock):
            block.norm1.register_forward_hook(lambda module, args, out: hidden.append(out))
    out = model(inputs["latents"], inputs["timesteps"], inputs["context"]).sample
    yield from ((f"hidden{i}", value) for i, value in enumerate(hidden))
    if config.head:
        yield "sample", out


def _controlnet(config: Any, state: State, inputs: State) -> Named:
    adapter = {key: state.pop(key) for key in list(state) if key.startswith(ADAPTER)}
    model = _diffusers(ControlNetModel, config, state)
    out = model(
        inputs["latents"], inputs["timesteps"], inputs["context"], controlnet_cond=inputs["hint"]
    )
    yield from ((f"down{i}", value) for i, value in enumerate(out.down_block_res_samples))
    yield "mid", out.mid_block_res_sample
    if config.adapter:
        weight, bias = adapter[f"{ADAPTER}weight"], adapter[f"{ADAPTER}bias"]
        yield "adapter", torch.relu(nn.functional.linear(inputs["tokens"], weight, bias))


def _context(config: Any, state: State, inputs: State) -> Named:
    layers = {
        "norm": nn.LayerNorm(config.inputs),
        "proj_in": nn.Linear(config.inputs, config.hidden),
        "gelu": nn.GELU(),
        "proj_out": nn.Linear(config.hidden, config.outputs),
    }
    model = nn.Sequential(OrderedDict(layers))
    model.load_state_dict(state)
    yield "context", model(inputs["tokens"])


def _vae(config: Any, state: State, inputs: State) -> Named:
    model = _diffusers(AutoencoderKL, config, state)
    posterior = model.encode(inputs["pixels"]).latent_dist
    yield "mean", posterior.mean * config.scaling_factor
    yield "std", posterior.std * config.scaling_factor
    yield "picture", model.decode(inputs["latents"] / config.scaling_factor).sample


def _clip_vision(config: Any, state: State, inputs: State) -> Named:
    kinds = transformers.CLIPVisionModelWithProjection, transformers.CLIPVisionConfig
    yield "embedding", _transformers(*kinds, config, state)(inputs["pixels"]).image_embeds


def _clip_text(config: Any, state: State, inputs: State) -> Named:
    kinds = transformers.CLIPTextModel, transformers.CLIPTextConfig
    yield "hidden", _transformers(*kinds, config, state)(inputs["ids"]).last_hidden_state


def _dinov2(config: Any, state: State, inputs: State) -> Named:
    registers = config.num_register_tokens
    kinds = (
        (transformers.Dinov2WithRegistersModel, transformers.Dinov2WithRegistersConfig)
        if registers
        else (transformers.Dinov2Model, transformers.Dinov2Config)
    )
    tokens = _transformers(*kinds, config, state)(inputs["pixels"]).last_hidden_state
    yield "cls", tokens[:, 0]
    patches = tokens[:, 1 + registers :].unflatten(1, (config.grid, config.grid))
    yield "patches", patches.movedim(-1, 1)


def _sam(config: Any, state: State, inputs: State) -> Named:
    model = _transformers(transformers.SamModel, transformers.SamConfig, config, state)
    embedding = model.get_image_embeddings(inputs["pixels"])
    yield "embedding", embedding
    points, labels = inputs["points"][None], inputs["labels"][None]
    prompts: dict[str, State] = {
        "points": {},
        "boxes": {"input_boxes": inputs["boxes"][None]},
        "masks": {"input_masks": inputs["earlier"][None]},
    }
    for name, more in prompts.items():
        found = model(image_embeddings=embedding, input_points=points, input_labels=labels, **more)
        yield f"masks of {name}", found.pred_masks[0]
        yield f"quality of {name}", found.iou_scores[0]


def _vgg19(config: Any, state: State, inputs: State) -> Named:
    mean, std = (torch.from_numpy(v).view(1, 3, 1, 1) for v in (IMAGENET_MEAN, IMAGENET_STD))
    x = (inputs["pixels"] - mean) / std
    for block, (start, depth) in enumerate(zip(BLOCK_STARTS, DEPTHS, strict=True), 1):
        for index in range(depth):
            name = f"features.{start + 2 * index}"
            x = nn.functional.conv2d(x, state[f"{name}.weight"], state[f"{name}.bias"], padding=1)
            x = torch.relu(x)
            if f"relu{block}_{index + 1}" in config.layers:
                yield f"relu{block}_{index + 1}", x
        x = nn.functional.max_pool2d(x, 2)


TORCH: dict[str, Callable[[Any, State, State], Named]] = {
    "unet": _unet,
    "controlnet": _controlnet,
    "context": _context,
    "vae": _vae,
    "clip_vision": _clip_vision,
    "clip_text": _clip_text,
    "dinov2": _dinov2,
    "vgg19": _vgg19,
    "sam": _sam,
    **verify_lineart.TORCH,
}
"""Kind -> its named outputs, as converters/verify.py names them."""
