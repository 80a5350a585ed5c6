"""Images per second of a night's work: pages of mixed sizes, with mixed numbers of instances.

    python scripts/bench_throughput.py                                  # nano stand-in
    python scripts/bench_throughput.py --model MODEL --cases 16 --steps 4

Every batch size colours two rounds of pages: the first compiles, the second is the figure. No two
pages share a reference, so that no features are reused.
"""

import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from random_inputs import overlapping, parse_page, smooth
from report import folders, show, write_json

from magiccolor_jax.recipe import Recipe
from magiccolor_jax.sampling.colorizer import Colorizer, Failed, Settings
from magiccolor_jax.types import Case


@dataclass(frozen=True, kw_only=True)
class Args:
    """Throughput."""

    model: Path | None = None
    """A converted model; default: a nano stand-in is made."""
    batch: tuple[int, ...] = (1, 4, 8)
    """Batch sizes."""
    cases: int = 24
    """Pages per round."""
    page: tuple[str, ...] = ("512x512", "384x640", "640x384")
    """Sizes of the sketches in pixels, in turn; the model fits them to its own."""
    instances: tuple[int, ...] = (1, 3, 2, 6)
    """Numbers of references, in turn."""
    steps: int = 20
    """Denoising steps."""
    json: Path | None = None
    """Where the rows go as JSON."""


def main(args: Args) -> None:
    """Prints the table."""
    with tempfile.TemporaryDirectory() as temporary:
        model = args.model or folders("nano", None, None, Path(temporary))[1]
        rounds = [list(random_cases(args, seed)) for seed in range(2)]
        rows = [throughput(model, rounds, batch, args.steps) for batch in args.batch]
    kinds = f"sizes {', '.join(args.page)}; {args.instances} instances"
    show(f"{args.cases} pages, {args.steps} steps, recipe paper ({kinds})", rows)
    write_json(args.json, rows)


def throughput(model: Path, rounds: list[list[Case]], batch: int, steps: int) -> dict[str, Any]:
    """Images per second with one batch size, by a colouriser of its own."""
    colorizer = Colorizer.from_pretrained(model, recipe=Recipe.paper())
    settings = Settings(steps=steps)
    seconds, programs = [], []
    for pages in rounds:
        started = time.perf_counter()
        for result in colorizer.stream(pages, settings, batch_size=batch):
            if isinstance(result, Failed):
                raise result.error
        seconds.append(time.perf_counter() - started)
        programs.append(colorizer.sampler.compilations())
    return {
        "batch": batch,
        "images/s": len(rounds[1]) / seconds[1],
        "images/s, first round": len(rounds[0]) / seconds[0],
        "programs compiled": programs[0],
        "in second round": programs[1] - programs[0],
    }


def random_cases(args: Args, seed: int) -> Iterator[Case]:
    """Random pages; every one has references of its own."""
    random = np.random.default_rng(seed)
    for index in range(args.cases):
        page = parse_page(args.page[index % len(args.page)])
        count = args.instances[index % len(args.instances)]
        owner = overlapping(page, count)
        references = ((smooth(random, count, (256, 192)) + 1) * 127.5).astype(np.uint8)
        yield Case(
            name=f"page-{index}",
            path=Path(f"page-{index}"),
            layout="magiccolor",
            sketch=((smooth(random, 1, page)[0] + 3) * 63.75).astype(np.uint8),  # mostly bright
            references=tuple(references),
            reference_masks=tuple(np.full(each.shape[:2], 255, np.uint8) for each in references),
            sketch_masks=tuple(np.uint8(255) * (owner == i + 1) for i in range(count)),
        )


if __name__ == "__main__":
    main(tyro.cli(Args, description=__doc__))
