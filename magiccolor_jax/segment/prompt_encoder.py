"""SAM's prompt encoder: points, boxes and masks -> embeddings."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int

from magiccolor_jax.segment.image_encoder import map_norm
from magiccolor_jax.segment.sam_config import SAMConfig

BACKGROUND, FOREGROUND, CORNER, OTHER_CORNER = range(4)
"""Labels of points: kinds that have an embedding of their own."""

NO_POINT = -1
"""Label of what only fills up."""


class PositionEmbedding(nnx.Module):
    """Random Fourier features of places (arXiv:2006.10739)."""

    def __init__(self, cfg: SAMConfig, *, rngs: nnx.Rngs):
        shape = (2, cfg.channels // 2)
        matrix = nnx.initializers.normal(1.0)(rngs.params(), shape, cfg.param_dtype)
        self.positional_encoding_gaussian_matrix = nnx.Param(matrix)

    def __call__(self, places: Float[Array, "*s 2"]) -> Float[Array, "*s C"]:
        """Of places (x, y) in [0, 1]; in f32, whatever the network computes in."""
        matrix = self.positional_encoding_gaussian_matrix[...].astype(jnp.float32)
        angles = 2 * np.pi * jnp.matmul(2 * places - 1, matrix, precision="highest")
        return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=-1)


class PromptEncoder(nnx.Module):
    """Prompts -> a sequence of tokens, and a map that is added to the embedded picture."""

    def __init__(self, cfg: SAMConfig, *, rngs: nnx.Rngs):
        self.cfg = cfg

        def one():
            return nnx.Embed(1, cfg.channels, rngs=rngs, **cfg.kinds)

        self.pe_layer = PositionEmbedding(cfg, rngs=rngs)
        self.point_embeddings = nnx.List([one() for _ in range(4)])
        self.not_a_point_embed = one()
        first, second = cfg.mask_channels // 4, cfg.mask_channels
        halving = {"strides": 2, "padding": "VALID", "rngs": rngs, **cfg.kinds}
        self.mask_downscaling = nnx.Dict(
            {
                "0": nnx.Conv(1, first, (2, 2), **halving),
                "1": map_norm(first, cfg, rngs=rngs),
                "3": nnx.Conv(first, second, (2, 2), **halving),
                "4": map_norm(second, cfg, rngs=rngs),
                "6": nnx.Linear(second, cfg.channels, rngs=rngs, **cfg.kinds),
            }
        )
        self.no_mask_embed = one()

    def tokens(
        self, points: Float[Array, "N P 2"], labels: Int[Array, "N P"]
    ) -> Float[Array, "N P C"]:
        """A token per point.

        Args:
            points: (x, y) in pixels of the encoder's square; a pixel's middle is half a pixel on.
            labels: `BACKGROUND`, `FOREGROUND`, a box's `CORNER` (top left) and `OTHER_CORNER`, or
                `NO_POINT`.
        """
        places = self.pe_layer((points + 0.5) / self.cfg.image_size)
        kinds = [each.embedding[...][0] for each in self.point_embeddings]
        table = jnp.stack([*kinds, self.not_a_point_embed.embedding[...][0]])
        known = (labels >= 0)[..., None]
        return (jnp.where(known, places, 0) + table[labels]).astype(self.cfg.dtype)

    def dense(self, masks: Float[Array, "N m m"] | None, count: int) -> Float[Array, "N g g C"]:
        """The map of mask prompts, or of their absence.

        Args:
            masks: logits, `mask_size` pixels wide.
            count: of prompts.
        """
        if masks is not None:
            layers, x = self.mask_downscaling, masks[..., None]
            for convolution, norm in (("0", "1"), ("3", "4")):
                x = jax.nn.gelu(layers[norm](layers[convolution](x)), approximate=False)
            return layers["6"](x)
        shape = (count, self.cfg.grid, self.cfg.grid, self.cfg.channels)
        return jnp.broadcast_to(self.no_mask_embed.embedding[...][0], shape).astype(self.cfg.dtype)

    def positions(self) -> Float[Array, "g g C"]:
        """Of the embedded picture's patches."""
        middles = (np.arange(self.cfg.grid, dtype=np.float32) + 0.5) / self.cfg.grid
        places = np.stack(np.meshgrid(middles, middles), axis=-1)
        return self.pe_layer(jnp.asarray(places)).astype(self.cfg.dtype)
