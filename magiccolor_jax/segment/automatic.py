"""All masks of a picture: SAM asked at a grid of points, answers filtered (arXiv:2304.02643, B).

Facts: segment-anything `automatic_mask_generator.py`, `utils/amg.py`.
"""

import math
from dataclasses import dataclass
from itertools import product
from typing import NamedTuple

import cv2
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float, Int, UInt8

from magiccolor_jax.segment.mask_decoder import MASKS
from magiccolor_jax.segment.predictor import Predictor, enlarge, to_picture
from magiccolor_jax.segment.prompt_encoder import FOREGROUND

NEAR_EDGE = 20
"""Pixels within which a box touches the edge of its crop, and is not trusted."""

Boxes = Int[np.ndarray, "n 4"]
"""Left, top, right, bottom; the last row and column of a mask are its ends."""


@dataclass(frozen=True, kw_only=True)
class AutomaticConfig:
    """The official parameters, under their names."""

    points_per_side: int = 32
    """Of the grid over the picture."""
    points_per_batch: int = 64
    """Prompts at once."""
    pred_iou_thresh: float = 0.88
    """Least quality that the network gives a mask."""
    stability_score_thresh: float = 0.95
    """Least share of a mask that stays when the threshold moves up, of what is when it moves
    down."""
    stability_score_offset: float = 1.0
    """By how much it moves."""
    box_nms_thresh: float = 0.7
    """Boxes of one crop that overlap by more are one mask."""
    crop_n_layers: int = 0
    """Layers of crops beside the whole picture; layer i has 4^i."""
    crop_nms_thresh: float = 0.7
    """The same between crops."""
    crop_overlap_ratio: float = 512 / 1500
    """Overlap of the first layer's crops, as a share of the shorter side."""
    crop_n_points_downscale_factor: int = 1
    """By what the grid is divided from layer to layer."""
    min_mask_region_area: int = 0
    """Holes and islands below so many pixels are removed."""

    def __post_init__(self):
        for name in ("points_per_side", "points_per_batch", "crop_n_points_downscale_factor"):
            if getattr(self, name) < 1:
                raise ValueError(
                    f"AutomaticConfig: {name} must be at least 1, got {getattr(self, name)}"
                )
        if self.crop_n_layers < 0 or not 0 <= self.crop_overlap_ratio < 1:
            raise ValueError(
                "AutomaticConfig: crop_n_layers must be at least 0 and crop_overlap_ratio in "
                f"[0, 1), got {self.crop_n_layers} and {self.crop_overlap_ratio}"
            )


class Segments(NamedTuple):
    """Masks of a picture, the best first."""

    packed: UInt8[np.ndarray, "n b"]
    """Eight pixels a byte (`np.packbits` of each mask)."""
    boxes: Boxes
    quality: Float[np.ndarray, "n"]
    """The network's guess of the intersection over union."""
    stability: Float[np.ndarray, "n"]
    points: Float[np.ndarray, "n 2"]
    """(x, y) of the prompt."""
    crops: Boxes
    """The part of the picture that was looked at."""

    def mask(self, index: int, shape: tuple[int, int]) -> Bool[np.ndarray, "H W"]:
        """One mask.

        Args:
            shape: height and width of the picture.
        """
        return unpacked(self.packed[index], shape)

    def kept(self, which: np.ndarray) -> "Segments":
        """Some of them, by numbers or truth values."""
        return Segments(*(values[which] for values in self))


def unpacked(packed: UInt8[np.ndarray, "b"], shape: tuple[int, int]) -> Bool[np.ndarray, "H W"]:
    """The inverse of `np.packbits`."""
    return np.unpackbits(packed, count=math.prod(shape)).reshape(shape).astype(bool)


def segment(
    predictor: Predictor, picture: UInt8[np.ndarray, "H W 3"], config: AutomaticConfig
) -> Segments:
    """All masks of a picture."""
    shape = picture.shape[:2]
    crops = crop_boxes(shape, config)
    parts = [_of_crop(predictor, picture, box, layer, config) for box, layer in crops]
    found = Segments(*map(np.concatenate, zip(*parts, strict=True)))
    if len(crops) > 1:
        sides = found.crops[:, 2:] - found.crops[:, :2]
        found = found.kept(suppress(found.boxes, 1 / sides.prod(axis=1), config.crop_nms_thresh))
    if config.min_mask_region_area:
        found = _without_small_regions(found, shape, config)
    return found


