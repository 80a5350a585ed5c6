"""What PyTorch's FlopCounterMode counts in the forward pass of each network of a training.

The networks are diffusers', transformers' and the tests' own, on the meta device: nothing is
computed. FlopCounterMode counts matrix products and convolutions, and in a convolution also the
products with padding, which XLA leaves out; so each count is given with and without these.
"""

from collections.abc import Callable
from functools import cached_property
from typing import Any, NamedTuple

import torch
import transformers
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.controlnets.controlnet import ControlNetModel
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from make_release_checkpoint import UNET_CONFIG, load_configs
from oracles.dinov2_hub import DINOv2Hub
from oracles.release_parts import transformer_blocks
from torch import nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from magiccolor_jax.encoders.dinov2_config import DINOv2Config
from magiccolor_jax.encoders.vgg import DEPTHS, LAYERS, VGG19Config
from magiccolor_jax.types import LATENT_FACTOR


class TorchFlops(NamedTuple):
    """Of one call."""

    counted: float
    """FlopCounterMode's number."""
    inside: float
    """Without a convolution's products with padding."""


def torch_flops(call: Callable[[], Any]) -> TorchFlops:
    """What a call on meta tensors would compute."""
    totals = []
    for formulas in ({}, {torch.ops.aten.convolution: _inside}):
        with torch.no_grad(), FlopCounterMode(display=False, custom_mapping=formulas) as counter:
            call()
        totals.append(float(counter.get_total_flops()))
    return TorchFlops(*totals)


def _inside(x, weight, _bias, stride, padding, dilation, transposed, *_, out_shape, **__) -> int:
    """FLOPs of a convolution whose taps on padding are left out."""
    assert not transposed and set(dilation) == {1}, "these networks have no other"
    taps = 1
    for size, kernel, out, step, pad in zip(
        x[2:], weight[2:], out_shape[2:], stride, padding, strict=True
    ):
        starts = [step * i - pad for i in range(out)]
        taps *= sum(min(at + kernel, size) - max(at, 0) for at in starts)
    return 2 * x[0] * weight[0] * weight[1] * taps


class _Bank:
    """Self-attention that also reads as many reference tokens as it has own (release.md §2.2)."""

    def __call__(self, attn: Any, hidden_states: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
        joined = torch.cat([hidden_states, torch.empty_like(hidden_states)], dim=1)
        maps = (attn.to_q(hidden_states), attn.to_k(joined), attn.to_v(joined))
        heads = (x.unflatten(-1, (attn.heads, -1)).transpose(1, 2) for x in maps)
        mixed = functional.scaled_dot_product_attention(*heads)
        return attn.to_out[0](mixed.transpose(1, 2).flatten(2))


class TorchNetworks:
    """The networks of the release, on meta, as functions of sizes in pixels to FLOPs of one case.

    Every `page` is a side of a square picture; UNets and guiders see its latent.
    """

    def __init__(self, size: Any, dinov2: DINOv2Config, vgg: VGG19Config):
        """`size`: `full` or `nano`, as `make_release_checkpoint` knows them."""
        transformers.logging.set_verbosity_error()
        self._configs, self._dinov2, self._vgg = load_configs(size), dinov2, vgg

    def _made(self, build: Callable[[], Any]) -> Any:
        with torch.device("meta"):
            return build().eval()

    @cached_property
    def vae(self) -> Any:
        """sd-vae-ft-mse."""
        cfg = self._configs["sd-vae-ft-mse/config.json"]
        return self._made(lambda: AutoencoderKL.from_config(cfg))

    @cached_property
    def unet(self) -> Any:
        """Denoiser or reference UNet."""
        return self._made(lambda: UNet2DConditionModel.from_config(self._configs[UNET_CONFIG]))

    def encode(self, page: int) -> TorchFlops:
        """Picture -> latent."""
        return torch_flops(lambda: self.vae.encode(_meta(1, 3, page, page)))

    def decode(self, page: int) -> TorchFlops:
        """Latent -> picture."""
        channels, side = self.vae.config.latent_channels, page // LATENT_FACTOR
        return torch_flops(lambda: self.vae.decode(_meta(1, channels, side, side)))

    def clip(self) -> TorchFlops:
        """Canvas -> context."""
        cfg = self._configs["clip-vit-large-patch14/config.json"]["vision_config"]
        config = transformers.CLIPVisionConfig(**cfg)
        model = self._made(lambda: transformers.CLIPVisionModelWithProjection(config))
        side: Any = config.image_size
        return torch_flops(lambda: model(_meta(1, 3, side, side)))

    def dinov2(self, side: int) -> TorchFlops:
        """One picture -> tokens."""
        model = self._made(lambda: DINOv2Hub(self._dinov2))
        return torch_flops(lambda: model(_meta(1, 3, side, side)))

    def denoiser(self, page: int, tokens: int, *, bank: bool) -> TorchFlops:
        """UNet with so many context tokens, with or without the reference's."""
        layers: list[Any] = [block.attn1 for block in transformer_blocks(self.unet).values()]
        before = [layer.processor for layer in layers]
        for layer, own in zip(layers, before, strict=True):
            layer.set_processor(_Bank() if bank else own)
        found = torch_flops(lambda: self.unet(*self._operands(page, tokens)))
        for layer, own in zip(layers, before, strict=True):
            layer.set_processor(own)
        return found

    def guider(self, name: str, page: int, tokens: int) -> TorchFlops:
        """Guider `sketch` or `multi`, from its picture or map on."""
        config = self._configs[f"MagicColor/controlnet_{name}/config.json"]
        model = self._made(lambda: ControlNetModel.from_config(config))
        hint = _meta(1, config["conditioning_channels"], page, page)
        return torch_flops(lambda: model(*self._operands(page, tokens), hint))

    def vgg(self, side: int) -> TorchFlops:
        """Picture -> activations, no further than the last that is read."""
        layers, inputs = [], 3
        for width, depth in zip(self._vgg.widths, DEPTHS, strict=True):
            for _ in range(depth):
                layers += [nn.Conv2d(inputs, width, 3, padding=1, device="meta"), nn.ReLU()]
                inputs = width
            layers.append(nn.MaxPool2d(2))
        read = nn.Sequential(*layers[: LAYERS[self._vgg.layers[-1]][1] + 1])
        return torch_flops(lambda: read(_meta(1, 3, side, side)))

    def _operands(self, page: int, tokens: int) -> tuple[torch.Tensor, ...]:
        config, side = self.unet.config, page // LATENT_FACTOR
        latents = _meta(1, config.in_channels, side, side)
        return latents, _meta(1), _meta(1, tokens, config.cross_attention_dim)


def _meta(*shape: int) -> torch.Tensor:
    return torch.empty(*shape, device="meta")
