"""Down, mid and up blocks, shared by the UNet's two roles and the two guiders.

Source: diffusers `unet_2d_blocks.py` (CrossAttnDownBlock2D, UNetMidBlock2DCrossAttn, UpBlock2D).
Each block takes its transformers' caches from a shared iterator, in order of execution, and returns
their normed self-attention inputs.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float

from magiccolor_jax.nn.remat import Remat, call
from magiccolor_jax.nn.resnet import ResnetBlock
from magiccolor_jax.nn.spatial import Downsample, Upsample
from magiccolor_jax.nn.transformer import Transformer2D
from magiccolor_jax.types import BlockCache

RESNET_EPSILON = 1e-5

Hidden = tuple[Float[Array, "R _ _"], ...]


@dataclass(frozen=True, kw_only=True)
class BlocksConfig:
    """What the UNet and the guiders have in common; defaults are Stable Diffusion 1.5's."""

    in_channels: int = 4
    """Channels of the noisy latent."""
    channels: tuple[int, ...] = (320, 640, 1280, 1280)
    """Width of each level (diffusers: block_out_channels)."""
    attention: tuple[bool, ...] = (True, True, True, False)
    """Which levels have transformers."""
    layers: int = 2
    """Residual blocks per level (layers_per_block); the way up has one more."""
    heads: int = 8
    """Attention heads on every level (the files call it attention_head_dim)."""
    context: int = 768
    """Width of the cross-attention context (cross_attention_dim)."""
    groups: int = 32
    """Groups of every GroupNorm (norm_num_groups)."""
    dtype: DTypeLike = jnp.float32
    """Compute dtype; norms, softmax and the output stay f32."""
    param_dtype: DTypeLike = jnp.float32
    """Storage dtype of the parameters."""
    remat: Remat = "off"
    """Recompute each residual block and transformer in the backward pass."""

    def __post_init__(self):
        if len(self.attention) != len(self.channels):
            raise ValueError(
                f"{type(self).__name__}: attention needs one flag per level: "
                f"expected {len(self.channels)}, got {len(self.attention)}"
            )
        for width in self.channels:
            if width % self.groups or width % self.heads:
                raise ValueError(
                    f"{type(self).__name__}: every level's width must be divisible by groups "
                    f"{self.groups} and heads {self.heads}, got {width}"
                )

    @property
    def time(self) -> int:
        """Width of the time embedding."""
        return 4 * self.channels[0]

    @property
    def reduction(self) -> int:
        """A latent side must be a multiple of this."""
        return 2 ** (len(self.channels) - 1)

    @property
    def kinds(self) -> dict[str, Any]:
        """dtype arguments of every layer."""
        return {"dtype": self.dtype, "param_dtype": self.param_dtype}


def resnet(cfg: BlocksConfig, inputs: int, outputs: int, rngs: nnx.Rngs) -> ResnetBlock:
    """A residual block with this network's time embedding."""
    return ResnetBlock(
        inputs,
        outputs,
        time=cfg.time,
        groups=cfg.groups,
        epsilon=RESNET_EPSILON,
        rngs=rngs,
        **cfg.kinds,
    )


def transformer(cfg: BlocksConfig, channels: int, rngs: nnx.Rngs) -> Transformer2D:
    """A transformer with this network's heads and context."""
    return Transformer2D(channels, cfg.context, cfg.heads, cfg.groups, rngs=rngs, **cfg.kinds)


class DownBlock(nnx.Module):
    """`layers` x (resnet, transformer), then half the resolution unless it is the last level."""

    def __init__(self, cfg: BlocksConfig, level: int, *, rngs: nnx.Rngs):
        inputs, outputs = cfg.channels[max(level - 1, 0)], cfg.channels[level]
        self.remat: Remat = cfg.remat
        self.resnets = nnx.List(
            [resnet(cfg, inputs if i == 0 else outputs, outputs, rngs) for i in range(cfg.layers)]
        )
        self.attentions = nnx.List(
            [transformer(cfg, outputs, rngs) for _ in range(cfg.layers) if cfg.attention[level]]
        )
        last = level == len(cfg.channels) - 1
        self.downsamplers = nnx.List([] if last else [Downsample(outputs, rngs=rngs, **cfg.kinds)])

    def __call__(
        self, x: Float[Array, "B h w C"], time: Float[Array, "B E"], caches: Iterator[BlockCache]
    ) -> tuple[Array, tuple[Array, ...], Hidden]:
        """Returns the output, one skip per layer (and downsampler), the normed inputs."""
        skips, hidden = [], []
        for i, block in enumerate(self.resnets):
            x = call(block, self.remat, x, time)
            if len(self.attentions):
                x, normed = call(self.attentions[i], self.remat, x, next(caches))
                hidden.append(normed)
            skips.append(x)
        for downsample in self.downsamplers:
            x = downsample(x)
            skips.append(x)
        return x, tuple(skips), tuple(hidden)


