"""Stable Diffusion 1.5's UNet in its two roles (diffusers `unet_2d_condition.py`).

As denoiser it takes the reference's features, already projected; as reference network it yields
them (`ReferenceFeatures`) and has no output head (the release's reference_unet.pth lacks
conv_norm_out, and its conv_out is never read).
"""

from dataclasses import dataclass
from typing import NamedTuple

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from magiccolor_jax.models.blocks import (
    RESNET_EPSILON,
    BlocksConfig,
    DownBlock,
    Hidden,
    MidBlock,
    UpBlock,
    project_all,
)
from magiccolor_jax.models.color_matching import Matching, match_colors
from magiccolor_jax.nn.embeddings import TimestepEmbedding
from magiccolor_jax.nn.resnet import group_norm
from magiccolor_jax.nn.spatial import conv3x3
from magiccolor_jax.nn.transformer import Transformer2D
from magiccolor_jax.types import LATENT_FACTOR, BlockCache, ReferenceFeatures, Residuals

MATCHED_UP_BLOCK = 1
"""Colour matching reads and replaces the output of this up-block (release.md §5)."""


@dataclass(frozen=True, kw_only=True)
class UNetConfig(BlocksConfig):
    """Sizes of the UNet; defaults are Stable Diffusion 1.5's (859.5 M parameters)."""

    out_channels: int = 4
    """Channels of the prediction."""
    head: bool = True
    """False in the reference role: no conv_norm_out, no conv_out."""

    @property
    def match_reduction(self) -> int:
        """Latents per feature, along one axis, where colour matching takes place."""
        return 2 ** max(len(self.channels) - 2 - MATCHED_UP_BLOCK, 0)

    @classmethod
    def sd15(cls, **overrides) -> "UNetConfig":
        """runwayml/stable-diffusion-v1-5."""
        return cls(**overrides)

    @classmethod
    def nano(cls, **overrides) -> "UNetConfig":
        """Test-sized."""
        sizes = {"channels": (16, 32, 32, 32), "heads": 4, "context": 24, "groups": 8}
        return cls(**(sizes | overrides))


class UNetOutput(NamedTuple):
    """Prediction and what the reference role hands over."""

    sample: Float[Array, "B h w C"] | None
    """f32; None without a head."""
    features: ReferenceFeatures


class UNet(nnx.Module):
    """Noise (or velocity) prediction of a latent under conditions."""

    def __init__(self, cfg: UNetConfig, *, rngs: nnx.Rngs):
        self.cfg = cfg
        levels = range(len(cfg.channels))
        self.conv_in = conv3x3(cfg.in_channels, cfg.channels[0], rngs=rngs, **cfg.kinds)
        self.time_embedding = TimestepEmbedding(cfg.channels[0], cfg.time, rngs=rngs, **cfg.kinds)
        self.down_blocks = nnx.List([DownBlock(cfg, level, rngs=rngs) for level in levels])
        self.mid_block = MidBlock(cfg, rngs=rngs)
        self.up_blocks = nnx.List([UpBlock(cfg, level, rngs=rngs) for level in reversed(levels)])
        if cfg.head:
            self.conv_norm_out = group_norm(
                cfg.channels[0], cfg.groups, RESNET_EPSILON, rngs=rngs, **cfg.kinds
            )
            self.conv_out = conv3x3(cfg.channels[0], cfg.out_channels, rngs=rngs, **cfg.kinds)

    @property
    def transformers(self) -> list[Transformer2D]:
        """In order of execution: 16 in SD1.5."""
        blocks = [*self.down_blocks, self.mid_block, *self.up_blocks]
        return [transformer for block in blocks for transformer in block.attentions]

    def project(
        self,
        context: Float[Array, "B S E"],
        mask: Array | None = None,
        reference: Hidden | None = None,
        sees: Bool[Array, " R"] | None = None,
    ) -> tuple[BlockCache, ...]:
        """What is constant over steps: keys and values of context and reference.

        Args:
            mask: [B S] bool, False where a context token is padding.
            reference: `ReferenceFeatures.hidden` for the last R rows of the batch.
            sees: which of these rows attend to it; None: all.
        """
        return project_all(self.transformers, context, mask, reference, sees)

    def __call__(
        self,
        latents: Float[Array, "B h w C"],
        timesteps: Int[Array, " B"],
        caches: tuple[BlockCache, ...],
        *,
        residuals: Residuals | None = None,
        matching: Matching | None = None,
    ) -> UNetOutput:
        """One evaluation.

        Args:
            latents: noisy latents (already x 0.18215); h and w multiples of `cfg.reduction`.
            timesteps: 0..999.
            caches: from `project`.
            residuals: sum of the guiders' outputs; R rows serve the last R rows.
            matching: replaces features after up-block 1.

        Raises:
            ValueError: h or w is no multiple of `cfg.reduction`.
        """
        check_divisible(latents.shape, self.cfg.reduction)
        queue, hidden = iter(caches), []
        time = self.time_embedding(timesteps)
        x = self.conv_in(latents)
        skips = [x]
        for block in self.down_blocks:
            x, made, normed = block(x, time, queue)
            skips += made
            hidden += normed
        x, normed = self.mid_block(x, time, queue)
        hidden += normed
        if residuals is not None:
            pairs = zip(skips, residuals.down, strict=True)
            skips = [add_to_last_rows(skip, residual) for skip, residual in pairs]
            x = add_to_last_rows(x, residuals.mid)
        match = x
        for index, block in enumerate(self.up_blocks):
            used = [skips.pop() for _ in block.resnets]
            x, normed = block(x, used, time, queue)
            hidden += normed
            if index == MATCHED_UP_BLOCK:
                match = x
                x = x if matching is None else match_colors(x, matching)
        features = ReferenceFeatures(tuple(hidden), match)
        if not self.cfg.head:
            return UNetOutput(None, features)
        sample = self.conv_out(nnx.silu(self.conv_norm_out(x)))
        return UNetOutput(sample.astype(jnp.float32), features)


def check_divisible(shape: tuple[int, ...], reduction: int) -> None:
    """Raises ValueError unless height and width of a [B h w C] latent can be halved evenly."""
    if shape[1] % reduction or shape[2] % reduction:
        raise ValueError(
            f"latent height and width must be multiples of {reduction} (one halving per level), "
            f"got {shape[1]}x{shape[2]}: choose a page whose sides are multiples of "
            f"{LATENT_FACTOR * reduction} px"
        )


def add_to_last_rows(x: Float[Array, "B *s"], addend: Float[Array, "R *s"]) -> Float[Array, "B *s"]:
    """x with `addend` added to its last R rows; in guidance these are the conditional ones."""
    rows = addend.shape[0]
    if rows == x.shape[0]:
        return x + addend.astype(x.dtype)
    return x.at[-rows:].add(addend.astype(x.dtype))
