"""What an autoencoder learns from: crops of scenes' pages and of their references."""

from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8

from magiccolor_jax.data.pictures import CaseError
from magiccolor_jax.data.scenes import Scene, Source
from magiccolor_jax.data.transforms import WHITE, resize

CROPS = 3
"""Begins the seeds of crops."""

PER_SCENE = 4
"""Crops of each scene: composing one takes longer than a step on a few crops."""

LARGEST = 1.5
"""Largest reference that crops are cut from, in pages: they are drawn larger than they are shown;
the smallest picture of both is half a page."""

ATTEMPTS = 8
"""Scenes that are tried for one."""


class Crops(NamedTuple):
    """Number of a step -> its crops: what Grain's threads run."""

    source: Source
    seed: int
    """Of everything random."""
    batch: int
    """Crops per step."""
    page: int
    """Largest longest side at which pages are shown, in pixels."""
    side: int
    """Of a crop, in pixels."""

    def __call__(self, step: int) -> UInt8[np.ndarray, "B S S 3"]:
        """Parts of a few scenes' pages, or of pictures of their instances."""
        rng = np.random.default_rng([CROPS, self.seed, step])
        crops = []
        while len(crops) < self.batch:
            scene = draw_scene(self.source, rng)
            count = min(PER_SCENE, self.batch - len(crops))
            crops += [self._crop(scene, rng) for _ in range(count)]
        return np.stack(crops)

    def _crop(self, scene: Scene, rng: np.random.Generator) -> UInt8[np.ndarray, "S S 3"]:
        """As often of the page as of a reference, whatever their numbers."""
        views = [view.picture for views in scene.views for view in views]
        shown = [scene.target, *views]
        which = 0 if rng.random() < 0.5 else int(rng.integers(len(shown)))
        longest = self.page * rng.uniform(0.5, LARGEST if which else 1.0)
        return _crop(shown[which], longest, self.side, rng)


def draw_scene(source: Source, rng: np.random.Generator) -> Scene:
    """One that can be read; raises CaseError where too many in a row cannot."""
    for attempt in range(ATTEMPTS):
        try:
            return source[int(rng.integers(len(source)))]
        except CaseError:
            if attempt == ATTEMPTS - 1:
                raise
    raise AssertionError("the last attempt returns or raises")


def _crop(
    picture: UInt8[np.ndarray, "H W 3"], longest: float, side: int, rng: np.random.Generator
) -> UInt8[np.ndarray, "S S 3"]:
    """A square of a picture whose longest side is brought to that many pixels at most."""
    height, width = picture.shape[:2]
    scale = min(1.0, longest / max(height, width))
    size = [max(round(length * scale), 1) for length in (height, width)]
    small = np.rint(resize(picture, *size)).astype(np.uint8)
    missing = [max(side - length, 0) for length in size]
    around = [(m // 2, m - m // 2) for m in missing]
    small = np.pad(small, (*around, (0, 0)), constant_values=WHITE)
    top, left = (int(rng.integers(length - side + 1)) for length in small.shape[:2])
    return np.ascontiguousarray(small[top : top + side, left : left + side])
