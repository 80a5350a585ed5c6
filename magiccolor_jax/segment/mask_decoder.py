"""SAM's mask decoder: prompts and picture look at each other, then masks and their quality."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from magiccolor_jax.nn.attention import attend
from magiccolor_jax.segment.image_encoder import map_norm
from magiccolor_jax.segment.sam_config import FINAL_EPS, SAMConfig

MASKS = 4
"""The first answers a prompt that is not ambiguous, the others are whole, part and subpart."""


class Masks(NamedTuple):
    """What a prompt shows."""

    logits: Float[Array, "N M m m"]
    """Above 0 inside."""
    quality: Float[Array, "N M"]
    """The decoder's guess of each mask's intersection over union."""


class Attention(nnx.Module):
    """Attention in fewer channels than its inputs have."""

    def __init__(self, cfg: SAMConfig, reduction: int, *, rngs: nnx.Rngs):
        inside, self.heads = cfg.channels // reduction, cfg.decoder_heads
        kinds = {"rngs": rngs, **cfg.kinds}
        self.q_proj, self.k_proj, self.v_proj = (
            nnx.Linear(cfg.channels, inside, **kinds) for _ in range(3)
        )
        self.out_proj = nnx.Linear(inside, cfg.channels, **kinds)

    def __call__(
        self, query: Float[Array, "N L C"], key: Float[Array, "N S C"], value: Float[Array, "N S C"]
    ) -> Float[Array, "N L C"]:
        def split(x):
            return x.reshape(*x.shape[:2], self.heads, -1)

        mixed = attend(
            split(self.q_proj(query)), split(self.k_proj(key)), split(self.v_proj(value))
        )
        return self.out_proj(mixed.reshape(*mixed.shape[:2], -1))


def norm(cfg: SAMConfig, epsilon: float, *, rngs: nnx.Rngs) -> nnx.LayerNorm:
    """LayerNorm of the decoder's tokens."""
    return nnx.LayerNorm(
        cfg.channels, epsilon=epsilon, use_fast_variance=False, rngs=rngs, **cfg.kinds
    )


class TwoWayMLP(nnx.Module):
    """Linear, ReLU, Linear."""

    def __init__(self, cfg: SAMConfig, *, rngs: nnx.Rngs):
        self.lin1 = nnx.Linear(cfg.channels, cfg.decoder_width, rngs=rngs, **cfg.kinds)
        self.lin2 = nnx.Linear(cfg.decoder_width, cfg.channels, rngs=rngs, **cfg.kinds)

    def __call__(self, x: Float[Array, "N L C"]) -> Float[Array, "N L C"]:
        return self.lin2(nnx.relu(self.lin1(x)))


class TwoWayBlock(nnx.Module):
    """Tokens look at themselves and at the picture, then the picture at the tokens."""

    def __init__(self, cfg: SAMConfig, first: bool, *, rngs: nnx.Rngs):
        self.first = first
        self.self_attn = Attention(cfg, 1, rngs=rngs)
        self.norm1 = norm(cfg, cfg.decoder_eps, rngs=rngs)
        self.cross_attn_token_to_image = Attention(cfg, 2, rngs=rngs)
        self.norm2 = norm(cfg, cfg.decoder_eps, rngs=rngs)
        self.mlp = TwoWayMLP(cfg, rngs=rngs)
        self.norm3 = norm(cfg, cfg.decoder_eps, rngs=rngs)
        self.norm4 = norm(cfg, cfg.decoder_eps, rngs=rngs)
        self.cross_attn_image_to_token = Attention(cfg, 2, rngs=rngs)

    def __call__(
        self,
        tokens: Float[Array, "N L C"],
        picture: Float[Array, "N S C"],
        places: Float[Array, "N L C"],
        positions: Float[Array, "1 S C"],
    ) -> tuple[Float[Array, "N L C"], Float[Array, "N S C"]]:
        """The block.

        Args:
            places: added to the tokens wherever they are queries or keys: the prompts themselves.
            positions: the same of the picture.
        """
        if self.first:
            tokens = self.self_attn(tokens, tokens, tokens)
        else:
            placed = tokens + places
            tokens = tokens + self.self_attn(placed, placed, tokens)
        tokens = self.norm1(tokens)
        looked = self.cross_attn_token_to_image(tokens + places, picture + positions, picture)
        tokens = self.norm2(tokens + looked)
        tokens = self.norm3(tokens + self.mlp(tokens))
        looked = self.cross_attn_image_to_token(picture + positions, tokens + places, tokens)
        return tokens, self.norm4(picture + looked)


