"""Weights that a golden file need not store: drawn from a parameter's name, in NumPy alone."""

import math
import zlib

import numpy as np
from jaxtyping import Float32


def seeded(key: str, shape: tuple[int, ...]) -> np.ndarray:
    """The tensor of PyTorch's name and shape, the same wherever it is drawn.

    Activations stay of order one, LPIPS' heads weigh nothing below zero, and no value is a special
    one.
    """
    if key.endswith("num_batches_tracked"):
        return np.zeros(shape, np.int64)
    unit = np.random.default_rng(zlib.crc32(key.encode())).random(shape, np.float32)
    if len(shape) > 1:
        bound = np.float32(math.sqrt(6 / math.prod(shape[1:])))  # He et al. 2015, uniform
        return bound * (unit if key.startswith("lin") else unit * 2 - 1)
    leaf = key.rpartition(".")[2]
    lowest = {"weight": 0.7, "running_var": 0.5}.get(leaf, -0.3)
    highest = {"weight": 1.3, "running_var": 1.5}.get(leaf, 0.3)
    return lowest + unit * np.float32(highest - lowest)


def seeded_pictures(name: str, shape: tuple[int, ...]) -> Float32[np.ndarray, "B H W C"]:
    """Pictures of noise and of broad shapes, RGB in [0, 1], by name and shape [B H W 3]."""
    random = np.random.default_rng(zlib.crc32(name.encode()))
    batch, height, width, channels = shape
    rows, columns = np.mgrid[:height, :width] / np.float32(max(height, width))
    waves = random.uniform(2, 30, (batch, channels, 2))
    phases = random.uniform(0, 6, (batch, channels))
    angle = waves[..., 0, None, None] * rows + waves[..., 1, None, None] * columns
    broad = 0.5 + 0.4 * np.sin(angle + phases[..., None, None])
    fine = random.uniform(-0.1, 0.1, broad.shape)
    return np.moveaxis(broad + fine, 1, -1).astype(np.float32)
