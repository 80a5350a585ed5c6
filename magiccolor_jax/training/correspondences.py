"""What a reference encoder learns from: two views of one drawing, and which part is which.

Both are made as references are (`data.selfplay`). The same changes are made to a picture of the
drawing's own coordinates, so that what each patch shows is known exactly.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Float32, UInt8

from magiccolor_jax.data.scenes import Scene, Source, View
from magiccolor_jax.data.selfplay import SelfPlay, play
from magiccolor_jax.data.transforms import WHITE, place, reference_pixels
from magiccolor_jax.recipe import Recipe
from magiccolor_jax.training.crops import draw_scene
from magiccolor_jax.types import Sizes

SEED = 4
"""Begins the seeds of views."""

COVERED = 0.5
"""Least share of a patch that the drawing covers."""

SCATTERED = 0.5
"""Largest deviation of the coordinates in a patch, in patches: beyond, it shows several parts."""


class Pairs(NamedTuple):
    """Two views of each of B drawings."""

    pixels: Float32[np.ndarray, "2 B R R 3"]
    """As DINOv2 sees them."""
    places: Float32[np.ndarray, "2 B g g 2"]
    """What each patch shows: the drawing's y and x, as shares of its longer side; infinite where
    it is nothing or several parts."""


class Correspondences(NamedTuple):
    """Number of a step -> its pairs: what Grain's threads run."""

    source: Source
    seed: int
    """Of everything random."""
    batch: int
    """Drawings per step."""
    sizes: Sizes
    """Of references and patches."""
    views: SelfPlay
    """How a view departs from the drawing."""

    def __call__(self, step: int) -> Pairs:
        """Views of drawings of a few scenes, all of each scene's."""
        rng = np.random.default_rng([SEED, self.seed, step])
        drawings: list[View] = []
        while len(drawings) < self.batch:
            drawings += _drawings(draw_scene(self.source, rng))
        made = [[self._view(view, rng) for view in drawings[: self.batch]] for _ in range(2)]
        pixels, places = (
            np.stack([[view[part] for view in side] for side in made]) for part in (0, 1)
        )
        return Pairs(pixels, places)

    def _view(
        self, view: View, rng: np.random.Generator
    ) -> tuple[Float32[np.ndarray, "R R 3"], Float32[np.ndarray, "g g 2"]]:
        seed = int(rng.integers(1 << 62))
        shown, where = (
            play(picture, view.mask, self.views, np.random.default_rng(seed))
            for picture in (view.picture, coordinates(view.mask.shape))
        )
        counts = shown.reference.mask > WHITE // 2
        pixels, fit = reference_pixels(shown.reference.picture, counts, Recipe.paper(), self.sizes)
        unit = counts[..., None] * where.truth[..., :2].astype(np.float32) / WHITE
        planes = counts.astype(np.float32), unit, np.square(unit)
        covered, sums, squares = (_patches(place(x, fit, 0), self.sizes) for x in planes)
        share = np.maximum(covered, 1e-6)
        middle = sums / share
        spread = np.sqrt(np.maximum(squares / share - np.square(middle), 0)).max(-1, keepdims=True)
        known = (covered >= COVERED) & (spread * self.sizes.grid < SCATTERED)
        return pixels, np.where(known, middle, np.inf).astype(np.float32)


def coordinates(shape: tuple[int, int]) -> UInt8[np.ndarray, "H W 3"]:
    """A picture of y and x, 0..255 along the longer side."""
    unit = np.indices(shape, np.float32) / max(max(shape) - 1, 1)
    return np.dstack([*np.rint(unit * WHITE), np.zeros(shape)]).astype(np.uint8)


def _drawings(scene: Scene) -> list[View]:
    """Pictures of the scene's instances: others of them, else the page's own."""
    own = [View(scene.target, mask) for mask in scene.masks]
    others = scene.views or ((),) * len(own)
    return [view for one, views in zip(own, others, strict=True) for view in views or (one,)]


def _patches(plane: Float[np.ndarray, "R R *C"], sizes: Sizes) -> Float[np.ndarray, "g g C"]:
    """Means of each patch."""
    grid, patch = sizes.grid, sizes.patch
    return plane.reshape(grid, patch, grid, patch, -1).mean(axis=(1, 3))