class TwoWayTransformer(nnx.Module):
    """Blocks, and a last look of the tokens at the picture."""

    def __init__(self, cfg: SAMConfig, *, rngs: nnx.Rngs):
        self.layers = nnx.List(
            [TwoWayBlock(cfg, index == 0, rngs=rngs) for index in range(cfg.decoder_depth)]
        )
        self.final_attn_token_to_image = Attention(cfg, 2, rngs=rngs)
        self.norm_final_attn = norm(cfg, FINAL_EPS, rngs=rngs)

    def __call__(
        self,
        tokens: Float[Array, "N L C"],
        picture: Float[Array, "N S C"],
        positions: Float[Array, "1 S C"],
    ) -> tuple[Float[Array, "N L C"], Float[Array, "N S C"]]:
        places = tokens
        for layer in self.layers:
            tokens, picture = layer(tokens, picture, places, positions)
        looked = self.final_attn_token_to_image(tokens + places, picture + positions, picture)
        return self.norm_final_attn(tokens + looked), picture


class MLP(nnx.Module):
    """Three linear layers with ReLUs between them."""

    def __init__(self, width: int, outputs: int, cfg: SAMConfig, *, rngs: nnx.Rngs):
        sizes = ((width, width), (width, width), (width, outputs))
        self.layers = nnx.List([nnx.Linear(*size, rngs=rngs, **cfg.kinds) for size in sizes])

    def __call__(self, x: Float[Array, "N C"]) -> Float[Array, "N D"]:
        for layer in self.layers[:-1]:
            x = nnx.relu(layer(x))
        return self.layers[-1](x)


class Doubling(nnx.Module):
    """PyTorch's ConvTranspose2d of window and stride 2."""

    def __init__(self, inputs: int, outputs: int, cfg: SAMConfig, *, rngs: nnx.Rngs):
        self.dtype = cfg.dtype
        # PyTorch's [inputs outputs 2 2], turned as any kernel is.
        shape = (2, 2, outputs, inputs)
        self.kernel = nnx.Param(
            nnx.initializers.lecun_normal()(rngs.params(), shape, cfg.param_dtype)
        )
        self.bias = nnx.Param(jnp.zeros(outputs, cfg.param_dtype))

    def __call__(self, x: Float[Array, "N h w I"]) -> Float[Array, "N H W O"]:
        kernel, bias = (p[...].astype(self.dtype) for p in (self.kernel, self.bias))
        made = jnp.einsum("nhwc,ijoc->nhiwjo", x.astype(self.dtype), kernel) + bias
        count, height, _, width, _, channels = made.shape
        return made.reshape(count, 2 * height, 2 * width, channels)


class MaskDecoder(nnx.Module):
    """Embedded picture and prompts -> masks."""

    def __init__(self, cfg: SAMConfig, *, rngs: nnx.Rngs):
        width = cfg.channels
        self.transformer = TwoWayTransformer(cfg, rngs=rngs)
        self.iou_token = nnx.Embed(1, width, rngs=rngs, **cfg.kinds)
        self.mask_tokens = nnx.Embed(MASKS, width, rngs=rngs, **cfg.kinds)
        self.output_upscaling = nnx.Dict(
            {
                "0": Doubling(width, width // 4, cfg, rngs=rngs),
                "1": map_norm(width // 4, cfg, rngs=rngs),
                "3": Doubling(width // 4, width // 8, cfg, rngs=rngs),
            }
        )
        self.output_hypernetworks_mlps = nnx.List(
            [MLP(width, width // 8, cfg, rngs=rngs) for _ in range(MASKS)]
        )
        self.iou_prediction_head = MLP(width, MASKS, cfg, rngs=rngs)

    def __call__(
        self,
        picture: Float[Array, "g g C"],
        positions: Float[Array, "g g C"],
        tokens: Float[Array, "N P C"],
        dense: Float[Array, "N g g C"],
    ) -> Masks:
        """All four masks of every prompt, `mask_size` pixels wide.

        Args:
            picture: from the image encoder.
            positions, tokens, dense: from the prompt encoder.
        """
        count, grid = tokens.shape[0], picture.shape[0]
        own = jnp.concatenate([self.iou_token.embedding[...], self.mask_tokens.embedding[...]])
        own = jnp.broadcast_to(own.astype(tokens.dtype), (count, *own.shape))
        seen = (picture + dense).reshape(count, grid * grid, -1)
        found, seen = self.transformer(
            jnp.concatenate([own, tokens], axis=1), seen, positions.reshape(1, grid * grid, -1)
        )
        up = self.output_upscaling
        x = up["0"](seen.reshape(count, grid, grid, -1))
        x = jax.nn.gelu(up["1"](x), approximate=False)
        x = jax.nn.gelu(up["3"](x), approximate=False)
        weights = jnp.stack(
            [mlp(found[:, 1 + i]) for i, mlp in enumerate(self.output_hypernetworks_mlps)], axis=1
        )
        logits = jnp.einsum("nmc,nhwc->nmhw", weights, x, preferred_element_type=jnp.float32)
        quality = self.iou_prediction_head(found[:, 0]).astype(jnp.float32)
        return Masks(logits, quality)
