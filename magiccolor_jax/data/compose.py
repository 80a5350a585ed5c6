"""Pages composed of packed drawings, each for itself: scene i is a function of the library and i.

One to five drawings stand on white, partly one over another, each turned, bent and in a palette of
its own. On a quarter of the pages two are the same drawing in two palettes, which only references
can tell apart. Each instance is also seen in another picture: the group's other drawing, where
there is one, in the same palette.
"""

import hashlib
import math
import zlib
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import Float, Int, UInt8

from magiccolor_jax.data.art import Art, drawn_box, read_art, render
from magiccolor_jax.data.palette import PalettePlay, draw_recolouring, recolour
from magiccolor_jax.data.pictures import CaseError
from magiccolor_jax.data.scenes import Outline, Scene, View
from magiccolor_jax.data.transforms import WHITE

VERSION = 1
"""Of the pages: raised when the same number gives another one."""

SCENES = {"train": 1 << 18, "objects": 512, "sources": 512}
"""Number of pages of each split."""

COUNTS = {1: 0.08, 2: 0.27, 3: 0.33, 4: 0.22, 5: 0.10}
"""Probability of each number of instances."""

SHOWN = {1: 0.8, 2: 0.56, 3: 0.5, 4: 0.44, 5: 0.4}
"""Longer side of an instance, as a share of the page's, by the number of instances."""

TWINS = 0.25
"""Probability that the first two instances are the same drawing."""

OTHER_DRAWING = 0.85
"""Probability that a reference is another drawing of the group, where there is one."""

COLORS = PalettePlay()
"""How a drawing's palette is changed; twins always are."""

VISIBLE = 0.35
"""Least share of an instance that is seen."""

CROWDED = 0.3
"""Probability that an instance may stand where it happens to, and not where it is free."""

PLACES = 24
"""Random places of which the freest is taken."""

SMALLER, ROUNDS = 0.85, 12
"""Factor of all sizes after a page could not be laid out, and how often that is tried."""

DEGREES, UNEVEN, BEND, KNOTS = 14.0, 0.08, 0.02, (3, 6)
"""Largest rotation and largest logarithm of the sides' ratio; deviation of a bend's knots, as a
share of the longer side, and range of their number along a side."""

INK_GAIN = 1.5
"""Lines thinner than a pixel become a little darker."""

FRINGE = 0.25
"""White around a drawing, as a share of its longer side, for what leaves its box when it turns."""


class Layer(NamedTuple):
    """An instance at its size on the page."""

    color: Float[np.ndarray, "h w 3"]
    """0..255, times alpha."""
    alpha: Float[np.ndarray, "h w"]
    """0..1."""
    ink: Float[np.ndarray, "h w"]
    """0..1."""


class Canvas(NamedTuple):
    """A page in the making; changed in place."""

    target: Float[np.ndarray, "S S 3"]
    ink: Float[np.ndarray, "S S"]
    owner: Int[np.ndarray, "S S"]
    """Number of the instance, from 1; 0: nobody's."""


class Rows(NamedTuple):
    """Rows of the library."""

    shown: int
    """The drawing on the page."""
    other: int
    """The one in the reference."""


class Cast(NamedTuple):
    """Who is on a page."""

    groups: list[int]
    twins: bool
    """The first two are one subject, in two palettes."""
    rng: np.random.Generator
    """For all else on the page."""


