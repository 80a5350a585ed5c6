"""Pages with known colours: small case folders composed from openly licensed drawings.

Each page shows two or three drawings on white, and each instance has a reference of its own: the
same drawing in the same colours, mirrored, turned, bent and scaled. On every other page the first
two instances are the same drawing in two palettes, which only the references can tell apart.
"""

import functools
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import tyro
from jaxtyping import Int, UInt8
from PIL import Image

from magiccolor_jax.data.art import Art, drawn_box, read_art, render
from magiccolor_jax.data.compose import Layer
from magiccolor_jax.data.palette import PalettePlay, draw_recolouring, recolour
from magiccolor_jax.data.selfplay import Reference, SelfPlay, make_reference
from magiccolor_jax.evaluation.palettes import distance, palette_of
from magiccolor_jax.files import atomic_directory

WHITE = 255

COLOURS = PalettePlay(probability=1.0, clusters=3, lightness=0.08, tint=0.0)
"""How an instance's palette departs from its drawing's."""

VIEW = SelfPlay(
    flip=0.5,
    rotate=1.0,
    degrees=(-8.0, 8.0),
    rescale=1.0,
    factor=(1.2, 1.9),
    warp=1.0,
    bend=0.02,
    occlude=0.0,
    jitter=0.0,
    shuffle=0.0,
)
"""How a reference departs from its instance."""

APART = 9.0
"""Least distance of the palettes of a page, in hundredths of Oklab."""

SHOWN = (0.5, 0.6)
"""Range of an instance's longer side, as a share of the page's."""

OVERLAP = 0.02
"""Largest share of an instance that may lie over others."""

TRIES = 400
"""Random positions, or palettes, that are tried before the next best is taken, or all begins anew.
"""


@dataclass(frozen=True, kw_only=True)
class Args:
    """Composes case folders."""

    art: Path
    """Drawings, as scripts/build_art.py packs them: palettes, index pictures, line art, `meta`."""
    out: Path = Path("runs/overfit/cases")
    """Folder for the cases."""
    count: int = 8
    """Number of pages."""
    side: int = 128
    """Side of a page in pixels."""
    seed: int = 0
    """The same seed gives the same pages."""


class Page(NamedTuple):
    """A composed page, 0..255."""

    sketch: UInt8[np.ndarray, "H W"]
    target: UInt8[np.ndarray, "H W 3"]
    masks: list[UInt8[np.ndarray, "H W"]]
    references: list[Reference]
    groups: list[int]


def colourful(art: Art) -> list[int]:
    """Groups whose colours can be told: little ink, much chroma, no more than a few colours."""
    return [
        number
        for number, m in enumerate(art.meta)
        if m["chr"] > 0.6
        and m["ink"] < 0.2
        and m["fill"] > 0.4
        and 0.7 < m["asp"] < 1.4
        and 3 <= m["ncol"] <= 9
        and m["src"] != "dicebear-open-peeps"
    ]


def compose(art: Art, side: int, twins: bool, rng: np.random.Generator) -> Page:
    """Draws one page.

    Args:
        twins: the first two instances are the same drawing.
    """
    choices = colourful(art)
    while True:
        count = int(rng.integers(2, 4))
        groups = [int(g) for g in rng.choice(choices, count, replace=False)]
        if twins:
            groups[1] = groups[0]
        palettes = _draw_palettes(art, groups, rng)
        page = None if palettes is None else _lay_out(art, groups, palettes, side, rng)
        if page is not None:
            return page


def _draw_palettes(
    art: Art, groups: list[int], rng: np.random.Generator
) -> list[UInt8[np.ndarray, "64 3"]] | None:
    """Palettes that clearly differ, or None where none were found."""
    chosen: list[np.ndarray] = []
    looks: list = []
    for group in groups:
        shown = art.indices[art.meta[group]["first"]]
        inside = shown[shown > 0]
        for _ in range(TRIES):
            change = draw_recolouring(art.palettes[group][inside], COLOURS, rng)
            row = art.palettes[group][None]
            new = recolour(row, np.full(row.shape[:2], 255, np.uint8), change)[0]
            look = palette_of(new[inside])
            apart = (min(distance(look, x), distance(x, look)) for x in looks)
            if all(gap >= APART for gap in apart):
                chosen.append(new)
                looks.append(look)
                break
        else:
            return None
    return chosen


