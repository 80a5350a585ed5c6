"""Pages and references in the units that colour matching compares: DINOv2's patches.

A cell of a page is 16 x 16 pixels: two latents of each axis, so that random crops of latents begin
at whole cells. The page is resized so that a cell becomes one patch.
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int

from magiccolor_jax.data.transforms import IMAGENET_MEAN, IMAGENET_STD

CELL = 16
"""Pixels of a page, along one axis, that make one DINOv2 patch of it."""


def dino_input(pixels: Float[Array, "B H W 3"], patch: int) -> Float[Array, "B gh gw 3"]:
    """The ground truth as DINOv2 sees it: one patch per cell, ImageNet-normalised.

    Args:
        pixels: [-1, 1]; sides are multiples of a cell.
        patch: side of DINOv2's patch in pixels.
    """
    batch, height, width, _ = pixels.shape
    size = (batch, height // CELL * patch, width // CELL * patch, 3)
    unit = (jax.image.resize(pixels, size, "linear", antialias=True) + 1) / 2
    return (unit - np.array(IMAGENET_MEAN, np.float32)) / np.array(IMAGENET_STD, np.float32)


def cell_owners(instance_map: Int[Array, "B H W"]) -> Int[Array, "B gh gw"]:
    """The instance that owns a whole cell, 1..K; 0 where none does or several share it."""
    batch, height, width = instance_map.shape
    cells = instance_map.reshape(batch, height // CELL, CELL, width // CELL, CELL)
    least, most = cells.min(axis=(2, 4)), cells.max(axis=(2, 4))
    return jnp.where(least == most, least, 0)


def cell_colors(pixels: Float[Array, "B H W 3"]) -> Float[Array, "B gh gw 3"]:
    """Mean colour of each cell."""
    return nnx.avg_pool(pixels, (CELL, CELL), strides=(CELL, CELL))
