"""The KL autoencoder (diffusers `autoencoder_kl.py`, `vae.py`).

`pixels` are in [-1, 1]; `latents` are already multiplied by `scaling_factor` (0.18215).
"""

from collections import defaultdict
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from magiccolor_jax.nn.attention import Projections, attend
from magiccolor_jax.nn.remat import Remat, call
from magiccolor_jax.nn.resnet import ResnetBlock, group_norm
from magiccolor_jax.nn.spatial import Downsample, Upsample, conv3x3

EPSILON = 1e-6
LOG_VARIANCE_RANGE = (-30.0, 20.0)
TILE_OVERLAP = 0.25
"""Share of a tile that is blended into its neighbour (diffusers: tile_overlap_factor)."""


@dataclass(frozen=True, kw_only=True)
class VAEConfig:
    """Sizes of the autoencoder; defaults are Stable Diffusion 1.x's (83.7 M parameters)."""

    channels: tuple[int, ...] = (128, 256, 512, 512)
    """Width of each level (block_out_channels)."""
    layers: int = 2
    """Residual blocks per level of the encoder (layers_per_block); the decoder has one more."""
    latent_channels: int = 4
    """Channels of the latent."""
    picture_channels: int = 3
    """Channels of the picture."""
    groups: int = 32
    """Groups of every GroupNorm (norm_num_groups)."""
    scaling_factor: float = 0.18215
    """Latents are multiplied by it so that their deviation is about 1."""
    dtype: DTypeLike = jnp.float32
    """Compute dtype; norms, softmax and the outputs stay f32."""
    param_dtype: DTypeLike = jnp.float32
    """Storage dtype of the parameters."""
    remat: Remat = "off"
    """Recompute each residual block and attention in the backward pass."""

    def __post_init__(self):
        for width in self.channels:
            if width % self.groups:
                raise ValueError(
                    f"VAEConfig: every level's width must be divisible by groups {self.groups}, "
                    f"got {width}"
                )

    @classmethod
    def sd15(cls, **overrides) -> "VAEConfig":
        """sd-vae-ft-mse, and the autoencoder inside stable-diffusion-v1-5."""
        return cls(**overrides)

    @classmethod
    def nano(cls, **overrides) -> "VAEConfig":
        """Test-sized."""
        return cls(**({"channels": (8, 16, 16, 16), "layers": 1, "groups": 4} | overrides))

    @property
    def kinds(self) -> dict[str, Any]:
        """dtype arguments of every layer."""
        return {"dtype": self.dtype, "param_dtype": self.param_dtype}

    @property
    def reduction(self) -> int:
        """Pixels per latent along one axis."""
        return 2 ** (len(self.channels) - 1)


def _resnet(cfg: VAEConfig, inputs: int, outputs: int, rngs: nnx.Rngs) -> ResnetBlock:
    norm = {"groups": cfg.groups, "epsilon": EPSILON}
    return ResnetBlock(inputs, outputs, time=None, rngs=rngs, **norm, **cfg.kinds)


class Attention(Projections):
    """Single-head attention over the pixels with its own norm and residual."""

    def __init__(self, cfg: VAEConfig, *, rngs: nnx.Rngs):
        width = cfg.channels[-1]
        super().__init__(width, width, 1, bias=True, rngs=rngs, **cfg.kinds)
        self.group_norm = group_norm(width, cfg.groups, EPSILON, rngs=rngs, **cfg.kinds)

    def __call__(self, x: Float[Array, "B h w C"]) -> Float[Array, "B h w C"]:
        tokens = self.group_norm(x).reshape(x.shape[0], -1, x.shape[-1])  # [B L C]
        query = self.split(self.to_q(tokens))
        return self.merge(attend(query, *self.keys_values(tokens))).reshape(x.shape) + x


class MidBlock(nnx.Module):
    """Resnet, attention, resnet."""

    def __init__(self, cfg: VAEConfig, *, rngs: nnx.Rngs):
        width = cfg.channels[-1]
        self.remat: Remat = cfg.remat
        self.resnets = nnx.List([_resnet(cfg, width, width, rngs) for _ in range(2)])
        self.attentions = nnx.List([Attention(cfg, rngs=rngs)])

    def __call__(self, x: Float[Array, "B h w C"]) -> Float[Array, "B h w C"]:
        for block in (self.resnets[0], self.attentions[0], self.resnets[1]):
            x = call(block, self.remat, x)
        return x