def crop_boxes(
    shape: tuple[int, int], config: AutomaticConfig
) -> list[tuple[tuple[int, int, int, int], int]]:
    """(box, layer): the whole picture, and 4^i crops in layer i that overlap."""
    height, width = shape
    found = [((0, 0, width, height), 0)]
    for layer in range(1, config.crop_n_layers + 1):
        count = 2**layer
        overlap = int(config.crop_overlap_ratio * min(shape) * (2 / count))
        wide, high = (math.ceil((overlap * (count - 1) + side) / count) for side in (width, height))
        for column, row in product(range(count), repeat=2):
            left, top = (wide - overlap) * column, (high - overlap) * row
            found.append(((left, top, min(left + wide, width), min(top + high, height)), layer))
    return found


def point_grid(count: int) -> Float[np.ndarray, "n 2"]:
    """The middles of count x count equal cells of [0, 1] x [0, 1], row after row."""
    middles = np.linspace(1 / (2 * count), 1 - 1 / (2 * count), count)
    return np.stack(np.meshgrid(middles, middles), axis=-1).reshape(-1, 2)


def suppress(
    boxes: Boxes, scores: Float[np.ndarray, "n"], threshold: float
) -> Int[np.ndarray, "k"]:
    """Numbers of the boxes that no better one overlaps by more than the threshold, best first."""
    order = np.argsort(-scores, kind="stable")
    corners = boxes.astype(np.float32)
    areas = np.prod(corners[:, 2:] - corners[:, :2], axis=1)
    kept = []
    while len(order):
        best, order = order[0], order[1:]
        kept.append(best)
        low = np.maximum(corners[order, :2], corners[best, :2])
        high = np.minimum(corners[order, 2:], corners[best, 2:])
        shared = np.prod(np.maximum(high - low, 0), axis=1)
        with np.errstate(invalid="ignore"):  # empty masks have boxes without area
            overlap = shared / (areas[order] + areas[best] - shared)
        order = order[~(overlap > threshold)]
    return np.array(kept, int)


def _of_crop(
    predictor: Predictor,
    picture: UInt8[np.ndarray, "H W 3"],
    box: tuple[int, int, int, int],
    layer: int,
    config: AutomaticConfig,
) -> Segments:
    """Masks of a part of the picture, in the whole picture's pixels."""
    left, top, right, bottom = box
    shape, size = picture.shape[:2], (bottom - top, right - left)
    seen = predictor.embed(picture[top:bottom, left:right])
    cfg = predictor.cfg
    down, across = map(jnp.asarray, to_picture(cfg.mask_size, cfg.image_size, seen.frame))
    count = int(config.points_per_side / config.crop_n_points_downscale_factor**layer)
    points = point_grid(count) * size[::-1]
    parts = []
    for start in range(0, len(points), config.points_per_batch):
        asked = points[start : start + config.points_per_batch]
        # The last batch is filled up, so that one program serves all.
        filled = np.resize(asked, (config.points_per_batch, 2))[:, None]
        labels = np.full(filled.shape[:2], FOREGROUND)
        places, kinds = predictor.tokens_of(seen.frame, filled, labels, None)
        offset = jnp.float32(config.stability_score_offset)
        answers = _candidates(
            predictor.sam,
            seen.embedding,
            jnp.asarray(places),
            jnp.asarray(kinds),
            down,
            across,
            jnp.asarray(size),
            offset,
        )
        answers = [np.asarray(x)[: (MASKS - 1) * len(asked)] for x in answers]
        answers[0] = answers[0][:, : size[0], : size[1]]
        parts.append(_filtered(answers, asked, box, shape, config))
    found = Segments(*map(np.concatenate, zip(*parts, strict=True)))
    return found.kept(suppress(found.boxes, found.quality, config.box_nms_thresh))


