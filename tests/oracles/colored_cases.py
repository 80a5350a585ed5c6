"""Case folders with known colours, and folders of predictions."""

from pathlib import Path

import numpy as np
from oracles.case_folders import save

COLORS = ((200, 40, 40), (40, 70, 200), (40, 160, 60), (220, 200, 60))

PAGE = (48, 64)


def regions(count: int, page: tuple[int, int] = PAGE) -> np.ndarray:
    """Masks of `count` blocks side by side, 0..255."""
    masks = np.zeros((count, *page), np.uint8)
    width = page[1] // count
    for index in range(count):
        masks[index, 6:-6, index * width + 3 : (index + 1) * width - 3] = 255
    return masks


def painted(colors, masks: np.ndarray) -> np.ndarray:
    """A white page whose regions have these colours, each with a darker lower half."""
    page = np.full((*masks.shape[1:], 3), 255, np.uint8)
    middle = masks.shape[1] // 2
    for color, mask in zip(colors, masks, strict=True):
        page[mask > 0] = color
        lower = mask.copy()
        lower[:middle] = 0
        page[lower > 0] = np.array(color) * 3 // 4
    return page


def write_colored_case(folder: Path, count: int, page: tuple[int, int] = PAGE) -> np.ndarray:
    """A case with a target, whose references have the regions' colours; returns the target."""
    masks = regions(count, page)
    target = painted(COLORS[:count], masks)
    sketch = np.full((*page, 3), 255, np.uint8)
    for number, (mask, color) in enumerate(zip(masks, COLORS, strict=False), 1):
        edge = (mask > 0) & ~(np.roll(mask, 1, 0) & np.roll(mask, -1, 0) > 0)
        sketch[edge] = 0
        reference = np.full((30, 24, 3), color, np.uint8)
        reference[15:] = np.array(color) * 3 // 4
        save(folder / f"references/{number}.png", reference)
        save(folder / f"sketch_masks/{number}.png", mask)
    save(folder / "sketch.png", sketch)
    save(folder / "target.png", target)
    return target
