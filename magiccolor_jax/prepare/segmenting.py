"""`magiccolor segment`: pictures in, instance masks, COCO JSON and overlays out."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import jax
import numpy as np
from jaxtyping import UInt8
from rich.console import Console
from rich.markup import escape
from rich.progress import track

from magiccolor_jax.checkpoint import load_network, read_config
from magiccolor_jax.data import rle
from magiccolor_jax.data.listing import is_picture, pictures_below
from magiccolor_jax.data.pictures import read_picture, write_png
from magiccolor_jax.data.transforms import Picture, mask_box
from magiccolor_jax.files import atomic_file, sha256_of
from magiccolor_jax.prepare.arguments import SegmentArgs
from magiccolor_jax.prepare.prompts import (
    Prompt,
    alike,
    check_inside,
    from_words,
    read_prompts,
)
from magiccolor_jax.sampling.outputs import hash_model
from magiccolor_jax.segment.automatic import AutomaticConfig, segment
from magiccolor_jax.segment.classical import flat_masks
from magiccolor_jax.segment.objects import ObjectConfig, Region, instances, mended
from magiccolor_jax.segment.predictor import Predictor

CRUMB = 1e-4
"""Holes and islands below this share of the picture are none."""

COLORS = np.array(
    [(230, 60, 60), (60, 160, 60), (70, 90, 230), (230, 180, 40), (180, 70, 200), (60, 190, 200)],
    np.float32,
)
"""Of instances on an overlay, in turn."""

RECORD = "instances.json"


class Instance(NamedTuple):
    """A mask, and the network's guess of its quality."""

    mask: Region
    score: float | None


class Cut(NamedTuple):
    """A picture's instances, and by what they were found."""

    found: list[Instance]
    how: str


def run(args: SegmentArgs, console: Console) -> int:
    """Cuts every picture that is not cut yet.

    Returns:
        How many failed.

    Raises:
        ValueError, OSError: arguments, prompts or the model do not fit; the disk is full.
    """
    pictures = name_pictures(args.pictures, args.out)
    cutter = Cutter(args, pictures)
    console.print(f"{len(pictures)} pictures by {cutter.who}", markup=False, soft_wrap=True)
    failed = 0
    for name, path in track(pictures.items(), "pictures", console=console):
        try:
            _one(cutter, name, path, args.out, console)
        except ValueError as error:
            failed += 1
            text = f"[red]failed[/red] {escape(name)}: {escape(str(error))}"
            console.print(text, soft_wrap=True, highlight=False)
    write_coco(args.out, pictures)
    console.print(f"-> {args.out / 'overlays'}", markup=False, soft_wrap=True)
    return failed


def name_pictures(paths: Iterable[Path], out: Path) -> dict[str, Path]:
    """Name of each picture: its file's, or its path below the folder that was walked, without
    suffix.

    Args:
        out: a folder that is not looked into.

    Raises:
        ValueError: there is none, a path is no picture, or two have one name.
    """
    found: dict[str, Path] = {}
    for root in paths:
        if not root.exists() or (root.is_file() and not is_picture(root)):
            raise ValueError(f"{root}: expected a picture or a folder of pictures")
        below = [root] if root.is_file() else pictures_below(root)
        for path in below:
            if out.resolve() in path.resolve().parents:
                continue
            name = path.stem if path == root else path.relative_to(root).with_suffix("").as_posix()
            if found.setdefault(name, path).resolve() != path.resolve():
                raise ValueError(
                    f"masks are named after their pictures: {found[name]} and {path} would both "
                    f"be {name}; cut them into different folders"
                )
    if not found:
        raise ValueError("no pictures: expected pictures, or folders of them")
    return found


