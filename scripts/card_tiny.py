"""What the embedded model's card shows: held-out pages, coloured and judged beside the baselines.

    python scripts/card_tiny.py --model runs/tiny/model --art ART.npz --work WORK
    python scripts/card_tiny.py … --try 4:1.5 8:1.5 8:2.5     # steps:guidance, on the subjects

Pages of unseen subjects and of unseen styles are composed, and coloured as the model's config
says. Their truths have no drawn lines, so neither has what is judged: the network's page, its
colours as they are laid under lines, and the baselines, under blank sketches. WORK/tables.md, also
by the source of each drawing, and WORK/sheet.jpg are for the card; WORK/reports/ has all the rest.
What is there already is not made again, so another model or library wants another WORK.
"""

import csv
import dataclasses
import json
import os
import shutil
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import cv2
import numpy as np
import tyro
import write_scenes
from demo import scaled, stacked
from jaxtyping import UInt8
from PIL import Image

from magiccolor_jax import cli, read_case
from magiccolor_jax.checkpoint import read_config, write_config
from magiccolor_jax.data.compose import ArtScenes
from magiccolor_jax.data.pictures import write_png
from magiccolor_jax.data.sources import open_source
from magiccolor_jax.evaluation.protocol import load_protocol
from magiccolor_jax.evaluation.summary import means_of
from magiccolor_jax.files import atomic_directory, atomic_file

KINDS = {"subjects": "art-objects", "styles": "art-sources"}
"""What is unseen -> the source of its pages."""

MEASURES = {
    "oklab_error": ("Oklab error", 1),
    "own": ("to own reference", 2),
    "own_closest": ("own closest", 3),
    "swapped": ("swap test", 3),
    "psnr": ("PSNR, dB", 1),
    "ssim": ("SSIM", 3),
}
"""Name in a report -> heading, decimals."""

OF_A_DRAWING = {name: MEASURES[name] for name in ("oklab_error", "own", "own_closest")} | {
    "region_psnr": MEASURES["psnr"],
    "region_ssim": MEASURES["ssim"],
}
"""The same of one instance."""

WHITE = 255

TILE = 112
"""Height of the sheet's pictures, pixels."""


@dataclass(frozen=True, kw_only=True)
class Args:
    """Which model, on how many pages."""

    model: Path
    """Model folder."""
    art: Path
    """Library of drawings that it was trained on."""
    work: Path
    """Folder for all that is made."""
    count: int = 100
    """Pages of each kind."""
    shown: int = 16
    """Pages of each kind on the sheet, the first ones."""
    batch_size: int = 8
    """Pages at once."""
    tries: Annotated[tuple[str, ...], tyro.conf.arg(name="try")] = ()
    """STEPS:GUIDANCE to compare on the subjects."""


def main(args: Args) -> None:
    """Makes the tables and the sheet.

    Raises:
        RuntimeError: a page could not be coloured or judged.
    """
    args.work.mkdir(parents=True, exist_ok=True)
    pages = as_network_pages(args.model, args.work / "network")
    tables, columns = [], []
    for kind, source in KINDS.items():
        cases = args.work / "cases" / kind
        wanted = write_scenes.Args(source=f"{source}:{args.art}", out=cases, count=args.count)
        write_scenes.main(wanted)
        blank = without_lines(cases, args.work / "blank" / kind)
        laid, pictures = laid_colors(args, cases, args.work / "pictures" / kind)
        judged = ("--model", f"page={pages}", "--pred", f"laid={laid}")
        ours = report(args, cases, args.work / "reports" / kind, *judged)
        theirs = report(args, blank, args.work / "reports" / f"{kind}_baselines", "--baselines=all")
        tables.append(table(f"unseen {kind}", ours | theirs))
        files = sorted((args.work / "reports").glob(f"{kind}*/instances.csv"))
        scenes = open_source(wanted.source)
        assert isinstance(scenes, ArtScenes), "of KINDS"
        found = dict(by_source(scenes, files))
        tables.append(table(f"drawings of unseen {kind}, by their source", found, OF_A_DRAWING))
        columns.append(sheet(cases, pictures, args.shown))
    if args.tries:
        tables.append(table("steps:guidance", dict(tried(args, pages))))
    (args.work / "tables.md").write_text("\n\n".join(tables) + "\n")
    height = max(len(column) for column in columns)
    ends = [((0, height - len(column)), (0, 0), (0, 0)) for column in columns]
    filled = [np.pad(x, end, constant_values=WHITE) for x, end in zip(columns, ends, strict=True)]
    with atomic_file(args.work / "sheet.jpg") as path:
        Image.fromarray(np.concatenate(filled, axis=1)).save(path, "JPEG", quality=88)
    print(f"\n{args.work / 'tables.md'}, {args.work / 'sheet.jpg'}")


def run(*words: object) -> None:
    """Runs a command of `magiccolor`, and raises RuntimeError where it fails."""
    print("$ magiccolor", *words, flush=True)
    if code := cli.run([str(word) for word in words]):
        raise RuntimeError(f"magiccolor {words[0]}: exit code {code}; its output says why")


