"""CLIP's two towers (arXiv:2103.00020), under the names of transformers' `modeling_clip.py`.

The vision tower gives the denoiser's cross-attention token, the text tower its unconditional
counterpart (release.md §2.3).
"""

from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from magiccolor_jax.encoders.clip_config import CLIPTextConfig, CLIPTowerConfig, CLIPVisionConfig
from magiccolor_jax.nn.attention import attend
from magiccolor_jax.nn.remat import Remat, call

ACTIVATIONS = {
    "quick_gelu": lambda x: x * jax.nn.sigmoid(1.702 * x),
    "gelu": partial(jax.nn.gelu, approximate=False),
}


def layer_norm(cfg: CLIPTowerConfig, *, rngs: nnx.Rngs) -> nnx.LayerNorm:
    """LayerNorm over the channels; two-pass statistics in f32."""
    return nnx.LayerNorm(
        cfg.hidden_size,
        epsilon=cfg.layer_norm_eps,
        use_fast_variance=False,
        rngs=rngs,
        **cfg.kinds,
    )


class CLIPAttention(nnx.Module):
    """Multi-head self-attention, all four maps with bias."""

    def __init__(self, cfg: CLIPTowerConfig, *, rngs: nnx.Rngs):
        self.heads = cfg.num_attention_heads
        width = cfg.hidden_size
        self.q_proj = nnx.Linear(width, width, rngs=rngs, **cfg.kinds)
        self.k_proj = nnx.Linear(width, width, rngs=rngs, **cfg.kinds)
        self.v_proj = nnx.Linear(width, width, rngs=rngs, **cfg.kinds)
        self.out_proj = nnx.Linear(width, width, rngs=rngs, **cfg.kinds)

    def __call__(self, x: Float[Array, "B L C"], *, causal: bool) -> Float[Array, "B L C"]:
        heads = (*x.shape[:2], self.heads, -1)
        query, key, value = (
            project(x).reshape(heads) for project in (self.q_proj, self.k_proj, self.v_proj)
        )  # [B L N D]
        return self.out_proj(attend(query, key, value, causal=causal).reshape(x.shape))


class CLIPMLP(nnx.Module):
    """Linear, activation, Linear."""

    def __init__(self, cfg: CLIPTowerConfig, *, rngs: nnx.Rngs):
        self.activation = cfg.hidden_act
        self.fc1 = nnx.Linear(cfg.hidden_size, cfg.intermediate_size, rngs=rngs, **cfg.kinds)
        self.fc2 = nnx.Linear(cfg.intermediate_size, cfg.hidden_size, rngs=rngs, **cfg.kinds)

    def __call__(self, x: Float[Array, "B L C"]) -> Float[Array, "B L C"]:
        return self.fc2(ACTIVATIONS[self.activation](self.fc1(x)))


class CLIPLayer(nnx.Module):
    """Pre-norm transformer layer."""

    def __init__(self, cfg: CLIPTowerConfig, *, rngs: nnx.Rngs):
        self.layer_norm1 = layer_norm(cfg, rngs=rngs)
        self.self_attn = CLIPAttention(cfg, rngs=rngs)
        self.layer_norm2 = layer_norm(cfg, rngs=rngs)
        self.mlp = CLIPMLP(cfg, rngs=rngs)

    def __call__(self, x: Float[Array, "B L C"], *, causal: bool) -> Float[Array, "B L C"]:
        x = x + self.self_attn(self.layer_norm1(x), causal=causal)
        return x + self.mlp(self.layer_norm2(x))


class CLIPEncoder(nnx.Module):
    """The stack of layers, without a norm of its own."""

    def __init__(self, cfg: CLIPTowerConfig, *, rngs: nnx.Rngs):
        self.remat: Remat = cfg.remat
        self.layers = nnx.List([CLIPLayer(cfg, rngs=rngs) for _ in range(cfg.num_hidden_layers)])

    def __call__(self, x: Float[Array, "B L C"], *, causal: bool = False) -> Float[Array, "B L C"]:
        for layer in self.layers:
            x = call(partial(layer, causal=causal), self.remat, x)
        return x


