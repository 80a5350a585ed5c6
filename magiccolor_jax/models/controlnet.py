"""The guiders: diffusers' ControlNetModel with MagicColor's `dino_adapter` (release.md §1, §4).

The hint (sketch or guidance map) does not change over steps, so its embedding is a method of its
own and the evaluation takes the embedded hint.
"""

from dataclasses import dataclass

from flax import nnx
from jaxtyping import Array, Float, Int

from magiccolor_jax.models.blocks import BlocksConfig, DownBlock, MidBlock, project_all
from magiccolor_jax.models.unet import check_divisible
from magiccolor_jax.nn.embeddings import TimestepEmbedding
from magiccolor_jax.nn.spatial import conv3x3
from magiccolor_jax.nn.transformer import Transformer2D
from magiccolor_jax.types import BlockCache, Residuals


@dataclass(frozen=True, kw_only=True)
class ControlNetConfig(BlocksConfig):
    """Sizes of a guider; defaults are control_v11p_sd15's (361.3 M parameters)."""

    conditioning_channels: int = 3
    """Channels of the hint: 3 for a sketch, DINOv2's width for the guidance map."""
    embedding_channels: tuple[int, ...] = (16, 32, 96, 256)
    """Widths of the hint embedding (conditioning_embedding_out_channels); three stride-2 steps."""
    adapter: bool = False
    """Linear + ReLU on the DINOv2 tokens before they are placed (the instance guider)."""

    @classmethod
    def sketch(cls, **overrides) -> "ControlNetConfig":
        """controlnet_sketch, control_v11p_sd15s2_lineart_anime."""
        return cls(**overrides)

    @classmethod
    def multi(cls, **overrides) -> "ControlNetConfig":
        """controlnet_multi: the guidance map of DINOv2 ViT-L features."""
        return cls(**({"conditioning_channels": 1024, "adapter": True} | overrides))

    @classmethod
    def nano(cls, **overrides) -> "ControlNetConfig":
        """Test-sized, fits UNetConfig.nano()."""
        sizes = {
            "channels": (16, 32, 32, 32),
            "heads": 4,
            "context": 24,
            "groups": 8,
            "embedding_channels": (4, 8, 12, 16),
        }
        return cls(**(sizes | overrides))


class HintEmbedding(nnx.Module):
    """Picture [B H W C] -> [B h w channels[0]] at an eighth of the resolution."""

    def __init__(self, cfg: ControlNetConfig, *, rngs: nnx.Rngs):
        widths = cfg.embedding_channels
        kinds = {"rngs": rngs, **cfg.kinds}
        self.conv_in = conv3x3(cfg.conditioning_channels, widths[0], **kinds)
        pairs = zip(widths[:-1], widths[1:], strict=True)
        self.blocks = nnx.List(
            [
                conv
                for a, b in pairs
                for conv in (conv3x3(a, a, **kinds), conv3x3(a, b, stride=2, **kinds))
            ]
        )
        self.conv_out = conv3x3(widths[-1], cfg.channels[0], **kinds)

    def refine(self, x: Float[Array, "B H W E"]) -> Float[Array, "B h w C"]:
        """Everything after `conv_in`, whose output the guidance projection makes directly."""
        x = nnx.silu(x)
        for block in self.blocks:
            x = nnx.silu(block(x))
        return self.conv_out(x)

    def __call__(self, picture: Float[Array, "B H W F"]) -> Float[Array, "B h w C"]:
        return self.refine(self.conv_in(picture))


class ControlNet(nnx.Module):
    """Residuals for the denoiser's skips and middle from one spatial condition."""

    def __init__(self, cfg: ControlNetConfig, *, rngs: nnx.Rngs):
        self.cfg = cfg
        kinds = {"rngs": rngs, **cfg.kinds}
        self.conv_in = conv3x3(cfg.in_channels, cfg.channels[0], **kinds)
        self.time_embedding = TimestepEmbedding(cfg.channels[0], cfg.time, **kinds)
        self.controlnet_cond_embedding = HintEmbedding(cfg, rngs=rngs)
        if cfg.adapter:
            width = cfg.conditioning_channels
            self.dino_adapter = nnx.List([nnx.Linear(width, width, **kinds)])
        self.down_blocks = nnx.List(
            [DownBlock(cfg, level, rngs=rngs) for level in range(len(cfg.channels))]
        )
        self.mid_block = MidBlock(cfg, rngs=rngs)
        self.controlnet_down_blocks = nnx.List(
            [nnx.Conv(width, width, (1, 1), **kinds) for width in self._skip_widths()]
        )
        last = cfg.channels[-1]
        self.controlnet_mid_block = nnx.Conv(last, last, (1, 1), **kinds)

    def _skip_widths(self) -> list[int]:
        """Channels of the skips: conv_in, then each level's layers and downsampler."""
        levels = self.cfg.channels
        skips = [self.cfg.layers + 1] * (len(levels) - 1) + [self.cfg.layers]
        return [levels[0]] + [w for w, n in zip(levels, skips, strict=True) for _ in range(n)]

    @property
    def transformers(self) -> list[Transformer2D]:
        """In order of execution: 7 in SD1.5."""
        blocks = [*self.down_blocks, self.mid_block]
        return [transformer for block in blocks for transformer in block.attentions]

    def adapt(self, tokens: Float[Array, "*n C"]) -> Float[Array, "*n C"]:
        """DINOv2 tokens -> what is placed on the guidance map (release.md §4)."""
        return nnx.relu(self.dino_adapter[0](tokens))

    def embed(self, hint: Float[Array, "B H W F"]) -> Float[Array, "B h w C"]:
        """The hint at the latent's resolution, once for all steps."""
        return self.controlnet_cond_embedding(hint)

    def project(
        self, context: Float[Array, "B S E"], mask: Array | None = None
    ) -> tuple[BlockCache, ...]:
        """Keys and values of the context, once for all steps."""
        return project_all(self.transformers, context, mask)

    def __call__(
        self,
        latents: Float[Array, "B h w F"],
        timesteps: Int[Array, " B"],
        hint: Float[Array, "B h w C"],
        caches: tuple[BlockCache, ...],
    ) -> Residuals:
        """One evaluation; `hint` comes from `embed`, `caches` from `project`.

        Raises:
            ValueError: h or w is no multiple of `cfg.reduction`.
        """
        check_divisible(latents.shape, self.cfg.reduction)
        queue = iter(caches)
        time = self.time_embedding(timesteps)
        x = self.conv_in(latents) + hint.astype(self.cfg.dtype)
        skips = [x]
        for block in self.down_blocks:
            x, made, _ = block(x, time, queue)
            skips += made
        x, _ = self.mid_block(x, time, queue)
        pairs = zip(self.controlnet_down_blocks, skips, strict=True)
        return Residuals(tuple(conv(skip) for conv, skip in pairs), self.controlnet_mid_block(x))