class Level(nnx.Module):
    """Residual blocks of one resolution, then a change of it (none at the last level)."""

    def __init__(
        self, cfg: VAEConfig, inputs: int, outputs: int, *, up: bool, last: bool, rngs: nnx.Rngs
    ):
        layers = cfg.layers + up
        self.resnets = nnx.List(
            [_resnet(cfg, inputs if i == 0 else outputs, outputs, rngs) for i in range(layers)]
        )
        if up:
            change = [] if last else [Upsample(outputs, rngs=rngs, **cfg.kinds)]
            self.upsamplers = nnx.List(change)
        else:
            change = [] if last else [Downsample(outputs, padding="end", rngs=rngs, **cfg.kinds)]
            self.downsamplers = nnx.List(change)
        self.up = up
        self.remat: Remat = cfg.remat

    def __call__(self, x: Float[Array, "B h w C"]) -> Float[Array, "B h2 w2 D"]:
        for block in self.resnets:
            x = call(block, self.remat, x)
        for change in self.upsamplers if self.up else self.downsamplers:
            x = change(x)
        return x


class Encoder(nnx.Module):
    """Picture -> moments of the latent."""

    def __init__(self, cfg: VAEConfig, *, rngs: nnx.Rngs):
        widths, last = cfg.channels, len(cfg.channels) - 1
        self.conv_in = conv3x3(cfg.picture_channels, widths[0], rngs=rngs, **cfg.kinds)
        self.down_blocks = nnx.List(
            [
                Level(cfg, widths[max(i - 1, 0)], width, up=False, last=i == last, rngs=rngs)
                for i, width in enumerate(widths)
            ]
        )
        self.mid_block = MidBlock(cfg, rngs=rngs)
        self.conv_norm_out = group_norm(widths[-1], cfg.groups, EPSILON, rngs=rngs, **cfg.kinds)
        self.conv_out = conv3x3(widths[-1], 2 * cfg.latent_channels, rngs=rngs, **cfg.kinds)

    def levels(self, pixels: Float[Array, "B H W C"]) -> list[Float[Array, "B _ _ _"]]:
        """What each level makes; all but the last halve the resolution."""
        made = [self.conv_in(pixels)]
        for block in self.down_blocks:
            made.append(block(made[-1]))
        return made[1:]

    def __call__(self, pixels: Float[Array, "B H W C"]) -> Float[Array, "B h w M"]:
        x = self.levels(pixels)[-1]
        return self.conv_out(nnx.silu(self.conv_norm_out(self.mid_block(x))))


class Decoder(nnx.Module):
    """Latent -> picture."""

    def __init__(self, cfg: VAEConfig, *, rngs: nnx.Rngs):
        widths = cfg.channels[::-1]
        last = len(widths) - 1
        self.conv_in = conv3x3(cfg.latent_channels, widths[0], rngs=rngs, **cfg.kinds)
        self.mid_block = MidBlock(cfg, rngs=rngs)
        self.up_blocks = nnx.List(
            [
                Level(cfg, widths[max(i - 1, 0)], width, up=True, last=i == last, rngs=rngs)
                for i, width in enumerate(widths)
            ]
        )
        self.conv_norm_out = group_norm(widths[-1], cfg.groups, EPSILON, rngs=rngs, **cfg.kinds)
        self.conv_out = conv3x3(widths[-1], cfg.picture_channels, rngs=rngs, **cfg.kinds)

    def __call__(self, latents: Float[Array, "B h w C"]) -> Float[Array, "B H W D"]:
        x = self.mid_block(self.conv_in(latents))
        for block in self.up_blocks:
            x = block(x)
        return self.conv_out(nnx.silu(self.conv_norm_out(x)))


class Posterior(NamedTuple):
    """Diagonal Gaussian over latents (already scaled)."""

    mean: Float[Array, "B h w C"]
    std: Float[Array, "B h w C"]

    def sample(self, noise: Float[Array, "B h w C"]) -> Float[Array, "B h w C"]:
        """The latent at the given standard normal noise."""
        return self.mean + self.std * noise