class CLIPVisionEmbeddings(nnx.Module):
    """Pixels -> class token and patch tokens with their positions."""

    def __init__(self, cfg: CLIPVisionConfig, *, rngs: nnx.Rngs):
        self.side = cfg.image_size
        patch = (cfg.patch_size, cfg.patch_size)
        tokens = (cfg.image_size // cfg.patch_size) ** 2 + 1
        normal = nnx.initializers.normal(0.02)
        self.class_embedding = nnx.Param(normal(rngs.params(), (cfg.hidden_size,), cfg.param_dtype))
        self.patch_embedding = nnx.Conv(
            3,
            cfg.hidden_size,
            patch,
            strides=patch,
            padding="VALID",
            use_bias=False,
            rngs=rngs,
            **cfg.kinds,
        )
        self.position_embedding = nnx.Embed(tokens, cfg.hidden_size, rngs=rngs, **cfg.kinds)

    def __call__(self, pixels: Float[Array, "B H W 3"]) -> Float[Array, "B L C"]:
        if pixels.shape[1:3] != (self.side, self.side):
            raise ValueError(
                f"CLIPVision: pixels must be [B {self.side} {self.side} 3], got {pixels.shape}"
            )
        patches = self.patch_embedding(pixels)  # [B gh gw C]
        patches = patches.reshape(patches.shape[0], -1, patches.shape[-1])
        first = jnp.broadcast_to(self.class_embedding[...], (len(patches), 1, patches.shape[-1]))
        tokens = jnp.concatenate([first.astype(patches.dtype), patches], axis=1)
        return tokens + self.position_embedding(jnp.arange(tokens.shape[1]))


class CLIPVisionTransformer(nnx.Module):
    """Everything under `vision_model`."""

    def __init__(self, cfg: CLIPVisionConfig, *, rngs: nnx.Rngs):
        self.embeddings = CLIPVisionEmbeddings(cfg, rngs=rngs)
        self.pre_layrnorm = layer_norm(cfg, rngs=rngs)  # spelt as in the checkpoints
        self.encoder = CLIPEncoder(cfg, rngs=rngs)
        self.post_layernorm = layer_norm(cfg, rngs=rngs)

    def __call__(self, pixels: Float[Array, "B H W 3"]) -> Float[Array, "B C"]:
        tokens = self.encoder(self.pre_layrnorm(self.embeddings(pixels)))
        return self.post_layernorm(tokens[:, 0])


class CLIPVision(nnx.Module):
    """Picture -> `image_embeds` (transformers' CLIPVisionModelWithProjection)."""

    def __init__(self, cfg: CLIPVisionConfig, *, rngs: nnx.Rngs):
        self.cfg = cfg
        self.vision_model = CLIPVisionTransformer(cfg, rngs=rngs)
        self.visual_projection = nnx.Linear(
            cfg.hidden_size, cfg.projection_dim, use_bias=False, rngs=rngs, **cfg.kinds
        )

    def __call__(self, pixels: Float[Array, "B H W 3"]) -> Float[Array, "B C"]:
        """The projected class token, not brought to unit length.

        Args:
            pixels: of side `image_size`, normalised by CLIP's own mean and deviation.

        Raises:
            ValueError: another picture size.
        """
        return self.visual_projection(self.vision_model(pixels))


class CLIPTextEmbeddings(nnx.Module):
    """Token ids -> tokens with their positions."""

    def __init__(self, cfg: CLIPTextConfig, *, rngs: nnx.Rngs):
        self.token_embedding = nnx.Embed(cfg.vocab_size, cfg.hidden_size, rngs=rngs, **cfg.kinds)
        self.position_embedding = nnx.Embed(
            cfg.max_position_embeddings, cfg.hidden_size, rngs=rngs, **cfg.kinds
        )

    def __call__(self, token_ids: Int[Array, "B L"]) -> Float[Array, "B L C"]:
        length, longest = token_ids.shape[1], self.position_embedding.num_embeddings
        if length > longest:
            raise ValueError(f"CLIPText: at most {longest} tokens, got {length}")
        return self.token_embedding(token_ids) + self.position_embedding(jnp.arange(length))


class CLIPTextTransformer(nnx.Module):
    """Everything under `text_model`."""

    def __init__(self, cfg: CLIPTextConfig, *, rngs: nnx.Rngs):
        self.embeddings = CLIPTextEmbeddings(cfg, rngs=rngs)
        self.encoder = CLIPEncoder(cfg, rngs=rngs)
        self.final_layer_norm = layer_norm(cfg, rngs=rngs)

    def __call__(self, token_ids: Int[Array, "B L"]) -> Float[Array, "B L C"]:
        return self.final_layer_norm(self.encoder(self.embeddings(token_ids), causal=True))


class CLIPText(nnx.Module):
    """Prompt -> last hidden state, final norm applied (transformers' CLIPTextModel)."""

    def __init__(self, cfg: CLIPTextConfig, *, rngs: nnx.Rngs):
        self.cfg = cfg
        self.text_model = CLIPTextTransformer(cfg, rngs=rngs)

    def __call__(self, token_ids: Int[Array, "B L"]) -> Float[Array, "B L C"]:
        """Encodes prompts, padded or not: a token sees only what precedes it.

        Raises:
            ValueError: more than `max_position_embeddings` tokens.
        """
        return self.text_model(token_ids)
