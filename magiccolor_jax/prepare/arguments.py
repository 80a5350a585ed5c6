"""The arguments of `magiccolor segment`, `lineart` and `prepare`; nothing heavy is imported for
their help."""

import os
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
    pictures are skipped on a re-run, with masks that you have changed, added or deleted as they are
    now; a bad one is reported, the rest go on, and the exit code is 1.
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


@dataclass(frozen=True, kw_only=True)
class PrepareArgs:
    """Make shards to train on, of pictures, video, sketch pairs or annotated data sets.

    An input is KIND:PATH, or PATH where its names tell the kind:
    pictures (a folder),
    video (a file, or a folder of such; needs `pip install 'magiccolor_jax[video]'`),
    frames (a folder for each clip, of its frames as pictures),
    triplets (ATD-12K: folders of frame1, frame2, frame3),
    pairs, pairs-left, pairs-right (sketch beside colours; where the sketch is),
    coco (a JSON file: instances or panoptic; COCONut's too),
    cases, release (folders with masks, as `magiccolor train` reads them).
    Instances of clips and triplets are found again in another frame, which becomes their reference.

    What `magiccolor train` reads are the sources records:OUT/train and, for validation,
    records:OUT/held_out. OUT/index.html shows some records, statistics.json sums them up,
    records.jsonl lists them with their origin and licence, and skipped.json says what was left out
    and why. The same command goes on where a run ended, with the same result. What is
    bad is left out, the rest goes on, and the exit code is 1.
    """

    inputs: tyro.conf.Positional[tuple[str, ...]]
    """KIND:PATH or PATH, see above."""
    out: Path
    """Where train/, held_out/ and the reports go."""
    licence: str = ""
    """SPDX id of the licence, such as CC-BY-4.0, or LicenseRef-NAME; every record has one."""
    author: str = ""
    """Whom the licence wants to be named."""
    source: str = ""
    """Where the pictures are from, such as a URL; default: each one's own path."""
    credits: Path | None = None
    """JSON that tells them apart: {"NAME or FOLDER": {"licence": .., "author": .., "source": ..,
    "note": ..}}, by paths below an input, without suffix."""
    model: Path | None = None
    """JAX folder with SAM, which cuts pictures into instances; default: the classical way, for flat
    artwork, as `magiccolor segment` has it."""
    masks: Path | None = None
    """Masks that are given: NAME/1.png, .., as `magiccolor segment` leaves in OUT/instances; those
    that have none are cut. For panoptic COCO the folder of its PNGs."""
    min_area: float = 0.01
    """Least share of the picture that an instance has."""
    max_count: int = 16
    """Most instances of a picture; the largest are kept."""
    points_per_side: int = 32
    """SAM's grid of prompts."""
    points_per_batch: int = 64
    """Prompts at once: fewer take less memory."""
    pred_iou_thresh: float = 0.88
    """Least quality that SAM gives a mask."""
    stability_score_thresh: float = 0.95
    """Least stability of SAM's masks."""
    method: Literal["xdog", "anime2sketch", "sketch-keras", "informative-drawings"] | None = None
    """What draws sketches, as in `magiccolor lineart`. Default: what --line-model is, else xdog."""
    line_model: Path | None = None
    """The network that draws sketches: PyTorch's file, or a JAX folder."""
    sketches: Path | None = None
    """Sketches that are given: NAME.png, as `magiccolor lineart` leaves in OUT/lines; those that
    have none are drawn."""
    images: Path | None = None
    """The pictures of COCO's JSON; default: a folder beside it."""
    dinov2: Path | None = None
    """JAX folder with DINOv2, by which instances are found again in other frames; default: by their
    colours. Places count with both."""
    stride: int = 12
    """Of a clip's shot, every such frame is looked at."""
    cut: float = 16.0
    """Least mean difference of two frames between which a shot ends, in levels, 0..255."""
    alike: float = 6.0
    """Frames of which no cell differs more are one, in levels, 0..255."""
    reach: int = 1
    """Frames, of those that were taken, between a frame and those where its instances are found."""
    side: int = 1024
    """Longest side of the pictures that are stored, in pixels; larger ones are shrunk."""
    held_out: float = 0.05
    """Share of the clips that is held out. A picture, or a triplet's film, is a clip too."""
    split_by: Literal["clip", "shot"] = "clip"
    """Whether shots of one file of video may be in both splits, for a single film; shots that show
    the same are never parted."""
    seed: int = 0
    """Of the clips that are held out: a hash of it and their names decides."""
    records_per_shard: int = 256
    """About so many; what a run that ended loses is less than one shard."""
    workers: int = min(8, os.cpu_count() or 1)
    """Pictures, or shots, that are worked on at once."""
    sample: int = 48
    """Records that index.html shows."""
    compilation_cache: Path = Path("~/.cache/magiccolor_jax/compiled")
    """Where compiled programs are kept between runs."""
    converted: Path = Path("~/.cache/magiccolor_jax/converted")
    """Where converted files of PyTorch are kept between runs."""