@nnx.jit
def _candidates(
    sam,
    embedding: Float[Array, "g g C"],
    places: Float[Array, "N P 2"],
    kinds: Int[Array, "N P"],
    down: Float[Array, "H m"],
    across: Float[Array, "W m"],
    size: Int[Array, "2"],
    offset: Float[Array, ""],
) -> tuple[Bool[Array, "M H W"], Float[Array, "M"], Float[Array, "M"], Int[Array, "M 4"]]:
    """Masks of a batch of prompts, three each, with quality, stability and boxes.

    Args:
        size: height and width of the picture, beyond which nothing counts.
    """
    found = sam.decode(embedding, places, kinds)
    logits = found.logits[:, 1:].reshape(-1, *found.logits.shape[2:])
    whole = enlarge(logits, down, across)
    _, height, width = whole.shape
    within = (jnp.arange(height) < size[0])[:, None] & (jnp.arange(width) < size[1])
    inside = (whole > 0) & within
    high, low = (((whole > edge) & within).sum(axis=(1, 2)) for edge in (offset, -offset))
    ends = [_ends(inside.any(axis=axis)) for axis in (1, 2)]  # of columns, of rows
    boxes = jnp.stack([ends[0][0], ends[1][0], ends[0][1], ends[1][1]], axis=1)
    boxes = jnp.where(inside.any(axis=(1, 2))[:, None], boxes, 0)
    return inside, found.quality[:, 1:].reshape(-1), high / low, boxes


def _ends(marks: Bool[Array, "M L"]) -> tuple[Int[Array, "M"], Int[Array, "M"]]:
    """First and last place that is marked."""
    return jnp.argmax(marks, axis=1), marks.shape[1] - 1 - jnp.argmax(marks[:, ::-1], axis=1)


def _filtered(
    answers: list[np.ndarray],
    points: Float[np.ndarray, "n 2"],
    box: tuple[int, int, int, int],
    shape: tuple[int, int],
    config: AutomaticConfig,
) -> Segments:
    """The answers that are good, stable and not cut off, in the whole picture's pixels."""
    masks, quality, stability, boxes = answers
    keep = np.ones(len(masks), bool)
    if config.pred_iou_thresh > 0:
        keep &= quality > config.pred_iou_thresh
    if config.stability_score_thresh > 0:
        keep &= stability >= config.stability_score_thresh
    left, top, right, bottom = box
    boxes = boxes + np.array([left, top, left, top])
    ends = np.abs(boxes - np.array(box)) <= NEAR_EDGE
    picture_ends = np.abs(boxes - np.array([0, 0, *shape[::-1]])) <= NEAR_EDGE
    keep &= ~(ends & ~picture_ends).any(axis=1)
    around = ((0, 0), (top, shape[0] - bottom), (left, shape[1] - right))
    whole = np.pad(masks[keep], around).reshape(-1, math.prod(shape))
    asked = np.repeat(points + (left, top), MASKS - 1, axis=0)
    return Segments(
        np.packbits(whole, axis=1),
        boxes[keep],
        quality[keep],
        stability[keep],
        asked[keep],
        np.tile(box, (int(keep.sum()), 1)),
    )


def _without_small_regions(
    found: Segments, shape: tuple[int, int], config: AutomaticConfig
) -> Segments:
    """Holes and islands removed; of masks that are alike now, the untouched ones stay."""
    if not len(found.boxes):
        return found
    packed, boxes = found.packed.copy(), found.boxes.copy()
    untouched = np.ones(len(packed))
    for index in range(len(packed)):
        mask = found.mask(index, shape)
        new = without_small(mask, config.min_mask_region_area)
        if (new != mask).any():
            packed[index], boxes[index] = np.packbits(new), _box(new)
            untouched[index] = 0
    threshold = max(config.box_nms_thresh, config.crop_nms_thresh)
    kept = suppress(boxes, untouched, threshold)
    return found._replace(packed=packed, boxes=boxes).kept(kept)


def without_small(mask: Bool[np.ndarray, "H W"], area: int) -> Bool[np.ndarray, "H W"]:
    """A mask without holes and islands of fewer pixels; its largest island always stays."""
    filled = mask | _small(~mask, area)
    islands = _small(filled, area)
    if (islands == filled).all():
        _, regions, stats, _ = cv2.connectedComponentsWithStats(
            filled.astype(np.uint8), connectivity=8
        )
        return regions == np.argmax(stats[1:, cv2.CC_STAT_AREA]) + 1 if filled.any() else filled
    return filled & ~islands


def _small(mask: Bool[np.ndarray, "H W"], area: int) -> Bool[np.ndarray, "H W"]:
    """Connected parts of fewer pixels."""
    _, regions, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    small = stats[:, cv2.CC_STAT_AREA] < area
    small[0] = False  # what is not marked
    return small[np.asarray(regions, int)]


def _box(mask: Bool[np.ndarray, "H W"]) -> Int[np.ndarray, "4"]:
    """Left, top, right, bottom of a mask; zeros of an empty one."""
    if not mask.any():
        return np.zeros(4, int)
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return np.array([columns[0], rows[0], columns[-1], rows[-1]])
