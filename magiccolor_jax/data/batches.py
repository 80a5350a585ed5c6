"""One case -> the arrays of a batch of one, and many of those -> one batch."""

import logging
from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import Bool, Float, Int

from magiccolor_jax.data.canvas import Canvas, make_canvas
from magiccolor_jax.data.cases import MAX_REFERENCES, OVERLAP_TEXT, overlapping_pixels
from magiccolor_jax.data.pictures import CaseError, size_text
from magiccolor_jax.data.sketches import SketchJitter, prepare_sketch
from magiccolor_jax.data.transforms import (
    PageFit,
    clip_pixels,
    fit_page,
    mask_box,
    mask_counts,
    place_mask,
    reference_pixels,
)
from magiccolor_jax.recipe import Recipe
from magiccolor_jax.types import Batch, Case, Sizes

logger = logging.getLogger(__name__)

BUCKETS = (1, 2, 4, 8, MAX_REFERENCES)
"""Numbers of instances that programs are compiled for."""


class Prepared(NamedTuple):
    """A case ready for the networks."""

    batch: Batch
    """Of one case."""
    fit: PageFit
    """What `restore_page` needs to bring the picture back to the sketch's size."""
    notes: tuple[str, ...]
    """What was changed or left out on the way, for the manifest; also logged as warnings."""


def bucket_of(count: int) -> int:
    """The smallest bucket that holds `count` instances.

    Raises:
        ValueError: none does.
    """
    for bucket in BUCKETS:
        if 1 <= count <= bucket:
            return bucket
    raise ValueError(f"batch: a page has 1 to {MAX_REFERENCES} instances, got {count}")


def make_batch(
    case: Case,
    recipe: Recipe,
    sizes: Sizes,
    *,
    bucket: int,
    seed: int,
    jitter: SketchJitter | None = None,
    report: bool = True,
) -> Prepared:
    """Prepares one case, with its K instances padded to `bucket` (zeros, valid False).

    Args:
        seed: of the canvas' random mirror and the jitter; same case and seed, same arrays.
        jitter: of the sketch, in training; it changes nothing else.
        report: log the notes; a training sees the same case many times.

    Raises:
        CaseError: the recipe needs masks that the case does not have, or finds one empty.
        ValueError: the bucket is smaller than K, or there is jitter around a sketch `as_is`.
    """
    _check(case, recipe, bucket)
    fit = fit_page(case.sketch.shape[:2], recipe, sizes)
    rng = np.random.default_rng(seed)
    sketch, inverted = prepare_sketch(case.sketch, fit, recipe, jitter, *rng.spawn(1))
    canvas = make_canvas(case.references, case.reference_masks, recipe, sizes, rng)
    instance_map = _instance_map(case, fit, canvas, recipe)
    boxes, valid = _visible(instance_map, bucket)
    if recipe.masks_on == "sketch" and not valid.any():
        raise _nothing_visible(case, fit)
    references, roi = _references(case, recipe, sizes, bucket)
    batch = Batch(
        sketch=sketch,
        canvas=canvas.pixels,
        clip_pixels=clip_pixels(canvas.pixels, sizes),
        reference_pixels=references,
        instance_map=instance_map,
        boxes=boxes,
        roi=roi,
        valid=valid,
    )
    notes = _notes(inverted, canvas, valid, fit)
    if recipe.masks_on == "canvas" and case.sketch_masks:
        notes.append("this recipe takes no notice of sketch_masks/; --recipe paper does")
    for note in notes if report else ():
        logger.warning("%s: %s", case.path, note)
    if overlapping := overlapping_pixels(case.sketch_masks):  # the reader has warned of it
        notes.append(OVERLAP_TEXT.format(overlapping))
    return Prepared(Batch(*(array[None] for array in batch)), fit, tuple(notes))


def pad_instances(batch: Batch, bucket: int) -> Batch:
    """The same cases with room for `bucket` instances: zeros, valid False.

    Raises:
        ValueError: the batch has more instances than that.
    """
    missing = bucket - batch.valid.shape[1]
    if missing < 0:
        raise ValueError(f"batch: {batch.valid.shape[1]} instances do not fit a bucket of {bucket}")

    def padded(array: np.ndarray) -> np.ndarray:
        return np.pad(array, ((0, 0), (0, missing), *[(0, 0)] * (array.ndim - 2)))

    per_instance = ("reference_pixels", "boxes", "roi", "valid")
    return batch._replace(**{name: padded(getattr(batch, name)) for name in per_instance})


def stack(batches: Sequence[Batch]) -> Batch:
    """Joins batches of one page size and one bucket along the batch axis.

    Raises:
        ValueError: their shapes differ.
    """
    shapes = {tuple(array.shape[1:] for array in batch) for batch in batches}
    if len(shapes) != 1:
        raise ValueError(
            "stack: batches that are joined have one page size and one bucket of instances: "
            f"expected equal shapes, got {sorted(shapes) or 'none'}; group the cases by both first"
        )
    return Batch(*(np.concatenate(arrays) for arrays in zip(*batches, strict=True)))


