"""The command line of `python -m converters` and `magiccolor convert`; jax loads when it runs."""

import errno
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

Kind = Literal[
    "unet",
    "controlnet",
    "context",
    "vae",
    "clip_vision",
    "clip_text",
    "dinov2",
    "vgg19",
    "inception",
    "sam",
    "anime2sketch",
    "sketch_keras",
    "informative_drawings",
]


@dataclass(frozen=True, kw_only=True)
class ConvertArgs:
    """Convert PyTorch weights to a JAX folder, a JAX folder back, or a training run to either.

    SOURCE is a download of the release, one network (a diffusers or transformers folder, or a file:
    .safetensors, .bin, .pth, .ckpt), a folder with the files of networks that judge pictures
    (LPIPS, Inception), a JAX folder, which goes back to PyTorch, or the folder of a training run,
    whose newest checkpoint becomes a JAX folder to colour with.
    """

    source: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="SOURCE")]
    """What to convert; `tiny` is the embedded model."""
    output: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="OUTPUT")]
    """The folder to make; it must not exist yet."""
    to: Literal["jax", "release", "diffusers"] | None = None
    """From a JAX folder or a run: `release` writes the files that it came from, or what the release
    calls them, `diffusers` one folder per network that `from_pretrained` loads. Default: `release`
    from a JAX folder, `jax` from a run or from PyTorch."""
    checkpoint: str | None = None
    """From a run: `latest`, `best` (smallest loss), or the number of a step. Default: latest."""
    kind: Kind | None = None
    """One network: which it is, where its keys do not tell."""
    config: Path | None = None
    """One network: its config.json, where it is not beside the weights."""
    dry_run: bool = False
    """Check every name, shape and the disk, say what would be done, and write nothing."""
    verify: bool = False
    """To JAX: then run every network in PyTorch and in JAX on the same random input and print the
    largest difference (needs `pip install 'magiccolor_jax[parity]'`)."""


def main(args: ConvertArgs | None = None) -> int:
    """Runs the command; errors go to standard error.

    Args:
        args: default from the command line.

    Returns:
        Exit code: 0, or 1 after an error.
    """
    if args is None:
        args = tyro.cli(ConvertArgs, prog="python -m converters")
    from converters.run import convert

    # So that the half-written folder is removed on SIGTERM as it is on Ctrl-C.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    try:
        convert(args)
    except (ValueError, OSError, ImportError) as error:
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            error = (
                f"{args.output}: the disk is full, and nothing was left behind: make room, or "
                "choose an output on another disk"
            )
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0
