"""The release's path from pictures to network inputs (release.md §3), in NumPy, PIL, cv2, torch."""

import cv2
import numpy as np
import torch
from oracles.release import ReleaseInputs
from PIL import Image
from torch.nn import functional

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
CLIP = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
"""(mean, standard deviation) of the encoders' own preprocessing."""


def release_inputs(
    sketch: np.ndarray,
    references: list[np.ndarray],
    masks: list[np.ndarray],
    *,
    mirror: bool = False,
    page: int = 512,
    sides: tuple[int, int] = (256, 150),
    dino: int = 504,
    clip: int = 224,
) -> ReleaseInputs:
    """A folder's pictures as the networks take them.

    Args:
        sketch: [H W 3] u8.
        references: [h w 3] u8 each.
        masks: [h w] u8 each, of the references; > 0 counts.
        mirror: whether this call's draw mirrors the canvas.
        page: side of page and canvas.
        sides: longest side of a crop with up to five references, and with more.
        dino: side of the DINOv2 input.
        clip: side of the CLIP input.

    Raises:
        ValueError: where the release fails: a mask without area, a crop of one value.
    """
    pictures = [_resized(reference, page) for reference in references]
    crops = [
        cropped(picture, _resized(mask, page))
        for picture, mask in zip(pictures, masks, strict=True)
    ]
    canvas_u8, id_map = collage(crops, page, sides[0] if len(crops) <= 5 else sides[1])
    canvas = _signed(canvas_u8)
    if mirror:
        canvas = canvas.flip(-1)
    return ReleaseInputs(
        functional.interpolate(_signed(sketch), size=(page, page), mode="bilinear"),
        canvas,
        clip_pixels(canvas, clip),
        torch.cat([dino_pixels(picture, dino) for picture in pictures]),
        torch.from_numpy(id_map),
    )


def cropped(picture: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """[h w 3] u8: the mask's box without its last row and column, stretched to 0..255."""
    rows, columns = np.nonzero(mask > 0)
    if not len(rows) or np.ptp(rows) == 0 or np.ptp(columns) == 0:
        raise ValueError(
            "the release crops rows min..max-1 and columns likewise: the mask has none"
        )
    crop = picture[rows.min() : rows.max(), columns.min() : columns.max()].astype(np.float64)
    low, high = crop.min(), crop.max()
    if low == high:
        raise ValueError(f"the release divides by a crop's range: all its values are {low:.0f}")
    return ((crop - low) / (high - low) * 255).astype(np.uint8)


def collage(crops: list[np.ndarray], page: int, side: int) -> tuple[np.ndarray, np.ndarray]:
    """Canvas [page page 3] u8 and id map [page page] int64; what finds no place is left out."""
    canvas = np.zeros((page, page, 3), np.uint8)
    id_map = np.zeros((page, page), np.int64)
    for number, crop in enumerate(crops, start=1):
        longest = max(crop.shape[:2])
        height, width = (int(length * side / longest) for length in crop.shape[:2])
        spot = first_free_spot(id_map > 0, height, width)
        if spot is None:
            continue
        area = slice(spot[0], spot[0] + height), slice(spot[1], spot[1] + width)
        canvas[area] = cv2.resize(crop, (width, height), interpolation=cv2.INTER_LINEAR)
        id_map[area] = number
    return canvas, id_map


def first_free_spot(taken: np.ndarray, height: int, width: int) -> tuple[int, int] | None:
    """First (row, column) in raster order at which nothing overlaps."""
    for row in range(taken.shape[0] - height + 1):
        for column in range(taken.shape[1] - width + 1):
            if not taken[row : row + height, column : column + width].any():
                return row, column
    return None


def dino_pixels(picture: np.ndarray, side: int) -> torch.Tensor:
    """[1 3 side side], ImageNet-normalised."""
    resized = cv2.resize(picture, (side, side), interpolation=cv2.INTER_LINEAR)
    return _normalised(resized, IMAGENET)


def clip_pixels(canvas: torch.Tensor, side: int) -> torch.Tensor:
    """[1 3 S S] in [-1, 1] -> [1 3 side side] by CLIP's own bicubic resize and normalisation."""
    truncated = ((canvas + 1) / 2 * 255)[0].permute(1, 2, 0).numpy().astype(np.uint8)
    return _normalised(_resized(truncated, side), CLIP)


def _resized(picture: np.ndarray, side: int) -> np.ndarray:
    """u8 picture or mask squeezed to a square by PIL's default for it."""
    return np.asarray(Image.fromarray(picture).resize((side, side), Image.Resampling.BICUBIC))


def _signed(picture: np.ndarray) -> torch.Tensor:
    """[H W 3] u8 -> [1 3 H W] in [-1, 1]."""
    return (_unit(picture) - 0.5) / 0.5


def _normalised(picture: np.ndarray, statistics) -> torch.Tensor:
    """[H W 3] u8 -> [1 3 H W] with the channels' mean taken off, over their deviation."""
    mean, deviation = (torch.tensor(values)[None, :, None, None] for values in statistics)
    return (_unit(picture) - mean) / deviation


def _unit(picture: np.ndarray) -> torch.Tensor:
    return torch.tensor(picture).permute(2, 0, 1)[None].float() / 255
