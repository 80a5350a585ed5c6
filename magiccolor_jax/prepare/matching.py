"""Which instance of a frame is which of another: by what they look like, and where they stand.

Each pair of instances is scored, and the assignment of the largest sum is taken (Kuhn 1955).
Features are DINOv2's patch tokens, averaged over the instance; without the network, how often
each colour stands in it.
"""

import functools
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import jax
import numpy as np
from flax import nnx
from jaxtyping import Float, UInt8
from scipy.ndimage import gaussian_filter
from scipy.optimize import linear_sum_assignment

from magiccolor_jax.checkpoint import load_network, read_config
from magiccolor_jax.data.palette import srgb_to_oklab
from magiccolor_jax.data.transforms import WHITE, Picture, mask_box, place, reference_pixels
from magiccolor_jax.recipe import Recipe
from magiccolor_jax.sampling.token_cache import TokenCache
from magiccolor_jax.segment.objects import Region
from magiccolor_jax.types import Sizes

PLACE = 0.25
"""Weight of the boxes' overlap; the rest is that of the features' likeness."""

GROWTH = 4.0
"""Largest ratio of the areas of one instance in two frames."""

PATCHES = 16
"""Patches along a side of the square that DINOv2 sees an instance in."""

COLORS, BLUR = 16, 0.7
"""Steps of each of Oklab's axes, and deviation by which neighbours share, in steps."""

SAMPLE = 4000
"""Pixels of an instance that are looked at, or up to twice as many."""

LEAST = {"dinov2": 0.6, "colours": 0.5}
"""Least likeness of one instance in two frames, by the kind of features."""


class Seen(NamedTuple):
    """The instances of a frame."""

    features: Float[np.ndarray, "K C"]
    """Of length 1, such that products are likenesses."""
    boxes: Float[np.ndarray, "K 4"]
    """Top, left, bottom, right, as shares of the frame's sides."""
    areas: Float[np.ndarray, "K"]
    """As shares of the frame's."""


Describe = Callable[[Picture, Sequence[Region]], Float[np.ndarray, "K C"]]
"""Picture and its instances' masks -> features of length 1."""


class Look(NamedTuple):
    """A way to tell instances by."""

    kind: str
    """Of `LEAST`."""
    about: str
    """For the user."""
    describe: Describe

    def see(self, picture: Picture, masks: Sequence[Region]) -> Seen:
        """The instances of a frame, at least one, none of them empty."""
        height, width = picture.shape[:2]
        boxes = []
        for mask in masks:
            box = mask_box(mask)
            assert box is not None, "an instance has a pixel"
            top, left, bottom, right = box
            boxes.append((top / height, left / width, (bottom + 1) / height, (right + 1) / width))
        areas = np.array([mask.mean() for mask in masks])
        return Seen(self.describe(picture, masks), np.array(boxes), areas)

    def match(self, first: Seen, second: Seen) -> list[tuple[int, int]]:
        """Pairs of numbers, in the order of the first's; not all instances have a partner."""
        likeness = first.features @ second.features.T
        ratio = first.areas[:, None] / second.areas[None]
        possible = (likeness >= LEAST[self.kind]) & (np.maximum(ratio, 1 / ratio) <= GROWTH)
        score = (1 - PLACE) * likeness + PLACE * overlaps(first.boxes, second.boxes)
        # What is impossible is worth nothing, and so never takes the place of what is possible.
        rows, columns = linear_sum_assignment(np.where(possible, score, 0), maximize=True)
        pairs = zip(rows.tolist(), columns.tolist(), strict=True)
        return [(i, j) for i, j in pairs if possible[i, j]]


def overlaps(
    first: Float[np.ndarray, "K 4"], second: Float[np.ndarray, "L 4"]
) -> Float[np.ndarray, "K L"]:
    """Intersection over union of each pair of boxes, 0..1."""
    a, b = first[:, None], second[None]
    sides = np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2])
    common = np.prod(np.maximum(sides, 0), axis=-1)
    areas = (np.prod(box[..., 2:] - box[..., :2], axis=-1) for box in (a, b))
    return common / (sum(areas) - common)