class Cutter:
    """What cuts pictures: SAM, or the classical way."""

    def __init__(self, args: SegmentArgs, pictures: dict[str, Path]):
        """Raises ValueError where the arguments do not fit together, or the model is none."""
        self.objects = ObjectConfig(
            min_area=args.min_area, max_count=args.max_count, merge=args.merge
        )
        self.grid = AutomaticConfig(
            points_per_side=args.points_per_side,
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
        """All that the masks of a picture depend on."""
        asked = self.prompts.get(name)
        return {
            "picture": sha256_of(path),
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
            kept = instances(found.masks, self.objects)
            return Cut([Instance(_whole(found.masks[i]), None) for i in kept], found.how)
        asked = self.prompts.get(name)
        if asked is not None:
            check_inside(asked, picture.shape[:2])
            return Cut(self._answered(self.predictor, picture, asked), "SAM, by prompts")
        found = segment(self.predictor, picture, self.grid)
        masks = [found.mask(i, picture.shape[:2]) for i in range(len(found.quality))]
        kept = instances(masks, self.objects)
        return Cut([Instance(_whole(masks[i]), float(found.quality[i])) for i in kept], "SAM")

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
    found = {
        Path(n).with_suffix("").as_posix(): row for n, row in read_prompts(args.prompts).items()
    }
    if unknown := sorted(set(found) - set(pictures)):
        raise ValueError(f"{args.prompts}: of no picture that is given: {', '.join(unknown)}")
    return found


def _one(cutter: Cutter, name: str, path: Path, out: Path, console: Console) -> None:
    """Cuts a picture, unless that was done; its record is written last."""
    folder = out / "masks" / name
    made_by = cutter.made_by(name, path)
    if read_record(folder).get("made_by") == made_by:
        return
    picture, alpha = read_picture(path)
    cut = cutter(name, picture, alpha)
    if not cut.found:
        raise ValueError(
            f"no instance found by {cut.how}: lower --min-area, or give prompts and a --model"
        )
    for old in folder.glob("*.png"):
        old.unlink()
    for number, instance in enumerate(cut.found, 1):
        write_png(folder / f"{number}.png", np.where(instance.mask, np.uint8(255), np.uint8(0)))
    write_png(out / "overlays" / f"{name}.png", overlay(picture, cut))
    height, width = picture.shape[:2]
    record = {
        "made_by": made_by,
        "how": cut.how,
        "file_name": str(path),
        "height": height,
        "width": width,
        "instances": [_annotation(instance) for instance in cut.found],
    }
    with atomic_file(folder / RECORD) as temporary:
        temporary.write_text(json.dumps(record, indent=1) + "\n")
    console.print(f"{name}: {len(cut.found)} by {cut.how}", markup=False, highlight=False)


def read_record(folder: Path) -> dict[str, Any]:
    """What is known of a picture that was cut; empty where nothing is."""
    try:
        found = json.loads((folder / RECORD).read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _annotation(instance: Instance) -> dict[str, Any]:
    """An instance as COCO has it."""
    box = mask_box(instance.mask)
    assert box is not None, "an instance has a pixel"
    top, left, bottom, right = box
    encoded = rle.encode(instance.mask)
    counts = encoded["counts"]
    return {
        "segmentation": {
            "size": encoded["size"],
            "counts": counts.decode() if isinstance(counts, bytes) else counts,
        },
        "area": int(instance.mask.sum()),
        "bbox": [left, top, right - left + 1, bottom - top + 1],
        "iscrowd": 0,
        "category_id": 1,
        **({} if instance.score is None else {"score": round(instance.score, 4)}),
    }


def write_coco(out: Path, pictures: dict[str, Path]) -> None:
    """Writes coco.json of all pictures that are cut."""
    images, annotations = [], []
    for name in pictures:
        record = read_record(out / "masks" / name)
        if not record:
            continue
        image = {key: record[key] for key in ("file_name", "height", "width")}
        images.append({"id": len(images) + 1} | image)
        for entry in record["instances"]:
            numbers = {"id": len(annotations) + 1, "image_id": len(images)}
            annotations.append(numbers | entry)
    content = {
        "images": images,
        "annotations": annotations,
        "categories": [{"id": 1, "name": "instance"}],
    }
    with atomic_file(out / "coco.json") as temporary:
        temporary.write_text(json.dumps(content) + "\n")


def overlay(picture: Picture, cut: Cut) -> Picture:
    """The picture under its instances' colours, with outlines and numbers."""
    shown = picture.astype(np.float32)
    for number, instance in enumerate(cut.found):
        color = COLORS[number % len(COLORS)]
        shown[instance.mask] = 0.5 * shown[instance.mask] + 0.5 * color
    drawn = np.ascontiguousarray(np.rint(shown).astype(np.uint8))
    width = max(max(picture.shape[:2]) // 400, 1)
    for number, instance in enumerate(cut.found):
        color = tuple(map(int, COLORS[number % len(COLORS)] // 2))
        outlines, _ = cv2.findContours(
            instance.mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE
        )
        cv2.drawContours(drawn, outlines, -1, color, width)
        # Deep inside, where a number is read best.
        inside = cv2.distanceTransform(instance.mask.astype(np.uint8), cv2.DIST_L2, 3)
        y, x = np.unravel_index(inside.argmax(), inside.shape)
        size = max(picture.shape[:2]) / 500
        at = (int(x) - round(8 * size), int(y) + round(8 * size))
        for stroke, ink in ((4, (255, 255, 255)), (2, (0, 0, 0))):
            cv2.putText(
                drawn,
                str(number + 1),
                at,
                cv2.FONT_HERSHEY_SIMPLEX,
                size * 0.8,
                ink,
                max(round(stroke * size), 1),
                cv2.LINE_AA,
            )
    return drawn