class ArtScenes:
    """Pages from the drawings that are trained on."""

    LAYOUT = "a library of drawings, FILE.npz"
    SPLIT = "train"

    def __init__(self, path: Path):
        """Reads a library; raises CaseError where it is none."""
        self.path, self.art = path, read_art(path)
        self.groups = self.art.groups(self.SPLIT)
        if len(self.groups) < max(COUNTS):
            raise CaseError(
                path,
                f"pages show up to {max(COUNTS)} drawings",
                expected=f"at least so many subjects of the split {self.SPLIT!r}",
                got=str(len(self.groups)),
                fix="use a larger library",
            )
        # Between drawings and sources: a small source is seen more often, each of its own less.
        sizes = Counter(self.art.meta[group]["src"] for group in self.groups)
        weights = [sizes[self.art.meta[group]["src"]] ** -0.5 for group in self.groups]
        self.weights = np.divide(weights, sum(weights))
        random = np.random.default_rng([VERSION, zlib.crc32(self.SPLIT.encode())])
        self.counts = random.choice(
            list(COUNTS), SCENES[self.SPLIT], p=list(COUNTS.values())
        ).astype(np.uint8)

    def __len__(self) -> int:
        return len(self.counts)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.path}: {len(self.groups)} subjects)"

    def outline(self, index: int) -> Outline:
        """Size and number of instances."""
        return Outline(self.art.side, self.art.side, int(self.counts[index]))

    def fingerprint(self) -> str:
        """Of what is drawn, and of how it is composed."""
        art = self.art
        found = hashlib.sha256(f"{VERSION} {self.SPLIT} {len(self)} {art.meta}".encode())
        for part in (art.palettes, art.indices, art.lines):
            found.update(zlib.crc32(part.data).to_bytes(4, "big"))
        return found.hexdigest()

    def __getitem__(self, index: int) -> Scene:
        """Composes a page; raises CaseError where its drawings cannot be laid out."""
        groups, twins, rng = self._cast(index)
        palettes = [
            draw_palette(self.art, group, rng, always=twins and number < 2)
            for number, group in enumerate(groups)
        ]
        rows = [_draw_rows(self.art.meta[group], rng) for group in groups]
        if twins:
            rows[1] = rows[1]._replace(shown=rows[0].shown)
        scene = compose(self.art, rows, palettes, rng)
        if scene is None:
            names = ", ".join(self.art.meta[group]["id"] for group in groups)
            raise CaseError(
                self.path / str(index),
                "every drawing of a page is seen",
                expected=f"a way to lay out {names}",
                got=f"none in {ROUNDS} rounds",
                fix="leave drawings of single strokes out of the library",
            )
        return scene._replace(name=str(index), path=self.path / str(index))

    def shown(self, index: int) -> list[str]:
        """The source of each drawing on a page, as the library names it."""
        return [self.art.meta[group]["src"] for group in self._cast(index).groups]

    def _cast(self, index: int) -> Cast:
        """Who is on a page."""
        if not 0 <= index < len(self):
            raise IndexError(f"{self!r}: no scene {index}")
        rng = np.random.default_rng([VERSION, zlib.crc32(self.SPLIT.encode()), index])
        count = int(self.counts[index])
        groups = [int(g) for g in rng.choice(self.groups, count, replace=False, p=self.weights)]
        twins = count > 1 and rng.random() < TWINS
        if twins:
            groups[1] = groups[0]
        return Cast(groups, twins, rng)


class HeldOutObjects(ArtScenes):
    """Pages from held-out subjects of sources that are trained on."""

    SPLIT = "objects"


class HeldOutSources(ArtScenes):
    """Pages from sources that are not trained on."""

    SPLIT = "sources"


def draw_palette(
    art: Art, group: int, rng: np.random.Generator, *, always: bool
) -> UInt8[np.ndarray, "64 3"]:
    """A group's palette, changed or not.

    Args:
        always: change it in any case.
    """
    shown = art.indices[art.meta[group]["first"]]
    palette = art.palettes[group][None]
    play = PalettePlay(probability=1.0) if always else COLORS
    change = draw_recolouring(palette[0][shown[shown > 0]], play, rng)
    return recolour(palette, np.full(palette.shape[:2], 255, np.uint8), change)[0]


def compose(
    art: Art, rows: list[Rows], palettes: list[np.ndarray], rng: np.random.Generator
) -> Scene | None:
    """A page of these drawings, one over another in this order; None where one stays hidden."""
    scale = SHOWN[len(rows)]
    for _ in range(ROUNDS):
        areas, canvas = [], _white(art.side)
        for number, (row, palette) in enumerate(zip(rows, palettes, strict=True), 1):
            longer = art.side * min(scale * math.exp(rng.uniform(-0.22, 0.18)), 0.97)
            layer = warped(art.indices[row.shown], art.lines[row.shown], palette, longer, rng)
            _paint(canvas, layer, number, rng)
            areas.append((layer.alpha > 0.5).sum())
        seen = np.bincount(canvas.owner.ravel(), minlength=len(rows) + 1)[1:]
        if (seen >= VISIBLE * np.array(areas)).all() and seen.min() > 0:
            return _scene(art, rows, palettes, canvas)
        scale *= SMALLER
    return None


def _scene(art: Art, rows: list[Rows], palettes: list[np.ndarray], canvas: Canvas) -> Scene:
    """What was laid out, with another picture of each drawing."""
    lines = np.rint((1 - np.clip(INK_GAIN * canvas.ink, 0, 1)) * WHITE).astype(np.uint8)
    views = [
        View(*render(art.indices[row.other], palette))
        for row, palette in zip(rows, palettes, strict=True)
    ]
    return Scene(
        name="",
        path=Path(),
        target=np.rint(np.clip(canvas.target, 0, WHITE)).astype(np.uint8),
        lines=np.repeat(lines[..., None], 3, axis=2),
        masks=tuple(
            np.where(canvas.owner == number, np.uint8(255), np.uint8(0))
            for number in range(1, len(rows) + 1)
        ),
        views=tuple((view,) for view in views),
    )