def _lay_out(
    art: Art,
    groups: list[int],
    palettes: list[UInt8[np.ndarray, "64 3"]],
    side: int,
    rng: np.random.Generator,
) -> Page | None:
    """Places the instances one over another; None where they would hide one another."""
    target = np.full((side, side, 3), WHITE, np.float32)
    ink = np.zeros((side, side), np.float32)
    owner = np.zeros((side, side), np.int32)
    references = []
    for number, (group, palette) in enumerate(zip(groups, palettes, strict=True), 1):
        row = art.meta[group]["first"]
        layer = _layer(art.indices[row], art.lines[row], palette, _size(len(groups), side, rng))
        if rng.random() < 0.5:
            layer = Layer(*(np.ascontiguousarray(x[:, ::-1]) for x in layer))
        at = _free_place(layer, owner, rng)
        if at is None:
            return None
        alpha = layer.alpha[..., None]
        target[at] = target[at] * (1 - alpha) + layer.color
        covered = np.maximum(layer.alpha, layer.ink)
        ink[at] = ink[at] * (1 - covered) + layer.ink
        owner[at][layer.alpha > 0.5] = number
        picture, mask = render(art.indices[row], palette)
        references.append(make_reference(picture, mask, VIEW, rng))
    sketch = np.rint((1 - np.clip(1.5 * ink, 0, 1)) * WHITE).astype(np.uint8)
    masks = [np.where(owner == n, 255, 0).astype(np.uint8) for n in range(1, len(groups) + 1)]
    return Page(sketch, np.rint(target).astype(np.uint8), masks, references, groups)


def _size(count: int, side: int, rng: np.random.Generator) -> int:
    """Longer side of an instance in pixels."""
    return round(side * rng.uniform(*SHOWN) * math.sqrt(2 / count))


def _layer(
    indices: UInt8[np.ndarray, "R R"],
    lines: UInt8[np.ndarray, "R R"],
    palette: UInt8[np.ndarray, "64 3"],
    longer: int,
) -> Layer:
    """A drawing cut to its box and brought to its size."""
    picture, mask = render(indices, palette)
    box = drawn_box(indices, lines)
    alpha = mask[box].astype(np.float32) / 255
    scale = longer / max(alpha.shape)
    size = (round(alpha.shape[1] * scale), round(alpha.shape[0] * scale))
    resized = functools.partial(cv2.resize, dsize=size, interpolation=cv2.INTER_AREA)
    ink = 1 - lines[box].astype(np.float32) / 255
    color = resized(picture[box] * alpha[..., None])
    return Layer(color=color, alpha=resized(alpha), ink=resized(ink))


def _free_place(
    layer: Layer, owner: Int[np.ndarray, "H W"], rng: np.random.Generator
) -> tuple[slice, slice] | None:
    """A random place where the instance hardly lies over others."""
    height, width = layer.alpha.shape
    inside = layer.alpha > 0.5
    for _ in range(TRIES):
        top = int(rng.integers(owner.shape[0] - height + 1))
        left = int(rng.integers(owner.shape[1] - width + 1))
        at = slice(top, top + height), slice(left, left + width)
        if (inside & (owner[at] > 0)).sum() <= OVERLAP * inside.sum():
            return at
    return None


def write_case(folder: Path, page: Page, art: Art) -> Path:
    """Writes a page in this project's layout, with what it is made of in provenance.json.

    Raises:
        FileExistsError: the folder exists.
    """
    drawn = [{key: art.meta[g][key] for key in ("id", "src", "lic")} for g in page.groups]
    with atomic_directory(folder) as new:
        _save(new / "sketch.png", page.sketch)
        _save(new / "target.png", page.target)
        for number, (mask, reference) in enumerate(zip(page.masks, page.references, strict=True)):
            name = f"{number + 1}.png"
            _save(new / "sketch_masks" / name, mask)
            _save(new / "references" / name, reference.picture)
            _save(new / "reference_masks" / name, reference.mask)
        (new / "provenance.json").write_text(json.dumps(drawn, indent=1) + "\n")
    return folder


def _save(path: Path, pixels: UInt8[np.ndarray, "H W *C"]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def compose_cases(args: Args) -> list[Path]:
    """Writes the cases that are not there yet, and returns the folders of all."""
    art = read_art(args.art)
    folders = []
    for number in range(args.count):
        folder = args.out / f"page_{number}"
        if folder.exists():
            folders.append(folder)
            continue
        rng = np.random.default_rng([args.seed, number])
        page = compose(art, args.side, twins=number % 2 == 0, rng=rng)
        folders.append(write_case(folder, page, art))
    return folders


if __name__ == "__main__":
    for case in compose_cases(tyro.cli(Args, description=__doc__)):
        print(case)
