"""The network's colours under the sketch's own lines, at the sketch's own size.

What the network makes is a page of its own size, and a decoder's lines are never as crisp as a
pen's. Here its colours alone are taken, brought to the sketch's size by a filter that no line and
no mask's edge lets through, and multiplied under the lines. Outside all masks the page stays as it
was.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import Bool, Float, Float32, Int, UInt8

from magiccolor_jax.data.sketches import scan
from magiccolor_jax.data.transforms import WHITE, Mask, PageFit, Picture, mask_counts, resize
from magiccolor_jax.recipe import Recipe

EDGE = 6.0
"""Levels of the guide, 0..255, that stop the filter to 1/e; fewer where it is strong, ..."""

LEAK = 0.01
"""... so that a mask's edge passes no more than this of the filter's strength."""

LIGHT = 256.0
"""Strength up to which a line stops the filter as it is dark. Beyond, pale lines stop it too: on a
large page they are lines, and no edges of black ones."""

TRUST = 3
"""Power of the paper's share in a pixel of the network's page: colours between lines count."""

PATTERN = 5
"""Levels of each of two channels that tell owners apart, up to 25 of them, ..."""

STEP = WHITE // (PATTERN - 1)
"""... and how far they lie apart."""

LEAST_TRUST = 1e-3
"""Of a pixel that is all line: where nothing else is near, its colour is better than none."""


class Finished(NamedTuple):
    """A page, and what it is laid from."""

    picture: UInt8[np.ndarray, "H W 3"]
    colors: UInt8[np.ndarray, "H W 3"]
    """Without lines; white where no instance is."""
    owner: Int[np.ndarray, "H W"]
    """Number of the instance, from 1, whose pixel it is; 0: nobody's."""
    colored: Bool[np.ndarray, "H W"]
    """What was coloured; all else is as the sketch has it."""
    lines: UInt8[np.ndarray, "H W 4"]
    """In their own colours, transparent as they let the colours through."""


def finish(
    page: Float[np.ndarray, "h w 3"],
    sketch: Picture,
    masks: Sequence[Mask],
    fit: PageFit,
    recipe: Recipe,
    *,
    whole: bool = False,
) -> Finished:
    """Lays a page's colours under its sketch.

    Args:
        page: what the network made, 0..255, in its bucket.
        masks: of the instances on the sketch; the higher number owns a pixel. None: the whole page
            is coloured.
        whole: colour what no mask marks, too.
    """
    shown = page[fit.placed.slices]
    scanned = scan(sketch)
    owner = _owner(masks, sketch.shape[:2], recipe)
    colors = _spread(shown, scanned.ink, owner, recipe.finish_reach)
    colored = np.ones(owner.shape, bool) if whole or not masks else owner > 0
    under = np.where(colored[..., None], colors, np.float32(WHITE))
    picture = np.where(colored[..., None], np.rint(under * scanned.passes), sketch)
    colors = np.rint(under).astype(np.uint8)
    return Finished(picture.astype(np.uint8), colors, owner, colored, _line_layer(scanned.passes))


def _line_layer(passes: Float32[np.ndarray, "H W 3"]) -> UInt8[np.ndarray, "H W 4"]:
    """Lines that, laid over white, are the sketch's; over colours, nearly the page's."""
    alpha = 1 - passes.min(axis=2, keepdims=True)
    color = 1 - (1 - passes) / np.maximum(alpha, 1 / WHITE)
    layer = np.concatenate([np.clip(color, 0, 1), alpha], axis=2)
    return np.rint(WHITE * layer).astype(np.uint8)


def _owner(masks: Sequence[Mask], shape: tuple[int, int], recipe: Recipe) -> Int[np.ndarray, "H W"]:
    """Whose each pixel is."""
    owner = np.zeros(shape, np.int32)
    for number, mask in enumerate(masks, 1):
        owner[mask_counts(mask, recipe)] = number
    return owner


def _spread(
    shown: Float[np.ndarray, "h w 3"],
    ink: Float32[np.ndarray, "H W"],
    owner: Int[np.ndarray, "H W"],
    reach: int,
) -> Float32[np.ndarray, "H W 3"]:
    """Colours of paper, 0..255, everywhere: those near lines come from between the lines.

    Fast global smoothing (Min et al. 2014) of trusted colours over that of the trust itself. Its
    strength is an area: that of the network's pixels that are evened out.

    Args:
        reach: side of that area, in the network's pixels.
    """
    trust = _trust(shown.shape[:2], ink, owner)
    planes = np.dstack([shown * trust[..., None], trust]).astype(np.float32)
    large = cv2.resize(planes, ink.shape[::-1], interpolation=cv2.INTER_LINEAR)
    strength = reach**2 * max(ink.size / trust.size, 1.0)
    guide = _guide(ink ** min(max(math.sqrt(LIGHT / strength), 0.5), 1.0), owner)
    edge = min(EDGE, STEP / math.log(strength / LEAK))
    smooth = [
        cv2.ximgproc.fastGlobalSmootherFilter(guide, np.ascontiguousarray(plane), strength, edge)
        for plane in cv2.split(large)
    ]
    weight = np.maximum(smooth[3], LEAST_TRUST / 10)
    return np.clip(np.dstack([plane / weight for plane in smooth[:3]]), 0, WHITE)


def _trust(
    shape: tuple[int, int], ink: Float32[np.ndarray, "H W"], owner: Int[np.ndarray, "H W"]
) -> Float32[np.ndarray, "h w"]:
    """How much each pixel of the network's page tells: little of a mixture, of a line or of two
    owners, which a pixel of another size often is."""
    numbers = range(int(owner.max()) + 1)
    shares = [resize((owner == number).astype(np.float32), *shape) for number in numbers]
    pure = np.maximum(2 * np.max(shares, axis=0) - 1, 0)
    paper = np.clip(1 - resize(ink, *shape), 0, 1)
    return ((pure * paper) ** TRUST + LEAST_TRUST).astype(np.float32)


def _guide(
    ink: Float32[np.ndarray, "H W"], owner: Int[np.ndarray, "H W"]
) -> UInt8[np.ndarray, "H W 3"]:
    """What the filter does not cross: lines, and the edges of masks."""
    lines = np.rint((1 - ink) * WHITE)
    across, down = owner % PATTERN, owner // PATTERN % PATTERN
    return np.dstack([lines, STEP * across, STEP * down]).astype(np.uint8)


def layers(done: Finished) -> dict[str, UInt8[np.ndarray, "H W *C"]]:
    """Pictures to go on painting with, by name: `lines`, `colors`, and of each instance `flat_1`,
    its colours alone, and `mask_1`; those with four channels are transparent where nothing is."""
    found: dict[str, np.ndarray] = {
        "lines": done.lines,
        "colors": _cut(done.colors, done.colored),
    }
    for number in range(1, int(done.owner.max()) + 1):
        mine = done.owner == number
        found[f"flat_{number}"] = _cut(done.colors, mine)
        found[f"mask_{number}"] = np.where(mine, np.uint8(255), np.uint8(0))
    return found


def _cut(colors: Picture, where: Bool[np.ndarray, "H W"]) -> UInt8[np.ndarray, "H W 4"]:
    """Colours that are seen only there."""
    return np.dstack([colors, np.where(where, np.uint8(255), np.uint8(0))])
