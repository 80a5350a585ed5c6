"""From a scene to a training sample: what is drawn anew every time that a scene is seen.

Everything random comes from one generator, so that a sample is a function of its scene and its
number. Instances are recoloured before references are made of them: both show the same colours.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import Bool, Float32, UInt8

from magiccolor_jax.data.batches import bucket_of, make_batch
from magiccolor_jax.data.cases import owned_pixels
from magiccolor_jax.data.checks import check_range
from magiccolor_jax.data.palette import PalettePlay, draw_recolouring, recolour
from magiccolor_jax.data.pictures import CaseError
from magiccolor_jax.data.scenes import Outline, Scene, View
from magiccolor_jax.data.selfplay import Played, SelfPlay, play
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

PALE, GREY = 120, 8
"""Level above which all channels of a mixture with white lie, and the spread of channels up to
which a pixel is grey."""


@dataclass(frozen=True, kw_only=True)
class Play:
    """What happens to a scene on its way to a sample."""

    flip: float = 0.5
    """Probability of mirroring the page left and right."""
    zoom: tuple[float, float] = (1.0, 1.0)
    """Range of the part of the page that is shown, as a share of its sides; a part begins at a
    random place around some instance's pixel."""
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
    """How references that are cut from the page are changed."""
    views_play: SelfPlay = field(default_factory=SelfPlay)
    """How references that are other pictures are changed."""
    palette: PalettePlay = field(default_factory=PalettePlay)
    """How instances are recoloured, together with their references."""
    sketch: SketchJitter = field(default_factory=SketchJitter)
    """How sketches depart from their common form."""

    def __post_init__(self):
        for name in ("flip", "views", "absent"):
            check_range(f"Play.{name}", getattr(self, name), 0, 1)
        check_range("Play.zoom", self.zoom, 0.05, 1)
        check_range("Play.gamma", self.gamma, 0.1, 10)
        if self.lines not in ("stored", *EXTRACTORS):
            raise ValueError(
                f"Play.lines: expected 'stored' or an extractor {sorted(EXTRACTORS)}, "
                f"got {self.lines!r}"
            )

    def calm(self) -> "Play":
        """For measuring: true colours, whole sketches, another picture as it is where there is one;
        what is cut from the page itself is still played with, or it would show the answer."""
        off = Play.off()
        fields = ("flip", "zoom", "gamma", "views", "views_play", "absent", "palette", "sketch")
        return replace(self, **{name: getattr(off, name) for name in fields})

    @classmethod
    def off(cls) -> "Play":
        """Scenes as they are stored."""
        return cls(
            flip=0.0,
            zoom=(1.0, 1.0),
            gamma=(1.0, 1.0),
            views=1.0,
            absent=0.0,
            selfplay=SelfPlay.off(),
            views_play=SelfPlay.off(),
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

    def __call__(
        self, scene: Scene, rng: np.random.Generator, shape: Shape | None = None
    ) -> TrainingBatch:
        """A batch of one.

        Args:
            shape: that the sample must have; default the scene's own.

        Raises:
            CaseError: no instance of the scene can be seen, or a view shows none.
        """
        scene = _zoomed(scene, self.play.zoom, rng)
        height, width = scene.target.shape[:2]
        own = self.shape_of(Outline(height, width, len(scene.masks)))
        if shape is not None and shape.page != own.page:
            scene = _widened(scene, shape.page)
        bucket = (shape or own).instances
        mirrored = rng.random() < self.play.flip
        scene = _shrink(scene, self.sizes)
        scene = _mirrored(scene) if mirrored else scene
        lines = self._lines(scene)
        chosen = self._choose(scene, min(bucket, self.instances), rng)
        target, views = self._recolour(scene, chosen, rng)
        levels = _gamma_table(rng.uniform(*self.play.gamma))
        target = levels[target]
        played = []
        for (mask, _), view in zip(chosen, views, strict=True):
            if view is None:
                played.append(play(target, mask, self.play.selfplay, rng, disguise=True))
            else:
                played.append(play(levels[view.picture], view.mask, self.play.views_play, rng))
        references = [each.reference for each in played]
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
            case, self.recipe, self.sizes, bucket=bucket, seed=seed, jitter=jitter, report=False
        )
        truth = to_signed(place(target, prepared.fit, WHITE))
        return TrainingBatch(prepared.batch, truth[None], *self._patches(played, bucket))

    def _lines(self, scene: Scene) -> Picture:
        """The page's line art, of its original colours: an extractor must not see the new ones."""
        if self.play.lines == "stored" and scene.lines is not None:
            return scene.lines
        name = "xdog" if self.play.lines == "stored" else self.play.lines
        return np.repeat(EXTRACTORS[name](scene.target)[..., None], 3, axis=-1)

    def _choose(
        self, scene: Scene, most: int, rng: np.random.Generator
    ) -> list[tuple[Mask, View | None]]:
        """Masks, of owned pixels alone, and views of the instances that the sample tells of.

        Args:
            most: instances.
        """
        owned = owned_pixels(scene.masks)
        if self.instances == 1:
            owned, pool = [np.any(owned, axis=0)], [_shared_views(scene.views)]
        else:
            pool = [list(views) for views in scene.views]
        seen = [i for i, mask in enumerate(owned) if mask.any()]
        if not seen:
            raise CaseError(
                scene.path,
                "a training page shows at least one instance",
                expected=f"a mask with a value above {WHITE // 2} where no later mask has one",
                got=f"masks whose largest values are {[int(m.max()) for m in scene.masks]}",
                fix="export masks as 0 and 255, mend them, or leave the scene out",
            )
        kept = [i for i in seen if rng.random() >= self.play.absent] or [seen[0]]
        picks = sorted(rng.choice(len(kept), min(most, len(kept)), replace=False))
        chosen = []
        for index in (kept[i] for i in picks):
            views = pool[index]
            takes = views and rng.random() < self.play.views
            view = views[int(rng.integers(len(views)))] if takes else None
            if view is not None:
                _check_view(scene, index, view)
            chosen.append((np.where(owned[index], np.uint8(255), np.uint8(0)), view))
        return chosen

    def _recolour(
        self,
        scene: Scene,
        chosen: Sequence[tuple[Mask, View | None]],
        rng: np.random.Generator,
    ) -> tuple[Picture, list[View | None]]:
        """Each instance in new colours, on the page and in its view alike."""
        target, views = scene.target, []
        fringe = _fringe(scene) if self.play.palette.probability else None
        for mask, view in chosen:
            recolouring = draw_recolouring(target[mask > 0], self.play.palette, rng)
            if fringe is not None:
                mask = np.where(fringe & _grown(mask), np.uint8(255), mask)
            target = recolour(target, mask, recolouring)
            if view is not None:
                view = View(recolour(view.picture, view.mask, recolouring), view.mask)
            views.append(view)
        return target, views

    def _patches(
        self, played: Sequence[Played], bucket: int
    ) -> tuple[Bool[np.ndarray, "1 K G G"], Float32[np.ndarray, "1 K G G 3"]]:
        """Which DINOv2 patches of each reference are mostly of its instance, and the instance's own
        mean colour there, [-1, 1]: without the white around it, and as the page has it."""
        sizes, grid = self.sizes, self.sizes.grid
        counts = np.zeros((1, bucket, grid, grid), bool)
        colors = np.zeros((*counts.shape, 3), np.float32)
        cut = (grid, sizes.patch, grid, sizes.patch)
        for index, ((_, mask), truth) in enumerate(played):
            fit = fit_inside(mask.shape, (sizes.reference, sizes.reference))
            share = place(mask, fit, 0).reshape(*cut, 1) / np.float32(WHITE)
            shown = to_signed(place(truth, fit, WHITE)).reshape(*cut, 3)
            area = share.sum(axis=(1, 3))
            # White is 1, and what is not the instance's share of a pixel is white.
            colors[0, index] = (shown - (1 - share)).sum(axis=(1, 3)) / np.maximum(area, 1)
            counts[0, index] = area[..., 0] > sizes.patch**2 / 2
        return counts, colors