def as_network_pages(model: Path, folder: Path) -> Path:
    """The model, except that its results are the network's own pages."""
    if not folder.exists():
        config = read_config(model)
        recipe = dataclasses.replace(config.recipe, finish="network")
        with atomic_directory(folder) as new:
            write_config(new, dataclasses.replace(config, recipe=recipe))
            for file in model.glob("*.safetensors"):
                os.symlink(file.absolute(), new / file.name)
    return folder


def without_lines(cases: Path, folder: Path) -> Path:
    """The same cases under blank sketches, so that baselines are judged by their colours."""
    if not folder.exists():
        with atomic_directory(folder) as new:
            shutil.copytree(cases, new, dirs_exist_ok=True)
            for path in new.glob("*/sketch.png"):
                with Image.open(path) as sketch:
                    size = sketch.size
                write_png(path, np.full((*size[::-1], 3), WHITE, np.uint8))
    return folder


def laid_colors(args: Args, cases: Path, out: Path) -> tuple[Path, Path]:
    """Colours all cases.

    Returns:
        the folder of their colours on white, and that of the finished pictures.
    """
    options = ("--batch-size", args.batch_size, "--finish", "lines", "--layers")
    run("colorize", cases, "--model", args.model, "--out", out / "finished", *options)
    for layers in (out / "finished").glob("*.layers"):
        with Image.open(layers / "colors.png") as image:
            colors = image.convert("RGBA")
        white = Image.new("RGBA", colors.size, "white")
        page = np.asarray(Image.alpha_composite(white, colors).convert("RGB"))
        write_png(out / "laid" / f"{layers.stem}.png", page)
    return out / "laid", out / "finished"


def report(args: Args, cases: Path, out: Path, *judged: object) -> dict[str, Any]:
    """Method -> measure -> value with its interval."""
    run("evaluate", "--cases", cases, "--out", out, "--batch-size", args.batch_size, *judged)
    return json.loads((out / "report.json").read_text())["methods"]


def tried(args: Args, pages: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """`STEPS:GUIDANCE` -> its measures on the unseen subjects."""
    cases = args.work / "cases" / "subjects"
    for settings in args.tries:
        steps, guidance = settings.split(":")
        out = args.work / "tries" / f"{steps}_{guidance}"
        options = ("--steps", steps, "--guidance", guidance, "--batch-size", args.batch_size)
        run("colorize", cases, "--model", pages, "--out", out, *options)
        name = args.work / "reports" / out.name
        yield settings, report(args, cases, name, "--pred", f"page={out}")["page"]


def by_source(scenes: ArtScenes, files: Sequence[Path]) -> Iterator[tuple[str, dict[str, Any]]]:
    """`SOURCE (number of drawings), METHOD` -> its measures, from reports' tables of instances."""
    drawings: dict[tuple[str, str], dict[tuple[str, str], list[float]]] = defaultdict(dict)
    for file in files:
        with file.open() as lines:
            for row in csv.DictReader(lines):
                page, number = int(row["case"]), row["instance"]
                values = [float(row[name] or "nan") for name in OF_A_DRAWING]
                source = scenes.shown(page)[int(number) - 1]
                drawings[source, row["method"]][row["case"], number] = values
    for (source, method), values in sorted(drawings.items()):
        means = means_of(np.array(list(values.values())), load_protocol("ours"))
        found = {
            name: mean and mean._asdict() for name, mean in zip(OF_A_DRAWING, means, strict=True)
        }
        yield f"{source} ({len(values)}), {method}", found


def table(title: str, methods: dict[str, Any], shown: dict[str, tuple[str, int]] = MEASURES) -> str:
    """Markdown: a row for each method, 95 % intervals in brackets."""
    headings = [heading for heading, _ in shown.values()]
    lines = [f"| {' | '.join([title, *headings])} |", f"|---|{'--:|' * len(headings)}"]
    for method, measures in methods.items():
        cells = [method]
        for name, (_, digits) in shown.items():
            found = measures.get(name)
            ends = found and [f"{found[end]:.{digits}f}" for end in ("value", "low", "high")]
            cells.append("{} ({}–{})".format(*ends) if ends else "")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def sheet(cases: Path, pictures: Path, count: int) -> UInt8[np.ndarray, "H W 3"]:
    """The first cases, a row each: sketch, result, truth, references."""
    strips = []
    for folder in sorted(cases.iterdir())[:count]:
        case = read_case(folder)
        shown = [read(pictures / f"{folder.name}.png"), read(folder / "target.png")]
        tiles = [scaled(each) for each in (case.sketch, *shown, *case.references)]
        strips.append(np.concatenate(tiles, axis=1))
    page = stacked(strips)
    height, width = (side * TILE // strips[0].shape[0] for side in page.shape[:2])
    return cv2.resize(page, (width, height), interpolation=cv2.INTER_AREA)


def read(path: Path) -> UInt8[np.ndarray, "H W 3"]:
    """A picture."""
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


if __name__ == "__main__":
    main(tyro.cli(Args, description=__doc__))