def _check(case: Case, recipe: Recipe, bucket: int) -> None:
    """Raises what `make_batch` says it does."""
    if bucket < len(case.references):
        raise ValueError(
            f"batch: a bucket holds all instances: expected at least {len(case.references)}, "
            f"got {bucket}; use bucket_of"
        )
    if recipe.masks_on == "sketch" and not case.sketch_masks:
        raise CaseError(
            case.path,
            "the recipe colours the regions of sketch masks",
            expected="sketch_masks/ID.png for each references/ID.*",
            got=f"a case in the {case.layout} layout, whose masks belong to the references",
            fix="add sketch masks, or use --recipe release",
        )
    for kind, masks in (("reference", case.reference_masks), ("sketch", case.sketch_masks)):
        for number, mask in enumerate(masks, 1):
            if not mask_counts(mask, recipe).any():
                raise CaseError(
                    case.path,
                    f"a {kind} mask marks at least one pixel",
                    expected="values above the recipe's mask_threshold",
                    got=f"{kind} mask {number} with a largest value of {mask.max()}",
                    fix="paint the instance white (255) on black",
                )


def _nothing_visible(case: Case, fit: PageFit) -> CaseError:
    """The error of a page on which no instance owns a pixel."""
    return CaseError(
        case.path,
        "a page shows at least one instance",
        expected=f"a sketch mask that marks a pixel of the {size_text(fit.bucket)} page",
        got="masks so small that they vanish when the page is brought to that size",
        fix="mark larger regions, or cut the page into smaller ones",
    )


def _instance_map(
    case: Case, fit: PageFit, canvas: Canvas, recipe: Recipe
) -> Int[np.ndarray, "H W"]:
    """Which instance owns each pixel of the bucket, 1..K; the higher id wins."""
    if recipe.masks_on == "sketch":
        instances = np.zeros(fit.bucket, np.int32)
        for number, mask in enumerate(case.sketch_masks, 1):
            instances[place_mask(mask_counts(mask, recipe), fit)] = number
        return instances
    collage = np.zeros(canvas.pixels.shape[:2], np.int32)
    for number, rectangle in enumerate(canvas.rectangles, 1):
        if rectangle is not None:
            collage[rectangle.slices] = number
    return cv2.resize(collage, fit.bucket[::-1], interpolation=cv2.INTER_NEAREST)


def _visible(
    instance_map: Int[np.ndarray, "H W"], bucket: int
) -> tuple[Int[np.ndarray, "K 4"], Bool[np.ndarray, "K"]]:
    """Box of each instance's pixels, ends included, and whether it has any."""
    boxes, valid = np.zeros((bucket, 4), np.int32), np.zeros(bucket, bool)
    for index in range(bucket):
        box = mask_box(instance_map == index + 1)
        if box is not None:
            boxes[index], valid[index] = box, True
    return boxes, valid


def _references(
    case: Case, recipe: Recipe, sizes: Sizes, bucket: int
) -> tuple[Float[np.ndarray, "K R R 3"], Float[np.ndarray, "K 4"]]:
    """DINOv2's inputs and the part of each token grid that fills the instance's box."""
    pixels = np.zeros((bucket, sizes.reference, sizes.reference, 3), np.float32)
    roi = np.zeros((bucket, 4), np.float32)
    pairs = zip(case.references, case.reference_masks, strict=True)
    for index, (picture, mask) in enumerate(pairs):
        counts = mask_counts(mask, recipe)
        pixels[index], fit = reference_pixels(picture, counts, recipe, sizes)
        whole = (0, 0, sizes.grid - 1, sizes.grid - 1)
        roi[index] = whole if recipe.roi == "whole" else _token_box(counts, fit, sizes)
    return pixels, roi


def _token_box(
    counts: Bool[np.ndarray, "H W"], fit: PageFit, sizes: Sizes
) -> Float[np.ndarray, "4"]:
    """Box of a reference's mask in token units; pixel p is token (p + 0.5) / patch - 0.5.

    Both ends are the centres of the mask's outermost pixels.
    """
    ends = np.array(mask_box(counts), np.float64)
    origin = np.tile((fit.placed.top, fit.placed.left), 2)
    scale = np.tile((fit.placed.height / fit.original[0], fit.placed.width / fit.original[1]), 2)
    return np.clip((origin + (ends + 0.5) * scale) / sizes.patch - 0.5, 0, sizes.grid - 1)


def _notes(inverted: bool, canvas: Canvas, valid: Bool[np.ndarray, "K"], fit: PageFit) -> list[str]:
    """Says what was changed or left out."""
    dark = "the sketch has light lines on a dark ground: inverted to black lines on white"
    notes = [dark] if inverted else []
    height, width = fit.bucket
    for number, rectangle in enumerate(canvas.rectangles, 1):
        if rectangle is None:
            notes.append(f"reference {number} found no place on the canvas and is left out of it")
        if not valid[number - 1]:
            notes.append(f"instance {number} owns no pixel of the {width} x {height} page")
    return notes
