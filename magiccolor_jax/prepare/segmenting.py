"""`magiccolor segment`: pictures in, instance masks, COCO JSON and overlays out."""

import os
from collections.abc import Collection
from pathlib import Path
from typing import Any

import cv2
import jax
import numpy as np
from jaxtyping import UInt8
from rich.console import Console
from rich.markup import escape

from magiccolor_jax.checkpoint import load_network, read_config
from magiccolor_jax.data.pictures import PICTURE_SUFFIXES, read_picture
from magiccolor_jax.data.transforms import Picture
from magiccolor_jax.files import locked
from magiccolor_jax.prepare.arguments import SegmentArgs
from magiccolor_jax.prepare.cuts import (
    COCO,
    FOLDER,
    OVERLAYS,
    Cut,
    Instance,
    changes,
    check_coco,
    check_place,
    read_record,
    remove_dead,
    write_coco,
    write_cut,
)
from magiccolor_jax.prepare.pictures import hash_picture, name_pictures, open_output, work_through
from magiccolor_jax.prepare.prompts import (
    Prompt,
    alike,
    check_inside,
    from_words,
    read_prompts,
)
from magiccolor_jax.sampling.outputs import hash_model, read_made_by
from magiccolor_jax.segment.automatic import AutomaticConfig, segment
from magiccolor_jax.segment.classical import flat_masks
from magiccolor_jax.segment.objects import ObjectConfig, Region, instances, mended
from magiccolor_jax.segment.predictor import Predictor

CRUMB = 1e-4
"""Holes and islands below this share of the picture are none."""

LARGEST = 1536
"""Longest side at which SAM looks for everything; it sees 1024 itself, and each of a batch's masks
takes four bytes per pixel."""


def run(args: SegmentArgs, console: Console) -> int:
    """Cuts every picture that is not cut yet.

    Returns:
        How many failed, and files beside masks that are none.

    Raises:
        ValueError, OSError: arguments, prompts or the model do not fit; the disk is full.
    """
    pictures = name_pictures(args.pictures, args.out, (FOLDER, OVERLAYS))
    _check_folders([name for name, path in pictures.items() if not os.path.isdir(path)])
    check_coco(args.out)
    cutter = Cutter(args, pictures)
    open_output(args.out)
    with locked(args.out / ".segment.lock", "run of segment"):
        remove_dead(args.out)
        console.print(f"{len(pictures)} pictures by {cutter.who}", markup=False, soft_wrap=True)
        try:
            done = work_through(
                pictures, lambda name, path: _one(cutter, name, path, args.out, console), console
            )
        finally:
            bad = write_coco(args.out)
    for text in bad:
        said = f"[red]left out of {COCO}[/red] {escape(text)}"
        console.print(said, soft_wrap=True, highlight=False)
    console.print(f"-> {args.out / OVERLAYS}", markup=False, soft_wrap=True)
    return done.failed + len(bad)


def _check_folders(names: Collection[str]) -> None:
    """Raises ValueError where a picture's folder of masks would be one of other pictures'."""
    above = {parent.as_posix() for name in names for parent in Path(name).parents}
    if both := sorted(above & set(names)):
        raise ValueError(
            f"masks go to a folder of their picture's name: expected no folder of pictures of the "
            f"same name, got {', '.join(both)}; rename one of them"
        )