def _draw_rows(meta: dict, rng: np.random.Generator) -> Rows:
    """A group's drawings that are used."""
    shown = int(rng.integers(meta["n"]))
    other = shown
    if meta["n"] > 1 and rng.random() < OTHER_DRAWING:
        other = (shown + int(rng.integers(1, meta["n"]))) % meta["n"]
    return Rows(meta["first"] + shown, meta["first"] + other)


def _white(side: int) -> Canvas:
    return Canvas(
        np.full((side, side, 3), WHITE, np.float32),
        np.zeros((side, side), np.float32),
        np.zeros((side, side), np.int32),
    )


def warped(
    indices: UInt8[np.ndarray, "R R"],
    lines: UInt8[np.ndarray, "R R"],
    palette: UInt8[np.ndarray, "64 3"],
    longer: float,
    rng: np.random.Generator,
) -> Layer:
    """A drawing, mirrored, turned, stretched and bent at random.

    Args:
        longer: side of its box before that, in pixels.
    """
    box = drawn_box(indices, lines)
    picture, mask = render(indices[box], palette)
    color = np.where(mask[..., None] > 0, picture, np.uint8(0))
    planes = [np.dstack([color, mask]), WHITE - lines[box]]  # OpenCV takes four at most
    scale = longer / max(mask.shape)
    if scale < 1:  # the whole reduction at once, against aliasing
        size = [max(round(side * scale), 1) for side in mask.shape]
        planes = [cv2.resize(x, size[::-1], interpolation=cv2.INTER_AREA) for x in planes]
        scale = 1.0
    places = _places(planes[0].shape[:2], scale, rng)
    shown, ink = (
        cv2.remap(x, *places, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT).astype(np.float32)
        for x in planes
    )
    return Layer(shown[..., :3], shown[..., 3] / WHITE, ink / WHITE)


def _places(
    shape: tuple[int, int], scale: float, rng: np.random.Generator
) -> tuple[Float[np.ndarray, "h w"], Float[np.ndarray, "h w"]]:
    """Where each pixel of a warped drawing comes from: x and y.

    Args:
        shape: height and width of the drawing.
        scale: its size afterwards.
    """
    angle, uneven = (
        np.radians(rng.uniform(-DEGREES, DEGREES)),
        math.exp(rng.uniform(-UNEVEN, UNEVEN)),
    )
    mirror = 1 if rng.random() < 0.5 else -1
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    back = np.linalg.inv(turn @ np.diag([mirror * scale * uneven, scale / uneven]))
    side = math.ceil(max(shape) * scale * (1 + FRINGE))
    middles = np.arange(side, dtype=np.float32) - (side - 1) / 2
    x, y = np.meshgrid(middles, middles)
    knots = int(rng.integers(*KNOTS))
    bend = rng.normal(0, rng.uniform(0, BEND) * max(shape), (knots, knots, 2)).astype(np.float32)
    bend = cv2.resize(bend, (side, side), interpolation=cv2.INTER_CUBIC)
    found = (
        back[axis, 0] * x + back[axis, 1] * y + (length - 1) / 2 + bend[..., axis]
        for axis, length in enumerate(shape[::-1])
    )
    across, down = (place.astype(np.float32) for place in found)
    return across, down


def _paint(canvas: Canvas, layer: Layer, number: int, rng: np.random.Generator) -> None:
    """Lays an instance where it hides little, or where it happens to."""
    where, part = _free_place(canvas.owner, layer.alpha > 0.5, rng)
    color, alpha, ink = (each[part] for each in layer)
    canvas.target[where] = canvas.target[where] * (1 - alpha[..., None]) + color
    covered = np.maximum(alpha, ink)
    canvas.ink[where] = canvas.ink[where] * (1 - covered) + ink
    canvas.owner[where][alpha > 0.5] = number


Box = tuple[slice, ...]


def _free_place(
    owner: Int[np.ndarray, "S S"], inside: np.ndarray, rng: np.random.Generator
) -> tuple[Box, Box]:
    """Where on the page, and which part of the layer that is: it may stand over the page's edge by
    the white around it."""
    side, own = len(owner), len(inside)
    rim = math.ceil(FRINGE / 2 * own)
    tries = 1 if rng.random() < CROWDED else PLACES
    best, least = None, math.inf
    for _ in range(tries):
        top, left = (int(rng.integers(-rim, max(side - own + rim, 1 - rim))) for _ in range(2))
        where = tuple(slice(max(at, 0), min(at + own, side)) for at in (top, left))
        part = tuple(
            slice(w.start - at, w.stop - at) for w, at in zip(where, (top, left), strict=True)
        )
        hidden = (inside[part] & (owner[where] > 0)).sum() + inside.sum() - inside[part].sum()
        if hidden < least:
            best, least = (where, part), hidden
    assert best is not None, "one place at least was tried"
    return best
