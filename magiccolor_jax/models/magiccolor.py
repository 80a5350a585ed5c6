"""MagicColor (arXiv:2503.16948, figure 3): denoiser, reference UNet, sketch and instance guider.

canvas of references --VAE--> reference UNet --bank----------.
sketch ---------------------> sketch guider ---residuals--.  |
DINOv2 of each instance ----> instance guider -residuals--+--+-> denoiser -> noise
canvas --CLIP (or DINOv2) --> cross-attention context ----'
"""

from dataclasses import dataclass, field
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from magiccolor_jax.encoders.dinov2 import DINOv2
from magiccolor_jax.encoders.dinov2_config import DINOv2Config
from magiccolor_jax.models.color_matching import Matching
from magiccolor_jax.models.context import ContextConfig, ContextEncoder
from magiccolor_jax.models.controlnet import ControlNet, ControlNetConfig
from magiccolor_jax.models.unet import UNet, UNetConfig, add_to_last_rows
from magiccolor_jax.types import BlockCache, ReferenceFeatures, Residuals


class Guide(NamedTuple):
    """What a guider needs; R rows serve the last R rows of the batch."""

    hint: Float[Array, "R h w C"]
    """From `ControlNet.embed`."""
    caches: tuple[BlockCache, ...]
    """From `ControlNet.project`."""
    keep: Bool[Array, " R"] | None = None
    """Rows that are guided; None: all."""


class Conditioning(NamedTuple):
    """Everything that is constant over the steps.

    With guidance the rows of the batch are [unconditional of all cases | conditional of all cases].
    """

    caches: tuple[BlockCache, ...]
    """Context and reference bank under the denoiser's weights."""
    sketch: Guide
    instance: Guide | None
    """None where there is no instance guider (stage 1)."""
    matching: Matching | None
    """None when `color_matching` is off."""


@dataclass(frozen=True, kw_only=True)
class MagicColorConfig:
    """The trainable networks."""

    denoiser: UNetConfig = field(default_factory=UNetConfig.sd15)
    """Predicts the noise."""
    reference: UNetConfig | None = field(default_factory=lambda: UNetConfig.sd15(head=False))
    """Same blocks as the denoiser, which its features pair with; None: no bank, no matching."""
    sketch_guider: ControlNetConfig = field(default_factory=ControlNetConfig.sketch)
    """Sees the line art."""
    instance_guider: ControlNetConfig | None = field(default_factory=ControlNetConfig.multi)
    """Sees the guidance map; None: stage 1, and the ablation without it."""
    context: ContextConfig | None = None
    """Token MLP of recipe `context: dinov2`."""
    dinov2: DINOv2Config | None = None
    """Where it is trained along; None: it is frozen, and stands beside the model."""

    def __post_init__(self):
        guiders = (self.sketch_guider, self.instance_guider)
        for name, cfg in zip(("sketch_guider", "instance_guider"), guiders, strict=True):
            self._check_pairs(name, cfg)
        self._check_pairs("reference", self.reference)

    def _check_pairs(self, name: str, cfg: ControlNetConfig | UNetConfig | None) -> None:
        """Raises ValueError unless the network's blocks pair with the denoiser's."""
        for field_name in ("in_channels", "channels", "attention", "layers", "context"):
            expected = getattr(self.denoiser, field_name)
            if cfg is not None and getattr(cfg, field_name) != expected:
                raise ValueError(
                    f"MagicColorConfig: {name} must pair with the denoiser block by block: "
                    f"expected {field_name} {expected}, got {getattr(cfg, field_name)}"
                )

    @classmethod
    def sd15(cls) -> "MagicColorConfig":
        """The released model."""
        return cls()

    @classmethod
    def nano(cls, *, dino: int = 32, **overrides) -> "MagicColorConfig":
        """Test-sized; `dino` is the width of the DINOv2 tokens."""
        sizes = {
            "denoiser": UNetConfig.nano(),
            "reference": UNetConfig.nano(head=False),
            "sketch_guider": ControlNetConfig.nano(),
            "instance_guider": ControlNetConfig.nano(conditioning_channels=dino, adapter=True),
        }
        return cls(**(sizes | overrides))


class MagicColor(nnx.Module):
    """The four trainable networks and how they meet."""

    def __init__(self, cfg: MagicColorConfig, *, rngs: nnx.Rngs):
        self.denoiser = UNet(cfg.denoiser, rngs=rngs)
        self.reference = None if cfg.reference is None else UNet(cfg.reference, rngs=rngs)
        self.sketch_guider = ControlNet(cfg.sketch_guider, rngs=rngs)
        instance = cfg.instance_guider
        self.instance_guider = None if instance is None else ControlNet(instance, rngs=rngs)
        self.context = None if cfg.context is None else ContextEncoder(cfg.context, rngs=rngs)
        self.dinov2 = None if cfg.dinov2 is None else DINOv2(cfg.dinov2, rngs=rngs)

    def reference_features(
        self, canvas: Float[Array, "B s s C"], context: Float[Array, "B S E"], mask: Array | None
    ) -> ReferenceFeatures:
        """Features of the clean canvas latent at t = 0 (release.md §2.1).

        Args:
            mask: [B S] bool, False where a context token is padding.
        """
        assert self.reference is not None, "assemble asks only a model that has one"
        timesteps = jnp.zeros(canvas.shape[0], jnp.int32)
        caches = self.reference.project(context, mask)
        return self.reference(canvas, timesteps, caches).features

    def residuals(
        self,
        latents: Float[Array, "B h w C"],
        timesteps: Int[Array, " B"],
        conditioning: Conditioning,
    ) -> Residuals:
        """Sum of both guiders, weight 1 each."""
        sketch, instance = conditioning.sketch, conditioning.instance
        total = self.sketch_guider(latents, timesteps, sketch.hint, sketch.caches)
        if instance is None:
            return total
        assert self.instance_guider is not None, "its guide was made by it"
        rows = instance.hint.shape[0]
        added = self.instance_guider(
            latents[-rows:], timesteps[-rows:], instance.hint, instance.caches
        )
        if instance.keep is not None:
            keep = instance.keep[:, None, None, None]
            added = jax.tree.map(lambda residual: jnp.where(keep, residual, 0), added)
        down = zip(total.down, added.down, strict=True)
        return Residuals(
            tuple(add_to_last_rows(x, y) for x, y in down), add_to_last_rows(total.mid, added.mid)
        )

    def __call__(
        self,
        latents: Float[Array, "B h w C"],
        timesteps: Int[Array, " B"],
        conditioning: Conditioning,
    ) -> Float[Array, "B h w C"]:
        """Predicted noise (or velocity) of every row, f32 (release.md §2.4-5)."""
        residuals = self.residuals(latents, timesteps, conditioning)
        sample = self.denoiser(
            latents,
            timesteps,
            conditioning.caches,
            residuals=residuals,
            matching=conditioning.matching,
        ).sample
        assert sample is not None, "the denoiser has a head"
        return sample