class Cutter:
    """What cuts pictures: SAM, or the classical way."""

    def __init__(self, args: SegmentArgs, pictures: dict[str, Path]):
        """Raises ValueError where the arguments do not fit together, or the model is none."""
        self.objects = ObjectConfig(
            min_area=args.min_area, max_count=args.max_count, merge=args.merge
        )
        self.grid = AutomaticConfig(
            points_per_side=args.points_per_side,
            points_per_batch=args.points_per_batch,
            crop_n_layers=args.crop_n_layers,
            pred_iou_thresh=args.pred_iou_thresh,
            stability_score_thresh=args.stability_score_thresh,
        )
        self.prompts = _prompts(args, pictures)
        if args.model is None and self.prompts:
            raise ValueError(
                "prompts are SAM's to answer: expected --model FOLDER, which `magiccolor convert "
                "sam_vit_b_01ec64.pth FOLDER` makes "
                "(https://dl.fbaipublicfiles.com/segment_anything/sam_vit_b_01ec64.pth)"
            )
        self.predictor, self.model = None, ""
        if args.model is not None:
            config = read_config(args.model).networks.get("sam")
            if config is None:
                raise ValueError(f"{args.model}: expected a folder with SAM (sam.safetensors)")
            network: Any = load_network(args.model, "sam", config)
            self.predictor = Predictor(network)
            self.model = hash_model(args.model)

    @property
    def who(self) -> str:
        """For the user."""
        if self.predictor is None:
            return "the classical way (no --model): alpha channel, plain ground, or flat colours"
        return f"SAM on {jax.local_devices()[0].device_kind}"

    def made_by(self, name: str, path: Path) -> dict[str, Any]:
        """All that the masks of a picture depend on; raises CaseError where it cannot be read."""
        asked = self.prompts.get(name)
        return {
            "picture": hash_picture(path),
            "model": self.model,
            "settings": [repr(self.objects), repr(self.grid) if asked is None else repr(asked)],
        }

    def __call__(self, name: str, picture: Picture, alpha: UInt8[np.ndarray, "H W"] | None) -> Cut:
        """The instances of a picture.

        Raises:
            ValueError: a prompt lies outside of it.
        """
        if self.predictor is None:
            found = flat_masks(picture, alpha)
            kept = instances(found.masks, self.objects, ground=found.ground)
            return Cut([Instance(_whole(found.masks[i]), None) for i in kept], found.how)
        asked = self.prompts.get(name)
        if asked is not None:
            check_inside(asked, picture.shape[:2])
            return Cut(self._answered(self.predictor, picture, asked), "SAM, by prompts")
        return Cut(self._everything(self.predictor, picture), "SAM")

    def _everything(self, predictor: Predictor, picture: Picture) -> list[Instance]:
        """What SAM finds by its grid."""
        height, width = picture.shape[:2]
        scale = min(1.0, LARGEST / max(height, width))
        size = tuple(max(round(side * scale), 1) for side in (width, height))
        small = cv2.resize(picture, size, interpolation=cv2.INTER_AREA) if scale < 1 else picture
        found = segment(predictor, small, self.grid)
        masks = [found.mask(i, small.shape[:2]) for i in range(len(found.quality))]
        kept = instances(masks, self.objects)

        def large(mask: Region) -> Region:
            if scale == 1:
                return mask
            soft = cv2.resize(mask.astype(np.float32), (width, height))
            return soft > 0.5

        return [Instance(_whole(large(masks[i])), float(found.quality[i])) for i in kept]

    def _answered(
        self, predictor: Predictor, picture: Picture, prompts: list[Prompt]
    ) -> list[Instance]:
        """An instance per prompt, in their order; of three answers the best."""
        seen, answers = predictor.embed(picture), {}
        for numbers, asked in alike(prompts):
            # A box, or several points, is not ambiguous: SAM's first answer is made for it.
            lone = asked.boxes is None and asked.points is not None and asked.points.shape[1] == 1
            found = predictor.predict(
                seen, asked.points, asked.labels, boxes=asked.boxes, several=lone
            )
            best = found.quality.argmax(axis=1)
            for row, number in enumerate(numbers):
                mask = found.masks[row, best[row]]
                if not mask.any():
                    raise ValueError(f"prompt {number + 1}: SAM sees nothing there; move it")
                answers[number] = Instance(mask, float(found.quality[row, best[row]]))
        return [answers[number] for number in range(len(prompts))]


def _whole(mask: Region) -> Region:
    return mended(mask, round(CRUMB * mask.size))


def _prompts(args: SegmentArgs, pictures: dict[str, Path]) -> dict[str, list[Prompt]]:
    """Name -> prompts; those of the command line are the one picture's."""
    words = from_words(args.points, args.boxes)
    if words and (args.prompts is not None or len(pictures) != 1):
        raise ValueError(
            f"--points and --boxes are about one picture: expected one, got {len(pictures)}; use "
            "--prompts FILE.json for several"
        )
    if words:
        return {next(iter(pictures)): words}
    if args.prompts is None:
        return {}
    rows = read_prompts(args.prompts)
    found = {_plain(name, pictures): row for name, row in rows.items()}
    if len(found) < len(rows):
        raise ValueError(
            f"{args.prompts}: pictures are named once, with or without suffix: got {sorted(rows)}"
        )
    if unknown := sorted(set(found) - set(pictures)):
        raise ValueError(f"{args.prompts}: of no picture that is given: {', '.join(unknown)}")
    return found


def _plain(name: str, pictures: dict[str, Path]) -> str:
    """A picture's name without its suffix."""
    path = Path(name)
    suffixed = name not in pictures and path.suffix.lower() in PICTURE_SUFFIXES
    return path.with_suffix("").as_posix() if suffixed else name


def _one(cutter: Cutter, name: str, path: Path, out: Path, console: Console) -> str | None:
    """Cuts a picture, unless that was done; says what was found. Where a person has changed masks
    since, all is left as it is, and that is said.

    Raises:
        ValueError: nothing was, the picture is bad, or another's files are in the way.
    """
    made_by = cutter.made_by(name, path)
    folder = out / FOLDER / name
    if read_record(folder).get("made_by") == made_by:
        if changed := changes(folder):
            said = f"kept {name} as it was changed by hand: {', '.join(changed)}"
            console.print(said, markup=False, soft_wrap=True, highlight=False)
        if changed or read_made_by(out / OVERLAYS / f"{name}.png") == made_by:
            return None
    check_place(out, name)
    picture, alpha = read_picture(path)
    cut = cutter(name, picture, alpha)
    if not cut.found:
        raise ValueError(
            f"no instance found by {cut.how} that has at least {cutter.objects.min_area:.2%} of "
            "the picture and is not all of it: lower --min-area, or give prompts and a --model"
        )
    write_cut(out, name, path, picture, cut, made_by)
    return f"{escape(name)}: {len(cut.found)} by {cut.how}"
