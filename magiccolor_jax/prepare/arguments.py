"""The arguments of `magiccolor segment` and `lineart`; nothing heavy is imported for their help."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro


@dataclass(frozen=True, kw_only=True)
class SegmentArgs:
    """Cut pictures into instances: masks as PNG and COCO JSON, and overlays to look at.

    With --model, SAM finds everything in a picture, or answers prompts. Without, flat artwork is
    cut out by its alpha channel, its plain ground or its colours, and every picture says by which.
    OUT/instances/NAME/ can be copied to a case's sketch_masks/ or reference_masks/. Finished
    pictures are skipped on a re-run; a bad one is reported, the rest go on, and the exit code is 1.
    """

    pictures: tyro.conf.Positional[tuple[Path, ...]]
    """Pictures, or folders that are walked for them."""
    out: Path
    """Where instances/, overlays/ and coco.json go."""
    model: Path | None = None
    """JAX folder with SAM (`magiccolor convert sam_vit_b_01ec64.pth FOLDER`)."""
    points: tuple[str, ...] = ()
    """X,Y in pixels of the picture, each inside of one instance."""
    boxes: tuple[str, ...] = ()
    """LEFT,TOP,RIGHT,BOTTOM in pixels of the picture, each around one instance."""
    prompts: Path | None = None
    """JSON for several pictures: {"NAME": [{"points": [[X, Y], ..], "labels": [1, 0, ..], "box":
    [L, T, R, B]}, ..]}, an entry an instance; labels (default: all 1) are 1 inside, 0 outside."""
    min_area: float = 0.002
    """Least share of the picture that an instance has."""
    max_count: int = 16
    """Most instances of a picture; the largest are kept."""
    merge: bool = True
    """Masks inside of larger ones are parts of these, not instances."""
    points_per_side: int = 32
    """SAM's grid of prompts, where none are given."""
    points_per_batch: int = 64
    """Prompts at once: fewer take less memory."""
    crop_n_layers: int = 0
    """Layers of crops that SAM looks at beside the whole picture, for small things."""
    pred_iou_thresh: float = 0.88
    """Least quality that SAM gives a mask of the grid."""
    stability_score_thresh: float = 0.95
    """Least stability of a mask of the grid."""
    compilation_cache: Path = Path("~/.cache/magiccolor_jax/compiled")
    """Where compiled programs are kept between runs."""


@dataclass(frozen=True, kw_only=True)
class LineArtArgs:
    """Draw the lines of coloured pictures: line art as PNG, and sheets to look at.

    OUT/lines/NAME.png has the picture's size, black on white, and can be a case's sketch;
    OUT/sheets/NAME.png shows it beside the picture and in the form in which every sketch reaches a
    model. Finished pictures are skipped on a re-run; a bad one is reported, the rest go on, and the
    exit code is 1.
    """

    pictures: tyro.conf.Positional[tuple[Path, ...]]
    """Pictures, or folders that are walked for them."""
    out: Path
    """Where lines/ and sheets/ go."""
    method: Literal["xdog", "anime2sketch", "sketch-keras", "informative-drawings"] | None = None
    """xdog needs no model. The others are networks: Anime2Sketch (`netG.pth`, `improved.bin`),
    sketchKeras (`model.pth`), ControlNet's lineart (`sk_model.pth`). Default: what --model is, else
    xdog."""
    model: Path | None = None
    """The network: PyTorch's file, which is converted once and kept (needs `pip install
    'magiccolor_jax[torch]'`), or the JAX folder that `magiccolor convert FILE FOLDER` makes."""
    size: int | None = None
    """Pixels of the side at which a network sees pictures: of a square, for informative-drawings of
    the shorter side. Default: 512, for which they were made."""
    clahe: bool = False
    """Even out the picture's contrast first, for dark or pale ones (Anime2Sketch's option)."""
    clahe_lines: bool = False
    """Even out the lines' contrast, as MagicColor's training did."""
    clahe_clip: float = 1.0
    """Limit of the contrast, above 0: 1 is MagicColor's, 40 kornia's default."""
    compilation_cache: Path = Path("~/.cache/magiccolor_jax/compiled")
    """Where compiled programs are kept between runs."""
    converted: Path = Path("~/.cache/magiccolor_jax/converted")
    """Where converted files of PyTorch are kept between runs."""
