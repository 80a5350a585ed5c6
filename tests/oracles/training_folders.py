"""Generated training folders of every kind, small, odd and non-square."""

from pathlib import Path

import numpy as np
from oracles.case_folders import block_mask, noise, save, write_our_case

from magiccolor_jax.data.records import Provenance
from magiccolor_jax.data.scenes import Scene, View

TARGET_SHAPE, VIEW_SHAPE = (40, 56), (33, 27)
PROVENANCE = Provenance("https://example.org/1", "A. Painter", "CC-BY-4.0", "cropped")


def instance_mask(number: int, shape: tuple[int, int] = TARGET_SHAPE) -> np.ndarray:
    """Masks that differ by their number, 0 and up."""
    return block_mask(shape, 2 + number, 3 * number, 20, 3 * number + 2)


def write_training_case(folder: Path, count: int = 2) -> Path:
    """A case in our layout with its target."""
    write_our_case(folder, count)
    save(folder / "target.png", noise((61, 83, 3), 90))
    return folder


def write_picture_folder(folder: Path, count: int = 3, views: tuple[int, ...] = (2,)) -> Path:
    """NAME/NAME.png with masks 1..count and references of some."""
    save(folder / f"{folder.name}.png", noise((*TARGET_SHAPE, 3), 50))
    for number in range(1, count + 1):
        save(folder / f"masks/mask_{number}.png", instance_mask(number))
    for number in views:
        save(folder / f"{folder.name}_{number}.png", noise((*VIEW_SHAPE, 3), number))
    return folder


def write_frames(folder: Path, count: int = 0) -> Path:
    """Three frames, with masks 0..count-1 of the third."""
    for number in (1, 2, 3):
        save(folder / f"frame{number}.png", noise((*TARGET_SHAPE, 3), 60 + number))
    for number in range(count):
        save(folder / f"masks/mask_{number}.png", instance_mask(number))
    return folder


def write_pair(path: Path, *, sketch_left: bool = False, seed: int = 70) -> Path:
    """Colours (noise) and sketch (grey noise) side by side."""
    colours = noise((28, 28, 3), seed)
    halves = [colours, np.repeat(noise((28, 28, 1), seed + 1), 3, axis=2)]
    save(path, np.hstack(halves[::-1] if sketch_left else halves))
    return path


def make_scene(name: str = "scene", count: int = 2, seed: int = 0, lines: bool = True) -> Scene:
    """A scene in memory; the second instance has two views, the others none."""
    view_mask = block_mask(VIEW_SHAPE, 3, 4, 20, 9)
    views = tuple(View(noise((*VIEW_SHAPE, 3), seed + i), view_mask) for i in (1, 2))
    return Scene(
        name=name,
        path=Path("made") / name,
        target=noise((*TARGET_SHAPE, 3), seed),
        lines=np.repeat(noise((*TARGET_SHAPE, 1), seed + 3), 3, axis=2) if lines else None,
        masks=tuple(instance_mask(number) for number in range(count)),
        views=tuple(views if number == 1 else () for number in range(count)),
    )


def assert_same(found: Scene, expected: Scene) -> None:
    """Every pixel of two scenes is equal; their paths may differ."""
    assert found.name == expected.name
    np.testing.assert_array_equal(found.target, expected.target)
    assert (found.lines is None) == (expected.lines is None)
    if found.lines is not None:
        np.testing.assert_array_equal(found.lines, expected.lines)
    for mine, theirs in zip(found.masks, expected.masks, strict=True):
        np.testing.assert_array_equal(mine, theirs)
    for mine, theirs in zip(found.views, expected.views, strict=True):
        for a, b in zip(mine, theirs, strict=True):
            np.testing.assert_array_equal(a.picture, b.picture)
            np.testing.assert_array_equal(a.mask, b.mask)