def join(samples: Sequence[TrainingBatch]) -> TrainingBatch:
    """One batch of samples of one shape."""
    case = Batch(*(np.concatenate(x) for x in zip(*(s.case for s in samples), strict=True)))
    return TrainingBatch(
        case,
        np.concatenate([s.target for s in samples]),
        np.concatenate([s.counts for s in samples]),
        np.concatenate([s.colors for s in samples]),
    )


def _shared_views(views: Sequence[Sequence[View]]) -> list[View]:
    """Pictures that show all instances, each with the masks of all of them."""
    shared = []
    for (picture, mask), *others in zip(*views, strict=False):
        if all(np.array_equal(picture, other.picture) for other in others):
            masks = [mask, *(other.mask for other in others)]
            shared.append(View(picture, np.max(masks, axis=0)))
    return shared


def _check_view(scene: Scene, index: int, view: View) -> None:
    """Raises CaseError where a view shows nothing of its instance."""
    if (view.mask <= WHITE / 2).all():
        raise CaseError(
            scene.path,
            "another picture of an instance shows it",
            expected=f"a reference mask (or alpha) with values above {WHITE // 2}",
            got=f"at most {int(view.mask.max())} for instance {index + 1}",
            fix="export masks as 0 and 255, mend them, or leave the scene out",
        )


