"""`magiccolor lineart`: coloured pictures in, their line art and sheets to look at out."""

import time
from pathlib import Path
from typing import Any

import cv2
import jax
import numpy as np
from jaxtyping import UInt8
from rich.console import Console
from rich.markup import escape

from magiccolor_jax.checkpoint import load_network, read_config
from magiccolor_jax.data.pictures import read_picture
from magiccolor_jax.data.sketches import normalise_sketch
from magiccolor_jax.data.transforms import WHITE, Picture, fit_page, resize
from magiccolor_jax.files import locked, remove_rests_below
from magiccolor_jax.lineart.method import UNCHANGED, Contrast, LineArt, XDoGMethod
from magiccolor_jax.lineart.networks import NETWORKS
from magiccolor_jax.prepare.arguments import LineArtArgs
from magiccolor_jax.prepare.pictures import hash_picture, name_pictures, open_output, work_through
from magiccolor_jax.recipe import Recipe
from magiccolor_jax.sampling.outputs import hash_model, is_foreign, read_made_by, write_picture
from magiccolor_jax.types import Sizes

LINES, SHEETS = "lines", "sheets"

XDOG = XDoGMethod.name

TITLES = ("picture", "lines", "as a model sees them")
TITLE_HEIGHT = 24
"""Of the strip above a sheet's pictures, in pixels."""


def run(args: LineArtArgs, model: Path | None, console: Console) -> int:
    """Draws the lines of every picture that has none yet.

    Args:
        model: the network's folder.

    Returns:
        How many failed.

    Raises:
        ValueError, OSError: arguments or the model do not fit; `out` cannot be written.
    """
    pictures = name_pictures(args.pictures, args.out, (LINES, SHEETS))
    if not args.clahe_clip > 0:
        raise ValueError(f"--clahe-clip: expected a number above 0, got {args.clahe_clip}")
    clip = args.clahe_clip
    contrast = Contrast(clip if args.clahe else None, clip if args.clahe_lines else None)
    extractor = load_extractor(args.method, model, contrast, args.size)
    drawing = Drawing(extractor, model, args.out, console)
    open_output(args.out)
    with locked(args.out / ".lineart.lock", "run of lineart"):
        for kind in (LINES, SHEETS):
            remove_rests_below(args.out / kind)
        console.print(f"{len(pictures)} pictures by {drawing.who}", markup=False, soft_wrap=True)
        done = work_through(pictures, drawing, console)
    said = f"{done.made} drawn{drawing.rate()}, {done.kept} kept, {done.failed} failed"
    console.print(f"{said} -> {args.out}", markup=False, soft_wrap=True)
    return done.failed


def load_extractor(
    name: str | None,
    model: Path | None = None,
    contrast: Contrast = UNCHANGED,
    side: int | None = None,
) -> LineArt:
    """An extractor, as `lineart.EXTRACTORS` has them by name.

    Args:
        name: `xdog` or of `NETWORKS`; default: what the folder holds, else `xdog`.
        model: a JAX folder with the network.
        side: in pixels, at which a network sees pictures; default: for which it was made.

    Raises:
        ValueError: name, folder and side do not fit together.
        OSError: the folder is none of a model.
    """
    if model is None and name in NETWORKS:
        network = NETWORKS[name]
        raise ValueError(
            f"{name} is a network: expected --model {network.file}, which is published at "
            f"{network.url}, or the folder that `magiccolor convert {network.file} FOLDER` makes"
        )
    if model is None or name == XDOG:
        if name not in (None, XDOG):
            raise ValueError(f"--method: expected one of {[XDOG, *NETWORKS]}, got {name!r}")
        if model is not None or side is not None:
            raise ValueError(
                f"--model and --size go with a network, and {XDOG} is none: leave them out, or "
                f"expected a --method of {list(NETWORKS)}"
            )
        return LineArt(XDoGMethod(), contrast)
    configs = read_config(model).networks
    held = [each for each, network in NETWORKS.items() if network.kind in configs]
    if name is None and len(held) == 1:
        name = held[0]
    if name not in held:
        wanted = f"the network {name}" if name else "one network that draws lines, or --method"
        raise ValueError(f"{model}: expected {wanted}, got {', '.join(held or configs)}")
    kind = NETWORKS[name].kind
    network = load_network(model, kind, configs[kind])
    return LineArt(NETWORKS[name](network, side), contrast)


