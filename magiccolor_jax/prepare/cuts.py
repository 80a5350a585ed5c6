"""Files of `magiccolor segment`: masks and a record per picture, overlays, COCO JSON.

A picture's folder is renamed into place when it is whole. What a person has changed or deleted in
it, or put there, is never overwritten: its pictures are then the masks, also in coco.json.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np

from magiccolor_jax.data import rle
from magiccolor_jax.data.listing import is_picture, natural_key
from magiccolor_jax.data.pictures import LIGHT, check_not_empty, read_mask, write_png
from magiccolor_jax.data.transforms import Picture, mask_box
from magiccolor_jax.files import (
    atomic_directory,
    atomic_file,
    remove_directory,
    remove_rests,
    remove_rests_below,
    sha256_of,
)
from magiccolor_jax.prepare.pictures import FAILURES, hash_picture
from magiccolor_jax.sampling.outputs import is_foreign, write_picture
from magiccolor_jax.segment.objects import Region

FOLDER, OVERLAYS = "instances", "overlays"

RECORD = "instances.json"

COCO, MARK = "coco.json", "magiccolor segment"
"""COCO's file, and what its `info` says where it is ours."""

COLORS = np.array(
    [(230, 60, 60), (60, 160, 60), (70, 90, 230), (230, 180, 40), (180, 70, 200), (60, 190, 200)],
    np.float32,
)
"""Of instances on an overlay, in turn."""


class Instance(NamedTuple):
    """A mask, and the network's guess of its quality."""

    mask: Region
    score: float | None


class Cut(NamedTuple):
    """A picture's instances, and by what they were found."""

    found: list[Instance]
    how: str


KINDS = {"made_by": dict, "file_name": str, "height": int, "width": int, "files": dict}
"""What a record has beside its instances, one for each file."""


def read_record(folder: Path) -> dict[str, Any]:
    """What is known of a picture that was cut; empty where there is no record of ours."""
    try:
        found = json.loads((folder / RECORD).read_text())
        rows = found["instances"]
        ours = all(isinstance(found[name], kind) for name, kind in KINDS.items())
        ours = ours and len(rows) == len(found["files"])
        return found if ours and all(isinstance(row, dict) for row in rows) else {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def changes(folder: Path) -> list[str]:
    """What a person has changed, added or deleted since a picture was cut, in words."""
    record = read_record(folder)
    ours = record.get("files", {})
    there = {path.name: path for path in folder.iterdir()}
    if record:
        there.pop(RECORD, None)
    found = dict.fromkeys(ours.keys() - there.keys(), "deleted")
    for name, path in there.items():
        if name not in ours:
            found[name] = "added"
        elif not path.is_file() or hash_picture(path) != ours[name]:
            found[name] = "changed"
    return [f"{name} {found[name]}" for name in sorted(found, key=natural_key)]


def write_cut(
    out: Path, name: str, path: Path, picture: Picture, cut: Cut, made_by: dict[str, Any]
) -> None:
    """Writes masks, record and overlay of a picture.

    Args:
        path: of the picture.
        made_by: all that the masks depend on.

    Raises:
        ValueError: files stand there that are not ours.
    """
    check_place(out, name)
    folder = out / FOLDER / name
    if folder.is_dir():
        remove_directory(folder)
    write_picture(out / OVERLAYS / f"{name}.png", overlay(picture, cut), made_by)
    with atomic_directory(folder) as new:
        files = {}
        for number, instance in enumerate(cut.found, 1):
            mask = new / f"{number}.png"
            write_png(mask, np.where(instance.mask, np.uint8(255), np.uint8(0)))
            files[mask.name] = sha256_of(mask)
        height, width = picture.shape[:2]
        record = {
            "made_by": made_by,
            "how": cut.how,
            "file_name": str(path),
            "height": height,
            "width": width,
            "files": files,
            "instances": [_annotation(instance) for instance in cut.found],
        }
        (new / RECORD).write_text(json.dumps(record, indent=1) + "\n")


def check_place(out: Path, name: str) -> None:
    """Raises ValueError where a picture's masks or overlay would take the place of others' files,
    or of what somebody has worked on."""
    folder, shown = out / FOLDER / name, out / OVERLAYS / f"{name}.png"
    if is_foreign(shown):
        raise ValueError(f"{shown} exists and is none of ours: move it, or choose another --out")
    if folder.is_dir() and (changed := changes(folder)):
        raise ValueError(
            f"{folder}: masks that were changed by hand are kept: expected what an earlier run "
            f"left, got {', '.join(changed)}; move the folder, or choose another --out"
        )


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


def check_coco(out: Path) -> None:
    """Raises ValueError where another's coco.json stands in the way."""
    path = out / COCO
    if not path.exists():
        return
    try:
        ours = json.loads(path.read_text())["info"]["description"] == MARK
    except (OSError, ValueError, KeyError, TypeError):
        ours = False
    if not ours:
        raise ValueError(f"{path} exists and is none of ours: move it, or choose another --out")


def remove_dead(out: Path) -> None:
    """Removes what a run that died left among the results; no other may be at work."""
    remove_rests(out, f".{COCO}.*.tmp")
    remove_rests_below(out / FOLDER, whole=RECORD)
    remove_rests_below(out / OVERLAYS)


def _folders(out: Path) -> list[Path]:
    """Those of pictures that were cut; hidden ones are none, for one is written there."""
    above = out / FOLDER
    found = (path.parent for path in sorted(above.rglob(RECORD)))
    return [
        path
        for path in found
        if not any(part.startswith(".") for part in path.relative_to(above).parts)
    ]


def write_coco(out: Path) -> list[str]:
    """Writes coco.json of all pictures that were cut into this folder, by any run, with their masks
    as they are now.

    Returns:
        What a person has put there as a mask and is none, and is left out.
    """
    images, annotations, bad = [], [], []
    for folder in _folders(out):
        record = read_record(folder)
        if not record:
            continue
        image = {key: record[key] for key in ("file_name", "height", "width")}
        images.append({"id": len(images) + 1} | image)
        for entry in _entries(folder, record, bad):
            numbers = {"id": len(annotations) + 1, "image_id": len(images)}
            annotations.append(numbers | entry)
    content = {
        "info": {"description": MARK},
        "images": images,
        "annotations": annotations,
        "categories": [{"id": 1, "name": "instance"}],
    }
    with atomic_file(out / COCO) as temporary:
        temporary.write_text(json.dumps(content) + "\n")
    return bad


def _entries(folder: Path, record: dict[str, Any], bad: list[str]) -> Iterator[dict[str, Any]]:
    """A picture's masks as COCO has them: of what is in its folder, in natural order, that which is
    as it was cut from the record; adds what is no mask to `bad`."""
    files = record["files"]
    known = dict(zip(files, record["instances"], strict=True))
    shape, owner = (record["height"], record["width"]), Path(record["file_name"]).name
    there = sorted(filter(is_picture, folder.iterdir()), key=lambda path: natural_key(path.name))
    for path in there:
        try:
            if path.name in files and hash_picture(path) == files[path.name]:
                yield known[path.name]
            else:
                mask = read_mask(path, shape, owner) >= LIGHT
                check_not_empty(path, mask.astype(np.uint8))
                yield _annotation(Instance(mask, None))
        except FAILURES as error:
            bad.append(str(error))


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
