"""The arguments of `magiccolor evaluate`; nothing heavy is imported for its help."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class EvaluateArgs:
    """Measure coloured pages; write index.html, report.json, cases.csv and instances.csv.

    Judged are folders of pictures (--pred: CASE.png for every case, whoever made them), models
    (--model: they colour the cases first) and baselines that need no weights. What is measured
    already is not measured again. Pages with the first two references exchanged, for the swap
    test, are looked for in PRED/swapped/CASE.png; --write-swapped makes such cases to colour.
    """

    cases: tuple[Path, ...]
    """Case folders, or folders of cases, in the layout with sketch_masks/."""
    out: Path
    """Where the report goes."""
    pred: tuple[str, ...] = ()
    """Folders of pictures, each as DIR or NAME=DIR."""
    model: tuple[str, ...] = ()
    """Model folders, each as DIR or NAME=DIR, or `tiny`; their pictures go to
    OUT/pictures/NAME."""
    baselines: tuple[str, ...] = ()
    """Any of grey, mean_color, by_position, reinhard, nearest_patch; or all."""
    protocol: str = "ours"
    """ours, paper, swapped, or the path of a file like configs/eval/ours.py."""
    networks: tuple[Path, ...] = ()
    """JAX folders with the networks that the protocol takes (LPIPS, Inception, DINOv2, CLIP);
    `magiccolor convert` makes them."""
    fid_truth: Path | None = None
    """Statistics that FID compares with (.npz, of pytorch-fid or of OUT/fid/); default: those of
    the targets."""
    batch_size: int | None = None
    """Pages per device at once; default 4 on CPU, 32 on accelerators."""
    process: str | None = None
    """I/N: this is process I of N and takes every N-th case."""
    write_swapped: Path | None = None
    """Write the cases with the first two references exchanged to this folder, and stop."""
    compilation_cache: Path = Path("~/.cache/magiccolor_jax/compiled")
    """Where compiled programs are kept between runs."""
