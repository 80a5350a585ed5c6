"""Networks whose files come alone, SAM and those that draw lines: parity, and the way back.

    PYTHONPATH=.:tests python scripts/parity_files.py --size full     # two minutes on 2 cores

Makes files of the published names, keys and shapes with random weights, converts them, runs PyTorch
and JAX as `magiccolor convert --verify` does, converts back and compares every tensor's bits.
CLAHE, which has no weights, is compared with kornia's stored outputs. The exit code is 1 where
something differs.
"""

import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import tyro
from golden_weights import seeded
from goldens_lineart import GOLDEN, TRIALS, picture
from oracles.lineart import oracle_of
from report import Row, show, write_json

from converters import ConvertArgs, maps, verify
from converters.run import convert
from converters.weightmap import wanted
from magiccolor_jax.checkpoint import parameter_shapes, read_config
from magiccolor_jax.lineart.anime2sketch import Anime2SketchConfig
from magiccolor_jax.lineart.clahe import clahe
from magiccolor_jax.lineart.informative_drawings import InformativeDrawingsConfig
from magiccolor_jax.lineart.sketch_keras import SketchKerasConfig
from magiccolor_jax.segment.sam_config import SAMConfig

SIZES: dict[str, dict[str, Any]] = {
    "nano": {
        "sam_vit_b_01ec64.pth": SAMConfig.nano(decoder_heads=8, channels=64),
        "netG.pth": Anime2SketchConfig.nano(),
        "improved.bin": Anime2SketchConfig.nano(enlarging="bilinear"),
        "model.pth": SketchKerasConfig.nano(),
        "sk_model.pth": InformativeDrawingsConfig.nano(),
    },
    "full": {
        "sam_vit_b_01ec64.pth": SAMConfig.vit_b(),
        "netG.pth": Anime2SketchConfig.official(),
        "improved.bin": Anime2SketchConfig.official(enlarging="bilinear"),
        "model.pth": SketchKerasConfig.official(),
        "sk_model.pth": InformativeDrawingsConfig.official(),
    },
}
"""File -> its network."""

CLAHE_LIMIT = 2e-7
"""Two roundings of a value up to 1."""


@dataclass(frozen=True, kw_only=True)
class Args:
    """Parity of single files with PyTorch."""

    size: Literal["nano", "full"] = "nano"
    """Of the networks."""
    json: Path | None = None
    """Also write the table here."""


def main(args: Args) -> int:
    """Prints the table; returns the exit code."""
    rows: list[Row] = []
    for name, config in SIZES[args.size].items():
        with tempfile.TemporaryDirectory() as work:
            rows.extend(network_rows(name, config, Path(work)))
    rows.extend(clahe_rows())
    title = "largest difference from PyTorch, relative to its largest value"
    show(f"{title} ({args.size})", rows)
    write_json(args.json, {"size": args.size, "rows": rows})
    return 0 if all(row["passed"] and row["comes back"] in (True, "") for row in rows) else 1


def network_rows(name: str, config: Any, work: Path) -> Iterator[Row]:
    """A row for each output of a file's network."""
    (work / "from").mkdir()
    source, folder, back = work / "from" / name, work / "jax", work / "back"
    torch.save(state_dict(config), source)
    convert(ConvertArgs(source=source, output=folder))
    convert(ConvertArgs(source=folder, output=back))
    equal = same_bits(source, back / name)
    (stem,) = stems = list(read_config(folder).networks)
    for output, value in verify.compare(folder, source.parent, stems)[stem].items():
        yield {
            "file": name,
            "network": stem,
            "output": output,
            "value": value,
            "passed": value <= verify.LIMIT,
            "comes back": equal,
        }


def state_dict(config: Any) -> dict[str, torch.Tensor]:
    """PyTorch's tensors of a network, no one of them special."""
    if isinstance(config, SAMConfig):
        asked = wanted(maps.SAM, parameter_shapes(config), maps.SEGMENT_ANYTHING)
        return {x.keys[0]: torch.from_numpy(seeded(x.keys[0], x.part)) for x in asked}
    return dict(oracle_of(config).state_dict())


def same_bits(one: Path, other: Path) -> bool:
    """Whether two files have the same keys in the same order, types, shapes and bits."""
    first, second = (torch.load(path, weights_only=True) for path in (one, other))
    return list(first) == list(second) and all(
        first[key].dtype == second[key].dtype and first[key].equal(second[key]) for key in first
    )


def clahe_rows() -> Iterator[Row]:
    """A row for each version of kornia, over all of its stored pictures."""
    with np.load(GOLDEN) as golden:
        for version in ("0.8", "0.9"):
            worst = max(
                float(np.abs(found - golden[f"{version}/{name}"]).max())
                for name, trial in TRIALS.items()
                for found in [clahe(picture(name), trial.limit, trial.grid, version)]
            )
            yield {
                "file": f"kornia {version}",
                "network": "",
                "output": "CLAHE",
                "value": worst,
                "passed": worst <= CLAHE_LIMIT,
                "comes back": "",
            }


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Args, description=__doc__)))