def by_colors() -> Look:
    """Without a network. What stands in other colours, by a shadow or a light, is told less well,
    and what shares its colours with others by its place alone."""
    about = "colours and boxes (no --dinov2: instances of the same colours are told by place)"
    return Look("colours", about, colors_of)


def colors_of(picture: Picture, masks: Sequence[Region]) -> Float[np.ndarray, "K C"]:
    """Root of the share that each colour has of an instance, so that products are Bhattacharyya's
    coefficients: 1 for the same shares, 0 for none in common."""
    return _unit(np.stack([_shares(picture[mask]) for mask in masks]) ** 0.5)


def _shares(pixels: UInt8[np.ndarray, "n 3"]) -> Float[np.ndarray, "C"]:
    """How much there is of each step of Oklab, some of it in the steps beside."""
    oklab = srgb_to_oklab(pixels[:: max(len(pixels) // SAMPLE, 1)])
    unit = np.clip(oklab * (1, 1.25, 1.25) + (0, 0.5, 0.5), 0, 1)  # a and b are within 0.4 of 0
    counts, _ = np.histogramdd(unit, bins=COLORS, range=[(0, 1)] * 3)
    shares = gaussian_filter(counts, BLUR, mode="constant").ravel()
    return shares / shares.sum()


def _unit(features: Float[np.ndarray, "K C"]) -> Float[np.ndarray, "K C"]:
    """Features of length 1."""
    return features / np.linalg.norm(features, axis=1, keepdims=True)


def by_dinov2(folder: Path) -> Look:
    """By DINOv2 of a model's folder.

    Raises:
        ValueError, OSError: the folder is none of a model, or of one without DINOv2.
    """
    config = read_config(folder).networks.get("dinov2")
    if config is None:
        raise ValueError(
            f"{folder}: expected a folder with DINOv2 (dinov2.safetensors), got none; "
            "`magiccolor convert` makes one of its hub files"
        )
    graph, state = nnx.split(load_network(folder, "dinov2", config))
    program = jax.jit(lambda state, pixels: nnx.merge(graph, state)(pixels))

    def encode(pixels: Float[np.ndarray, "n R R 3"]) -> Any:
        return tuple(map(np.asarray, program(state, pixels)))

    cache, lock = TokenCache(encode, devices=1), threading.Lock()
    sizes = Sizes(reference=PATCHES * config.patch_size, patch=config.patch_size)

    def tokens(pixels: Sequence[Float[np.ndarray, "R R 3"]]) -> list[Float[np.ndarray, "G G C"]]:
        with lock:
            return [patches for _, patches in cache.features(pixels)]

    about = f"DINOv2 and boxes on {jax.local_devices()[0].device_kind}"
    return Look("dinov2", about, functools.partial(_tokens_of, tokens, sizes))


def _tokens_of(
    tokens: Callable[[Sequence[np.ndarray]], list[np.ndarray]],
    sizes: Sizes,
    picture: Picture,
    masks: Sequence[Region],
) -> Float[np.ndarray, "K C"]:
    """Means of the tokens of the patches that are an instance's, in its box on white."""
    inputs, shares = [], []
    for mask in masks:
        box = mask_box(mask)
        assert box is not None, "an instance has a pixel"
        at = slice(box[0], box[2] + 1), slice(box[1], box[3] + 1)
        pixels, fit = reference_pixels(picture[at], mask[at], Recipe.paper(), sizes)
        inputs.append(pixels)
        placed = place(mask[at].astype(np.uint8) * WHITE, fit, 0)
        shares.append(cv2.resize(placed, (PATCHES, PATCHES), interpolation=cv2.INTER_AREA))
    found = zip(tokens(inputs), shares, strict=True)
    return _unit(np.stack([np.tensordot(share, patches, 2) for patches, share in found]))
