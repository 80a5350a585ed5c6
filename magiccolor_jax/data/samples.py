"""From a scene to a training sample: what is drawn anew every time that a scene is seen.

Everything random comes from one generator, so that a sample is a function of its scene and its
number. Instances are recoloured before references are made of them: both show the same colours.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, UInt8

from magiccolor_jax.data.batches import bucket_of, make_batch
from magiccolor_jax.data.checks import check_range
from magiccolor_jax.data.palette import PalettePlay, draw_recolouring, recolour
from magiccolor_jax.data.pictures import CaseError
from magiccolor_jax.data.scenes import Outline, Scene, View
from magiccolor_jax.data.selfplay import SelfPlay, make_reference
from magiccolor_jax.data.sketches import SketchJitter
from magiccolor_jax.data.transforms import (
    WHITE,
    Mask,
    Picture,
    fit_inside,
    fit_page,
    place,
    resize,
    to_signed,
)
from magiccolor_jax.lineart import EXTRACTORS
from magiccolor_jax.recipe import Recipe
from magiccolor_jax.types import Batch, Case, Sizes, TrainingBatch

WORKING_SIDE = 1.5
"""Longest side, in model pages, at which scenes are played with: larger ones are shrunk first."""

INK, PAPER = 0, 255


@dataclass(frozen=True, kw_only=True)
class Play:
    """What happens to a scene on its way to a sample."""

    flip: float = 0.5
    """Probability of mirroring the page left and right."""
    gamma: tuple[float, float] = (0.8, 1.25)
    """Range of the brightness jitter's exponent, alike on page and references: white stays white,
    for no reference tells a page's background."""
    lines: str = "stored"
    """`stored`: the scene's own line layer, where it has none the extractor `xdog`; or the name of
    an extractor for all scenes."""
    views: float = 0.5
    """Probability that a reference is another picture of its instance, where there is one."""
    absent: float = 0.05
    """Probability that an instance is left out: the page shows it, no reference tells of it."""
    selfplay: SelfPlay = field(default_factory=SelfPlay)
    """How references are changed."""
    palette: PalettePlay = field(default_factory=PalettePlay)
    """How instances are recoloured, together with their references."""
    sketch: SketchJitter = field(default_factory=SketchJitter)
    """How sketches depart from their common form."""

    def __post_init__(self):
        for name in ("flip", "views", "absent"):
            check_range(f"Play.{name}", getattr(self, name), 0, 1)
        check_range("Play.gamma", self.gamma, 0.1, 10)
        if self.lines not in ("stored", *EXTRACTORS):
            raise ValueError(
                f"Play.lines: expected 'stored' or an extractor {sorted(EXTRACTORS)}, "
                f"got {self.lines!r}"
            )

    def calm(self) -> "Play":
        """For measuring: true colours, whole sketches, another picture where there is one; what is
        cut from the page itself is still played with, or it would show the answer."""
        off = Play.off()
        fields = ("flip", "gamma", "views", "absent", "palette", "sketch")
        return replace(self, **{name: getattr(off, name) for name in fields})

    @classmethod
    def off(cls) -> "Play":
        """Scenes as they are stored."""
        return cls(
            flip=0.0,
            gamma=(1.0, 1.0),
            views=1.0,
            absent=0.0,
            selfplay=SelfPlay.off(),
            palette=PalettePlay(probability=0.0),
            sketch=SketchJitter.off(),
        )


class Shape(NamedTuple):
    """What batches are grouped by, for programs are compiled once for each."""

    page: tuple[int, int]
    """Height and width of the page's bucket."""
    instances: int
    """Bucket of K."""


