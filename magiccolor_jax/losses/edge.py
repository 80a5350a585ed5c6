"""Edge weighting of the denoising loss (arXiv:2503.16948): boundaries count more.

The paper filters the ground truth by Sobel, and so do we; the published code thresholds Canny edges
.
"""

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

LUMINANCE = np.array([0.299, 0.587, 0.114], np.float32)
"""ITU-R BT.601, as every grey conversion of the field's libraries."""

FULL_CONTRAST = 8.0
"""Sobel's answer to a straight edge between -1 and 1."""


def sobel_edges(pixels: Float[Array, "B H W 3"]) -> Float[Array, "B H W"]:
    """Strength of the luminance's gradient, borders reflected; 1 at a straight full-contrast edge.

    Args:
        pixels: the ground truth, [-1, 1].
    """
    grey = pixels.astype(jnp.float32) @ LUMINANCE
    padded = jnp.pad(grey, ((0, 0), (1, 1), (1, 1)), mode="reflect")
    # Separable: the difference along one axis, 1 2 1 along the other.
    across = padded[:, :, 2:] - padded[:, :, :-2]
    down = padded[:, 2:] - padded[:, :-2]
    horizontal = across[:, :-2] + 2 * across[:, 1:-1] + across[:, 2:]
    vertical = down[:, :, :-2] + 2 * down[:, :, 1:-1] + down[:, :, 2:]
    return jnp.hypot(horizontal, vertical) / FULL_CONTRAST


def edge_weight(
    pixels: Float[Array, "B H W 3"], reduction: int, progress: Float[Array, ""] | float
) -> Float[Array, "B h w 1"]:
    """Weight of each latent: 1 in flat areas, growing to 2 at edges as the training goes on.

    Args:
        reduction: pixels per latent along one axis; a latent has the strongest edge of its pixels.
        progress: share of the training that is done, 0..1; the release ramps by a half cosine.
    """
    edges = jnp.minimum(sobel_edges(pixels), 1.0)[..., None]
    window = (reduction, reduction)
    strongest = nnx.max_pool(edges, window, strides=window)
    return 1 + 0.5 * (1 - jnp.cos(jnp.pi * progress)) * strongest
