"""The arguments of `magiccolor segment`; nothing heavy is imported for its help."""

from dataclasses import dataclass
from pathlib import Path

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