class VAE(nnx.Module):
    """Autoencoder between pixels in [-1, 1] and scaled latents."""

    def __init__(self, cfg: VAEConfig, *, rngs: nnx.Rngs):
        self.cfg = cfg
        moments = 2 * cfg.latent_channels
        self.encoder = Encoder(cfg, rngs=rngs)
        self.decoder = Decoder(cfg, rngs=rngs)
        self.quant_conv = nnx.Conv(moments, moments, (1, 1), rngs=rngs, **cfg.kinds)
        self.post_quant_conv = nnx.Conv(
            cfg.latent_channels, cfg.latent_channels, (1, 1), rngs=rngs, **cfg.kinds
        )

    def features(self, pixels: Float[Array, "B H W C"]) -> tuple[Float[Array, "B _ _ _"], ...]:
        """The encoder's levels, to compare pictures by; pixels in [-1, 1]."""
        return tuple(self.encoder.levels(pixels))

    def encode(self, pixels: Float[Array, "B H W C"]) -> Posterior:
        """Posterior over the latents of pictures whose sides are multiples of `cfg.reduction`.

        Raises:
            ValueError: a side is no such multiple.
        """
        step = self.cfg.reduction
        if pixels.shape[1] % step or pixels.shape[2] % step:
            raise ValueError(
                f"picture sides must be multiples of {step} px, got "
                f"{pixels.shape[1]}x{pixels.shape[2]}: pad or resize the picture"
            )
        moments = self.quant_conv(self.encoder(pixels)).astype(jnp.float32)
        mean, log_variance = jnp.split(moments, 2, axis=-1)
        std = jnp.exp(0.5 * jnp.clip(log_variance, *LOG_VARIANCE_RANGE))
        return Posterior(mean * self.cfg.scaling_factor, std * self.cfg.scaling_factor)

    def decode(
        self, latents: Float[Array, "B h w C"], *, tile: int | None = None
    ) -> Float[Array, "B H W D"]:
        """Pictures, about [-1, 1] and not clipped.

        Args:
            tile: side of a tile in latents; larger latents are decoded tile by tile and blended
                (bounded memory on large pages), like diffusers' tiled decoding.
        """
        unscaled = latents / self.cfg.scaling_factor
        if tile is None or max(latents.shape[1:3]) <= tile:
            return self._decode(unscaled)
        return self._decode_tiled(unscaled, tile)

    def _decode(self, unscaled: Array) -> Array:
        return self.decoder(self.post_quant_conv(unscaled)).astype(jnp.float32)

    def _decode_tiled(self, unscaled: Array, tile: int) -> Array:
        """Each tile blends into the one above and the one to the left."""
        overlap = int(tile * TILE_OVERLAP)
        stride = tile - overlap
        tops = range(0, unscaled.shape[1], stride)
        lefts = range(0, unscaled.shape[2], stride)
        pictures = self._decode_tiles(unscaled, tile, [(y, x) for y in tops for x in lefts])
        blend, kept = overlap * self.cfg.reduction, stride * self.cfg.reduction
        rows = []
        for y in tops:
            for x in lefts:
                if y:
                    above = pictures[y - stride, x]
                    pictures[y, x] = _blend(above, pictures[y, x], blend, axis=1)
                if x:
                    beside = pictures[y, x - stride]
                    pictures[y, x] = _blend(beside, pictures[y, x], blend, axis=2)
            row = [pictures[y, x][:, :kept, :kept] for x in lefts]
            rows.append(jnp.concatenate(row, axis=2))
        return jnp.concatenate(rows, axis=1)

    def _decode_tiles(
        self, unscaled: Array, tile: int, corners: list[tuple[int, int]]
    ) -> dict[tuple[int, int], Array]:
        """Tile at each corner, decoded one at a time; one compiled body per tile shape."""
        groups = defaultdict(list)
        for y, x in corners:
            piece = unscaled[:, y : y + tile, x : x + tile]
            groups[piece.shape].append(((y, x), piece))
        pictures = {}
        for group in groups.values():
            decoded = lax.map(self._decode, jnp.stack([piece for _, piece in group]))
            pictures |= {corner: decoded[i] for i, (corner, _) in enumerate(group)}
        return pictures


def _blend(before: Array, after: Array, extent: int, axis: int) -> Array:
    """`after` with its first `extent` pixels along `axis` faded in from the last of `before`."""
    extent = min(before.shape[axis], after.shape[axis], extent)
    shape = [1] * after.ndim
    shape[axis] = extent
    weight = (jnp.arange(extent) / extent).reshape(shape)
    head = lax.slice_in_dim(after, 0, extent, axis=axis)
    tail = lax.slice_in_dim(before, before.shape[axis] - extent, before.shape[axis], axis=axis)
    rest = lax.slice_in_dim(after, extent, after.shape[axis], axis=axis)
    return jax.numpy.concatenate([tail * (1 - weight) + head * weight, rest], axis=axis)
