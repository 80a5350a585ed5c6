"""Training scenes as case folders, to measure models on.

    python scripts/write_scenes.py --source art-objects:ART.npz --count 100 --out cases/objects

What a training's `data.sources` or `data.validation` names is written as it is stored, without any
play: sketch, target, masks, and for each instance the other picture that shows it.
"""

from dataclasses import dataclass
from pathlib import Path

import tyro
from rich.progress import track

from magiccolor_jax.data.pictures import write_png
from magiccolor_jax.data.scenes import Scene
from magiccolor_jax.data.sources import open_source
from magiccolor_jax.files import atomic_directory


@dataclass(frozen=True, kw_only=True)
class Args:
    """Writes case folders."""

    source: str
    """KIND:FOLDER or art-objects:FILE, as a training's `data.validation`."""
    out: Path
    """Folder of the case folders; those that exist are kept."""
    count: int = 100
    """Scenes, from the first on."""


def main(args: Args) -> None:
    """Writes what is not there yet.

    Raises:
        CaseError, ValueError: the source cannot be opened, or a scene has no other picture of an
            instance or no lines.
    """
    source = open_source(args.source)
    digits = len(str(args.count - 1))
    for number in track(range(min(args.count, len(source))), "writing"):
        folder = args.out / f"{number:0{digits}}"
        if not folder.exists():
            write_scene(source[number], folder)


def write_scene(scene: Scene, folder: Path) -> None:
    """One case folder, whole or not at all."""
    if scene.lines is None or not all(scene.views):
        raise ValueError(
            f"{scene.path}: expected lines and another picture of each instance, got "
            f"{'lines' if scene.lines is not None else 'no lines'} and views "
            f"{[len(views) for views in scene.views]}: take a source that has them"
        )
    with atomic_directory(folder) as new:
        write_png(new / "sketch.png", scene.lines)
        write_png(new / "target.png", scene.target)
        for number, (mask, views) in enumerate(zip(scene.masks, scene.views, strict=True), 1):
            write_png(new / f"sketch_masks/{number}.png", mask)
            write_png(new / f"references/{number}.png", views[0].picture)
            write_png(new / f"reference_masks/{number}.png", views[0].mask)


if __name__ == "__main__":
    main(tyro.cli(Args, description=__doc__))