class MidBlock(nnx.Module):
    """Resnet, transformer, resnet at the lowest resolution."""

    def __init__(self, cfg: BlocksConfig, *, rngs: nnx.Rngs):
        width = cfg.channels[-1]
        self.remat: Remat = cfg.remat
        self.resnets = nnx.List([resnet(cfg, width, width, rngs) for _ in range(2)])
        self.attentions = nnx.List([transformer(cfg, width, rngs)])

    def __call__(
        self, x: Float[Array, "B h w C"], time: Float[Array, "B E"], caches: Iterator[BlockCache]
    ) -> tuple[Float[Array, "B h w C"], Hidden]:
        x = call(self.resnets[0], self.remat, x, time)
        x, normed = call(self.attentions[0], self.remat, x, next(caches))
        return call(self.resnets[1], self.remat, x, time), (normed,)


class UpBlock(nnx.Module):
    """`layers + 1` x (skip, resnet, transformer), then twice the resolution unless the last."""

    def __init__(self, cfg: BlocksConfig, level: int, *, rngs: nnx.Rngs):
        """`level` counts as on the way down: the first up-block has the highest."""
        last = len(cfg.channels) - 1
        outputs = cfg.channels[level]
        carried = [cfg.channels[min(level + 1, last)]] + [outputs] * cfg.layers
        skips = [outputs] * cfg.layers + [cfg.channels[max(level - 1, 0)]]
        self.remat: Remat = cfg.remat
        self.resnets = nnx.List(
            [resnet(cfg, a + b, outputs, rngs) for a, b in zip(carried, skips, strict=True)]
        )
        self.attentions = nnx.List(
            [transformer(cfg, outputs, rngs) for _ in carried if cfg.attention[level]]
        )
        self.upsamplers = nnx.List([Upsample(outputs, rngs=rngs, **cfg.kinds)] if level else [])

    def __call__(
        self,
        x: Float[Array, "B h w C"],
        skips: Sequence[Array],
        time: Float[Array, "B E"],
        caches: Iterator[BlockCache],
    ) -> tuple[Array, Hidden]:
        """`skips` in order of use: the last one made on the way down comes first."""
        hidden = []
        for i, (block, skip) in enumerate(zip(self.resnets, skips, strict=True)):
            x = call(block, self.remat, jnp.concatenate([x, skip], axis=-1), time)
            if len(self.attentions):
                x, normed = call(self.attentions[i], self.remat, x, next(caches))
                hidden.append(normed)
        for upsample in self.upsamplers:
            x = upsample(x)
        return x, tuple(hidden)


def project_all(
    transformers: Sequence[Transformer2D],
    context: Float[Array, "B S E"],
    mask: Array | None = None,
    reference: Hidden | None = None,
    sees: Bool[Array, " R"] | None = None,
) -> tuple[BlockCache, ...]:
    """Projects the conditions under each transformer's weights, in order of execution.

    Args:
        sees: which of the reference's rows are attended to; None: all.

    Raises:
        ValueError: the reference's features do not pair with the transformers.
    """
    banks = [None] * len(transformers) if reference is None else reference
    if len(banks) != len(transformers):
        raise ValueError(
            "reference features pair with transformer blocks by position: "
            f"expected {len(transformers)}, got {len(banks)}"
        )
    pairs = zip(transformers, banks, strict=True)
    return tuple(t.block.project(context, mask, bank, sees) for t, bank in pairs)
