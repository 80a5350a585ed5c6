"""DINOv2 (arXiv:2304.07193), with registers (arXiv:2309.16588) or without, under its hub names.

Facts: facebookresearch/dinov2 `models/vision_transformer.py`, `hub/backbones.py`.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from magiccolor_jax.encoders.dinov2_config import LAYER_NORM_EPS, DINOv2Config
from magiccolor_jax.nn.attention import attend
from magiccolor_jax.nn.remat import call


class DINOv2Features(NamedTuple):
    """Tokens after the final norm; registers are dropped."""

    cls: Float[Array, "B C"]
    patches: Float[Array, "B gh gw C"]
    """One token per patch, on a grid of gh rows and gw columns."""


def _cubic(x: np.ndarray, a: float) -> np.ndarray:
    """Keys' cubic convolution kernel, zero from |x| = 2 on."""
    x = np.abs(x)
    near = ((a + 2) * x - (a + 3)) * x**2 + 1
    far = (((x - 5) * x + 8) * x - 4) * a
    return np.where(x < 1, near, np.where(x < 2, far, 0.0))


def bicubic_matrix(
    source: int, target: int, *, scale: float, antialias: bool
) -> Float[np.ndarray, "target source"]:
    """PyTorch's bicubic resize of one axis (align_corners=False) as a float64 matrix.

    Args:
        scale: source pixels per target pixel, as the kernel uses it. It is `source / target` when
            PyTorch is given a size, and 1 / scale_factor when it is given a factor.
        antialias: widen the kernel when shrinking. PyTorch then takes a = -0.5 and leaves out what
            lies beyond the border; without, a = -0.75 and the border is repeated.
    """
    centres = (np.arange(target)[:, None] + 0.5) * scale - 0.5  # [target 1]
    if antialias:
        weights = _cubic((np.arange(source) - centres) / max(scale, 1.0), a=-0.5)
        return weights / weights.sum(axis=1, keepdims=True)
    taps = np.arange(-2, source + 2)
    to_border = np.eye(source)[np.clip(taps, 0, source - 1)]
    return _cubic(taps - centres, a=-0.75) @ to_border


def position_matrix(grid: int, target: int, registers: int) -> Float[np.ndarray, "target grid"]:
    """One axis of the hub model's interpolation of its position table (`hub/backbones.py`).

    Models with registers resize to a size, antialiased. Those without pass a scale factor that is
    0.1 patches too large, and PyTorch samples at that factor.
    """
    if registers:
        return bicubic_matrix(grid, target, scale=grid / target, antialias=True)
    # differs: transformers' Dinov2Model passes the size instead; the hub came first.
    return bicubic_matrix(grid, target, scale=grid / (target + 0.1), antialias=False)


class PatchEmbed(nnx.Module):
    """Pixels -> one token per patch."""

    def __init__(self, cfg: DINOv2Config, *, rngs: nnx.Rngs):
        patch = (cfg.patch_size, cfg.patch_size)
        self.proj = nnx.Conv(
            3, cfg.hidden_size, patch, strides=patch, padding="VALID", rngs=rngs, **cfg.kinds
        )

    def __call__(self, pixels: Float[Array, "B H W 3"]) -> Float[Array, "B gh gw C"]:
        return self.proj(pixels)


class Attention(nnx.Module):
    """Multi-head self-attention with one map for q, k and v."""

    def __init__(self, cfg: DINOv2Config, *, rngs: nnx.Rngs):
        self.heads = cfg.num_attention_heads
        self.qkv = nnx.Linear(cfg.hidden_size, 3 * cfg.hidden_size, rngs=rngs, **cfg.kinds)
        self.proj = nnx.Linear(cfg.hidden_size, cfg.hidden_size, rngs=rngs, **cfg.kinds)

    def __call__(self, x: Float[Array, "B L C"]) -> Float[Array, "B L C"]:
        qkv = self.qkv(x).reshape(*x.shape[:2], 3, self.heads, -1)  # [B L 3 N D]
        query, key, value = (qkv[:, :, i] for i in range(3))
        return self.proj(attend(query, key, value).reshape(x.shape))


class LayerScale(nnx.Module):
    """A learned factor per channel."""

    def __init__(self, cfg: DINOv2Config):
        self.dtype = cfg.dtype
        self.gamma = nnx.Param(jnp.ones((cfg.hidden_size,), cfg.param_dtype))

    def __call__(self, x: Float[Array, "B L C"]) -> Float[Array, "B L C"]:
        return x * self.gamma[...].astype(self.dtype)


class MLP(nnx.Module):
    """Linear, exact GELU, Linear."""

    def __init__(self, cfg: DINOv2Config, *, rngs: nnx.Rngs):
        self.fc1 = nnx.Linear(cfg.hidden_size, cfg.mlp_width, rngs=rngs, **cfg.kinds)
        self.fc2 = nnx.Linear(cfg.mlp_width, cfg.hidden_size, rngs=rngs, **cfg.kinds)

    def __call__(self, x: Float[Array, "B L C"]) -> Float[Array, "B L C"]:
        return self.fc2(jax.nn.gelu(self.fc1(x), approximate=False))