def _widened(scene: Scene, page: tuple[int, int]) -> Scene:
    """A scene in the proportions of a page: with white below or at the right of it."""
    height, width = scene.target.shape[:2]
    wide = max(width, round(height * page[1] / page[0]))
    high = max(height, round(wide * page[0] / page[1]))
    rim = (0, high - height), (0, wide - width)

    def white(picture: Picture) -> UInt8[np.ndarray, "h w 3"]:
        return np.pad(picture, (*rim, (0, 0)), constant_values=WHITE)

    return scene._replace(
        target=white(scene.target),
        lines=None if scene.lines is None else white(scene.lines),
        masks=tuple(np.pad(mask, rim) for mask in scene.masks),
    )


def _zoomed(scene: Scene, shares: tuple[float, float], rng: np.random.Generator) -> Scene:
    """A part of a scene's page, in its proportions, that shows some instance; views stay whole."""
    shown = np.flatnonzero(np.any([mask > WHITE / 2 for mask in scene.masks], axis=0))
    if shares == (1.0, 1.0) or not shown.size:
        return scene
    share, shape = rng.uniform(*shares), scene.target.shape[:2]
    place = np.unravel_index(shown[rng.integers(shown.size)], shape)
    part = []
    for at, side in zip(place, shape, strict=True):
        length = max(round(share * side), 1)
        first = int(rng.integers(max(at - length + 1, 0), min(at, side - length) + 1))
        part.append(slice(first, first + length))
    window = tuple(part)
    return scene._replace(
        target=scene.target[window],
        lines=None if scene.lines is None else scene.lines[window],
        masks=tuple(mask[window] for mask in scene.masks),
    )


def _fringe(scene: Scene) -> Bool[np.ndarray, "H W"]:
    """Pale coloured pixels that no mask marks: what an instance's edge mixed with white left."""
    nobody = ~np.any([mask > WHITE / 2 for mask in scene.masks], axis=0)
    least, most = scene.target.min(axis=2), scene.target.max(axis=2)
    return nobody & (least > PALE) & (most - least > GREY)


def _grown(mask: Mask) -> Bool[np.ndarray, "H W"]:
    """A mask and the pixels at its edge."""
    return cv2.dilate(mask, np.ones((5, 5), np.uint8)) > 0


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


def _gamma_table(gamma: float) -> UInt8[np.ndarray, "256"]:
    """Level -> level ** gamma, black and white kept."""
    return np.rint((np.arange(256) / WHITE) ** gamma * WHITE).astype(np.uint8)
