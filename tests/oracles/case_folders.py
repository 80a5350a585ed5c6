"""Generated case folders: odd, non-square, every picture of another size."""

from pathlib import Path

import numpy as np
from PIL import Image

SKETCH_SHAPE = (61, 83)
REFERENCE_SHAPES = ((37, 53), (64, 41), (45, 45))


def noise(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """Random 8-bit pixels."""
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def block_mask(shape: tuple[int, int], top: int, left: int, bottom: int, right: int) -> np.ndarray:
    """White rectangle on black, ends included."""
    mask = np.zeros(shape, np.uint8)
    mask[top : bottom + 1, left : right + 1] = 255
    return mask


def save(path: Path, pixels: np.ndarray) -> None:
    """Writes a picture, in the format of the path's ending."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def save_both(folder: Path, pixels: np.ndarray) -> Path:
    """A picture, and its mirror image in a folder of its own."""
    save(folder / "one.png", pixels)
    save(folder / "deep/two.png", pixels[:, ::-1].copy())
    return folder


def write_our_case(folder: Path, count: int = 3) -> Path:
    """A whole case in our layout, with `count` disjoint instances."""
    save(folder / "sketch.png", np.full((*SKETCH_SHAPE, 3), 255, np.uint8))
    for number in range(1, count + 1):
        shape = REFERENCE_SHAPES[(number - 1) % 3]
        left = 2 + 4 * number
        sketch_mask = block_mask(SKETCH_SHAPE, 5, left, 40, left + 3)
        save(folder / f"references/{number}.png", noise((*shape, 3), number))
        save(folder / f"sketch_masks/{number}.png", sketch_mask)
        save(folder / f"reference_masks/{number}.png", block_mask(shape, 4, 7, 30, 33))
    return folder


def write_release_case(folder: Path, count: int = 3) -> Path:
    """A whole case in the release's layout."""
    save(folder / "sketch.jpg", np.full((*SKETCH_SHAPE, 3), 255, np.uint8))
    for number in range(1, count + 1):
        shape = REFERENCE_SHAPES[(number - 1) % 3]
        save(folder / f"{number}.jpg", noise((*shape, 3), number))
        save(folder / f"masks/mask_{number}.png", block_mask(shape, 4, 7, 30, 33))
    return folder