class Drawing:
    """One run of an extractor over pictures."""

    def __init__(self, extractor: LineArt, model: Path | None, out: Path, console: Console):
        """Raises ValueError, OSError: the model's files are damaged."""
        self._extractor, self._out, self._console = extractor, out, console
        self._model = "" if model is None else hash_model(model)
        self._compiled: set[tuple[int, int]] = set()
        self._seconds: list[float] = []

    @property
    def who(self) -> str:
        """For the user."""
        name = self._extractor.method.name
        return f"{name} on {jax.local_devices()[0].device_kind}" if self._model else name

    def rate(self) -> str:
        """Pictures read, drawn and written per second, without those that were compiled for."""
        if not self._seconds:
            return ""
        return f", {len(self._seconds) / sum(self._seconds):.2f} pictures/s"

    def made_by(self, path: Path) -> dict[str, Any]:
        """All that the lines of a picture depend on; raises CaseError where it cannot be read."""
        method = self._extractor.method
        return {
            "picture": hash_picture(path),
            "model": self._model,
            "method": method.name,
            "settings": method.settings,
            "contrast": self._extractor.contrast._asdict(),
        }

    def __call__(self, name: str, path: Path) -> str | None:
        """Draws the lines of a picture, unless that was done; says what they look like.

        Raises:
            ValueError: the picture is bad, or another's files are in the way.
        """
        started = time.monotonic()
        made_by = self.made_by(path)
        lines_path, sheet_path = (self._out / kind / f"{name}.png" for kind in (LINES, SHEETS))
        if all(read_made_by(each) == made_by for each in (lines_path, sheet_path)):
            return None
        for each in (lines_path, sheet_path):
            if is_foreign(each):
                raise ValueError(
                    f"{each} exists and is none of ours: move it, or choose another --out"
                )
        picture, _ = read_picture(path)
        compiles = self._compiles(picture)
        lines = self._extractor(picture)
        write_picture(sheet_path, sheet(picture, lines), made_by)
        write_picture(lines_path, lines, made_by)
        if not compiles:
            self._seconds.append(time.monotonic() - started)
        return f"{escape(name)}: {(lines < WHITE // 2).mean():.1%} ink"

    def _compiles(self, picture: Picture) -> bool:
        """Whether a program is compiled for this picture, the first of its size: says so."""
        size = self._extractor.method.size((picture.shape[0], picture.shape[1]))
        if size is None or size in self._compiled:
            return False
        self._compiled.add(size)
        self._console.print(f"compiling for {size[1]} x {size[0]} pixels, once for all runs")
        return True


def sheet(picture: Picture, lines: UInt8[np.ndarray, "H W"]) -> UInt8[np.ndarray, "h w 3"]:
    """A picture, its lines, and the form in which they reach a model, side by side under titles."""
    placed = fit_page((picture.shape[0], picture.shape[1]), Recipe.paper(), Sizes()).placed
    colored = np.repeat(lines[..., None], 3, axis=-1)
    shown, drawn = (
        np.rint(resize(each, placed.height, placed.width)).astype(np.uint8)
        for each in (picture, colored)
    )
    seen = normalise_sketch(drawn).lines
    panels = [shown, drawn, np.repeat(seen[..., None], 3, axis=-1)]
    return np.concatenate([_titled(*each) for each in zip(panels, TITLES, strict=True)], axis=1)


def _titled(panel: Picture, title: str) -> UInt8[np.ndarray, "h w 3"]:
    """A picture under a strip with its title, and one column of grey beside it."""
    framed = np.pad(panel, ((TITLE_HEIGHT, 0), (0, 1), (0, 0)), constant_values=WHITE)
    framed[:, -1] = WHITE // 2
    at, size = (6, TITLE_HEIGHT - 7), 0.5
    return cv2.putText(framed, title, at, cv2.FONT_HERSHEY_SIMPLEX, size, (0, 0, 0), 1, cv2.LINE_AA)