class Maker:
    """Makes samples of one recipe and size."""

    def __init__(self, play: Play, recipe: Recipe, sizes: Sizes, *, instances: int):
        """Args:
        instances: most on a page; 1 takes all instances of a page together as one (stage 1).
        """
        self.play, self.recipe, self.sizes, self.instances = play, recipe, sizes, instances

    def shape_of(self, outline: Outline) -> Shape:
        """The shape that every sample of a scene has."""
        size = _working_size((outline.height, outline.width), self.sizes)
        page = fit_page(size, self.recipe, self.sizes).bucket
        return Shape(page, bucket_of(min(outline.instances, self.instances)))

    def __call__(self, scene: Scene, rng: np.random.Generator) -> TrainingBatch:
        """A batch of one.

        Raises:
            CaseError: no instance of the scene can be seen.
        """
        height, width = scene.target.shape[:2]
        bucket = self.shape_of(Outline(height, width, len(scene.masks))).instances
        scene = _shrink(_mirrored(scene) if rng.random() < self.play.flip else scene, self.sizes)
        lines = self._lines(scene)
        chosen = self._choose(scene, rng)
        target, views = self._recolour(scene.target, chosen, rng)
        levels = _gamma_table(rng.uniform(*self.play.gamma))
        target = levels[target]
        references = []
        for (mask, _), view in zip(chosen, views, strict=True):
            shown = (target, mask) if view is None else (levels[view.picture], view.mask)
            references.append(make_reference(*shown, self.play.selfplay, rng))
        case = Case(
            name=scene.name,
            path=scene.path,
            layout="magiccolor",
            sketch=lines,
            references=tuple(reference.picture for reference in references),
            reference_masks=tuple(reference.mask for reference in references),
            sketch_masks=tuple(mask for mask, _ in chosen),
            target=target,
        )
        seed = int(rng.integers(2**32))
        jitter = None if self.play.sketch == SketchJitter.off() else self.play.sketch
        prepared = make_batch(
            case, self.recipe, self.sizes, bucket=bucket, seed=seed, jitter=jitter
        )
        truth = to_signed(place(target, prepared.fit, WHITE))
        return TrainingBatch(prepared.batch, truth[None], self._counts(case, bucket)[None])

    def _lines(self, scene: Scene) -> Picture:
        """The page's line art, of its original colours: an extractor must not see the new ones."""
        if self.play.lines == "stored" and scene.lines is not None:
            return scene.lines
        name = "xdog" if self.play.lines == "stored" else self.play.lines
        return np.repeat(EXTRACTORS[name](scene.target)[..., None], 3, axis=-1)

    def _choose(self, scene: Scene, rng: np.random.Generator) -> list[tuple[Mask, View | None]]:
        """Masks, of owned pixels alone, and views of the instances that the sample tells of."""
        owned = _owned(scene.masks)
        if self.instances == 1:
            views = [view for views in scene.views for view in views] if len(owned) == 1 else []
            together = np.any(owned, axis=0)
            owned, pool = [together], [views]
        else:
            pool = [list(views) for views in scene.views]
        seen = [i for i, mask in enumerate(owned) if mask.any()]
        if not seen:
            raise CaseError(
                scene.path,
                "a training page shows at least one instance",
                expected="a mask that marks a pixel which no later mask covers",
                got=f"{len(scene.masks)} masks without any",
                fix="mend the masks or leave the scene out",
            )
        kept = [i for i in seen if rng.random() >= self.play.absent] or [seen[0]]
        most = min(self.instances, len(kept))
        picks = sorted(rng.choice(len(kept), most, replace=False))
        chosen = []
        for index in (kept[i] for i in picks):
            views = pool[index]
            takes = views and rng.random() < self.play.views
            view = views[int(rng.integers(len(views)))] if takes else None
            chosen.append((np.where(owned[index], np.uint8(255), np.uint8(0)), view))
        return chosen

    def _recolour(
        self,
        target: Picture,
        chosen: Sequence[tuple[Mask, View | None]],
        rng: np.random.Generator,
    ) -> tuple[Picture, list[View | None]]:
        """Each instance in new colours, on the page and in its view alike."""
        views = []
        for mask, view in chosen:
            recolouring = draw_recolouring(target[mask > 0], self.play.palette, rng)
            target = recolour(target, mask, recolouring)
            if view is not None:
                view = View(recolour(view.picture, view.mask, recolouring), view.mask)
            views.append(view)
        return target, views

    def _counts(self, case: Case, bucket: int) -> Bool[np.ndarray, "K G G"]:
        """Which DINOv2 patches of each reference are mostly of its instance."""
        sizes, grid = self.sizes, self.sizes.grid
        counts = np.zeros((bucket, grid, grid), bool)
        for index, mask in enumerate(case.reference_masks):
            fit = fit_inside(mask.shape, (sizes.reference, sizes.reference))
            patches = place(mask, fit, 0).reshape(grid, sizes.patch, grid, sizes.patch)
            counts[index] = patches.mean(axis=(1, 3)) > WHITE / 2
        return counts


def join(samples: Sequence[TrainingBatch]) -> TrainingBatch:
    """One batch of samples of one shape."""
    case = Batch(*(np.concatenate(x) for x in zip(*(s.case for s in samples), strict=True)))
    return TrainingBatch(
        case,
        np.concatenate([s.target for s in samples]),
        np.concatenate([s.counts for s in samples]),
    )


def _working_size(shape: tuple[int, int], sizes: Sizes) -> tuple[int, int]:
    """Height and width at which a scene is played with."""
    scale = min(1.0, WORKING_SIDE * sizes.page / max(shape))
    return max(1, round(shape[0] * scale)), max(1, round(shape[1] * scale))


def _shrink(scene: Scene, sizes: Sizes) -> Scene:
    """A large scene, and its views, at the working size."""
    pages = [p for p in (scene.target, scene.lines) if p is not None]
    size = _working_size(pages[0].shape[:2], sizes)
    if size != pages[0].shape[:2]:
        small = [np.rint(resize(page, *size)).astype(np.uint8) for page in pages]
        masks = tuple(_shrink_mask(mask, size) for mask in scene.masks)
        scene = scene._replace(
            target=small[0], lines=small[1] if len(small) > 1 else None, masks=masks
        )
    views = tuple(tuple(_shrink_view(view, sizes) for view in views) for views in scene.views)
    return scene._replace(views=views)


def _shrink_view(view: View, sizes: Sizes) -> View:
    size = _working_size(view.mask.shape, sizes)
    if size == view.mask.shape:
        return view
    picture = np.rint(resize(view.picture, *size)).astype(np.uint8)
    return View(picture, _shrink_mask(view.mask, size))


def _shrink_mask(mask: Mask, size: tuple[int, int]) -> UInt8[np.ndarray, "h w"]:
    return np.where(resize(mask, *size) > WHITE / 2, np.uint8(255), np.uint8(0))


def _mirrored(scene: Scene) -> Scene:
    """A scene's page mirrored; its views stay."""
    lines = scene.lines
    return scene._replace(
        target=np.ascontiguousarray(scene.target[:, ::-1]),
        lines=None if lines is None else np.ascontiguousarray(lines[:, ::-1]),
        masks=tuple(np.ascontiguousarray(mask[:, ::-1]) for mask in scene.masks),
    )


def _owned(masks: Sequence[Mask]) -> list[Bool[np.ndarray, "H W"]]:
    """Each instance's own pixels: the higher id wins."""
    taken = np.zeros(masks[0].shape, bool)
    owned = []
    for mask in reversed(masks):
        marked = mask > WHITE / 2
        owned.append(marked & ~taken)
        taken |= marked
    return owned[::-1]


def _gamma_table(gamma: float) -> UInt8[np.ndarray, "256"]:
    """Level -> level ** gamma, black and white kept."""
    return np.rint((np.arange(256) / WHITE) ** gamma * WHITE).astype(np.uint8)