class SwiGLU(nnx.Module):
    """Gate and value in one map, SiLU on the gate."""

    def __init__(self, cfg: DINOv2Config, *, rngs: nnx.Rngs):
        self.w12 = nnx.Linear(cfg.hidden_size, 2 * cfg.mlp_width, rngs=rngs, **cfg.kinds)
        self.w3 = nnx.Linear(cfg.mlp_width, cfg.hidden_size, rngs=rngs, **cfg.kinds)

    def __call__(self, x: Float[Array, "B L C"]) -> Float[Array, "B L C"]:
        gate, value = jnp.split(self.w12(x), 2, axis=-1)
        return self.w3(jax.nn.silu(gate) * value)


def layer_norm(cfg: DINOv2Config, *, rngs: nnx.Rngs) -> nnx.LayerNorm:
    """LayerNorm over the channels; two-pass statistics in f32."""
    return nnx.LayerNorm(
        cfg.hidden_size, epsilon=LAYER_NORM_EPS, use_fast_variance=False, rngs=rngs, **cfg.kinds
    )


class Block(nnx.Module):
    """Pre-norm transformer block with scaled residuals."""

    def __init__(self, cfg: DINOv2Config, *, rngs: nnx.Rngs):
        self.norm1 = layer_norm(cfg, rngs=rngs)
        self.attn = Attention(cfg, rngs=rngs)
        self.ls1 = LayerScale(cfg)
        self.norm2 = layer_norm(cfg, rngs=rngs)
        self.mlp = SwiGLU(cfg, rngs=rngs) if cfg.use_swiglu_ffn else MLP(cfg, rngs=rngs)
        self.ls2 = LayerScale(cfg)

    def __call__(self, x: Float[Array, "B L C"]) -> Float[Array, "B L C"]:
        x = x + self.ls1(self.attn(self.norm1(x)))
        return x + self.ls2(self.mlp(self.norm2(x)))


class DINOv2(nnx.Module):
    """Picture -> one global and one token per patch."""

    def __init__(self, cfg: DINOv2Config, *, rngs: nnx.Rngs):
        self.cfg = cfg

        def tokens(count):
            shape = (1, count, cfg.hidden_size)
            return nnx.Param(nnx.initializers.normal(0.02)(rngs.params(), shape, cfg.param_dtype))

        self.cls_token = tokens(1)
        self.pos_embed = tokens(cfg.grid**2 + 1)
        self.register_tokens = tokens(cfg.num_register_tokens) if cfg.num_register_tokens else None
        self.patch_embed = PatchEmbed(cfg, rngs=rngs)
        self.blocks = nnx.List([Block(cfg, rngs=rngs) for _ in range(cfg.num_hidden_layers)])
        self.norm = layer_norm(cfg, rngs=rngs)

    def __call__(self, pixels: Float[Array, "B H W 3"]) -> DINOv2Features:
        """Features of ImageNet-normalised pixels whose sides are multiples of the patch.

        Raises:
            ValueError: a side is not such a multiple.
        """
        height, width = pixels.shape[1:3]
        if height % self.cfg.patch_size or width % self.cfg.patch_size or not height * width:
            raise ValueError(
                f"DINOv2: height and width must be multiples of {self.cfg.patch_size}, "
                f"got {height} x {width}; resize the picture"
            )
        patches = self.patch_embed(pixels)  # [B gh gw C]
        grid = patches.shape
        x = self.norm(self._run(patches))
        return DINOv2Features(cls=x[:, 0], patches=x[:, -grid[1] * grid[2] :].reshape(grid))

    def _run(self, patches: Float[Array, "B gh gw C"]) -> Float[Array, "B L C"]:
        """All blocks on [cls, registers, patches]; registers have no position."""
        batch, rows, columns, channels = patches.shape
        cls_position, positions = self._positions(rows, columns)
        first = [self.cls_token[...] + cls_position]
        if self.register_tokens is not None:
            first.append(self.register_tokens[...])
        first = jnp.concatenate(first, axis=1).astype(patches.dtype)  # [1 1+R C]
        first = jnp.broadcast_to(first, (batch, *first.shape[1:]))
        patches = (patches + positions.astype(patches.dtype)).reshape(batch, -1, channels)
        x = jnp.concatenate([first, patches], axis=1)
        for block in self.blocks:
            x = call(block, self.cfg.remat, x)
        return x

    def _positions(
        self, rows: int, columns: int
    ) -> tuple[Float[Array, "1 1 C"], Float[Array, "1 gh gw C"]]:
        """The position of cls and those of a rows x columns grid, interpolated in f32."""
        grid = self.cfg.grid
        table = jnp.asarray(self.pos_embed[...], jnp.float32)
        square = table[:, 1:].reshape(1, grid, grid, -1)
        if (rows, columns) != (grid, grid):  # the hub model leaves its native size alone
            down, across = (
                position_matrix(grid, side, self.cfg.num_register_tokens).astype(np.float32)
                for side in (rows, columns)
            )
            exact = jax.lax.Precision.HIGHEST
            square = jnp.einsum("ri,cj,bijd->brcd", down, across, square, precision=exact)
        return table[:, :1], square
