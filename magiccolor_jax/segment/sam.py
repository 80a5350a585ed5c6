"""SAM, the network (arXiv:2304.02643), under segment-anything's names."""

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from magiccolor_jax.segment.image_encoder import ImageEncoder
from magiccolor_jax.segment.mask_decoder import MaskDecoder, Masks
from magiccolor_jax.segment.prompt_encoder import PromptEncoder
from magiccolor_jax.segment.sam_config import SAMConfig


class SAM(nnx.Module):
    """Picture and prompts -> masks."""

    def __init__(self, cfg: SAMConfig, *, rngs: nnx.Rngs):
        self.cfg = cfg
        self.image_encoder = ImageEncoder(cfg, rngs=rngs)
        self.prompt_encoder = PromptEncoder(cfg, rngs=rngs)
        self.mask_decoder = MaskDecoder(cfg, rngs=rngs)

    def embed(self, pixels: Float[Array, "B S S 3"]) -> Float[Array, "B g g C"]:
        """The embedding of normalised pictures, once for all their prompts."""
        return self.image_encoder(pixels)

    def decode(
        self,
        picture: Float[Array, "g g C"],
        points: Float[Array, "N P 2"],
        labels: Int[Array, "N P"],
        masks: Float[Array, "N m m"] | None = None,
    ) -> Masks:
        """Masks of N prompts in one picture.

        Args:
            picture: from `embed`.
            points, labels: as `PromptEncoder.tokens` takes them; a prompt without a box ends with a
                `NO_POINT`, as segment-anything trains it.
            masks: logits of earlier answers.
        """
        prompts = self.prompt_encoder
        tokens = prompts.tokens(points, labels)
        dense = prompts.dense(masks, points.shape[0])
        return self.mask_decoder(picture, prompts.positions(), tokens, jnp.asarray(dense))
