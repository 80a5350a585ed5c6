"""COCO's annotations: JSON of instances (polygons, run lengths) or panoptic (JSON and PNGs).

Facts: https://cocodataset.org/#format-data. COCONut has the panoptic form, with PNGs as COCO's.
"""

import dataclasses
import functools
import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from jaxtyping import Bool

from magiccolor_jax.data import rle
from magiccolor_jax.data.pictures import (
    MAX_PIXELS,
    CaseError,
    check_mask_size,
    read_picture,
    size_text,
)
from magiccolor_jax.prepare.credits import Credits, spdx_of
from magiccolor_jax.prepare.stills import Group, Still, Unit, alone
from magiccolor_jax.segment.objects import ObjectConfig, Region, instances

SUBPIXEL = 4
"""Bits behind the point of a polygon's corners."""

Row = Mapping[str, Any]


class Folders(NamedTuple):
    """Where what a JSON file names is; None: beside the file."""

    pictures: Path | None = None
    panoptic: Path | None = None


class Annotations:
    """A file of COCO's."""

    def __init__(self, path: Path):
        """Reads and checks it.

        Raises:
            ValueError: it is none; says where it differs.
        """
        self.path = path
        try:
            content = json.loads(path.read_bytes())
            ids = Counter(row["id"] for row in content["images"])
            self.images = {row["id"]: row for row in content["images"]}
            self.things = {
                row["id"] for row in content.get("categories", []) if row.get("isthing", 1)
            }
            self.licences = {row["id"]: row for row in content.get("licenses", []) if "id" in row}
            self.credits = {key: self._credit(row) for key, row in self.images.items()}
            rows = content["annotations"]
            self.panoptic = any("segments_info" in row for row in rows)
            self.of: dict[Any, list[Row]] = {}
            for row in rows:
                self.of.setdefault(row["image_id"], []).append(row)
            self.names = {key: str(row["file_name"]) for key, row in self.images.items()}
        except OSError as error:
            raise _unlike(path, error.strerror or str(error)) from error
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise _unlike(path, f"{type(error).__name__}: {error}") from error
        if twice := [key for key, number in ids.items() if number > 1]:
            raise _unlike(path, f"several pictures with the id {twice[0]}")
        if not self.of.keys() & self.images.keys():
            raise _unlike(path, f"{len(self.images)} pictures, and annotations of none of them")

    def _credit(self, image: Row) -> dict[str, str]:
        """What is known of a picture's origin."""
        number = image.get("license")
        if not isinstance(number, int | float | str | None):
            raise TypeError(f"image {image['id']} has the license {number!r}, which is no id")
        row = self.licences.get(number, {})
        address = image.get("flickr_url") or image.get("coco_url") or ""
        licence = spdx_of(str(row.get("url") or "")) if "creativecommons" in str(row) else ""
        return {"source": str(address), "licence": licence or spdx_of(str(row.get("name") or ""))}


def coco_units(path: Path, folders: Folders, config: ObjectConfig, origin: Credits) -> list[Unit]:
    """A unit for each picture that has annotations.

    Raises:
        ValueError: the file is none of COCO's, or its pictures are nowhere.
    """
    found = Annotations(path)
    pictures = folders.pictures or _beside(path, found)
    masks = folders.panoptic or panoptic_beside(path)
    units = []
    for key in found.images:
        if key not in found.of:
            continue
        file = pictures / found.names[key]
        read = functools.partial(_read, found, key, file, masks, config)
        name = Path(found.names[key]).with_suffix("").as_posix()
        credit = origin.of(name, str(file), found.credits[key])
        units.append(Unit(name, name, "coco", file, 1, credit, read))
    return units


def panoptic_beside(path: Path) -> Path:
    """The folder of a JSON file's PNGs, where nothing else is said."""
    return path.with_suffix("")


def _beside(path: Path, found: Annotations) -> Path:
    """The folder of the pictures, where nothing else is said: the first that has one of them."""
    stem = path.stem.split("_")[-1]  # instances_val2017.json -> val2017
    places = [path.parent, *(up / name for up in path.parents[:2] for name in (stem, "images"))]
    for place in places:
        if any((place / name).is_file() for name in list(found.names.values())[:100]):
            return place
    raise ValueError(
        f"{path}: the pictures that it names are nowhere beside it: expected one of them in "
        f"{', '.join(map(str, places))}; give --images FOLDER"
    )


def _read(found: Annotations, key: Any, file: Path, masks: Path, config: ObjectConfig) -> Group:
    """A picture with the masks of its things.

    Raises:
        CaseError: the picture or an annotation cannot be read, or there is no thing.
    """
    picture, _ = read_picture(file)
    shape = picture.shape[:2]
    _check_size(found.images[key], shape, file)
    regions = _regions(found, key, masks, shape)
    # Given masks are not parts of others, and none is the ground.
    kept = instances(regions, dataclasses.replace(config, merge=False), ground=False)
    if not kept:
        raise CaseError(
            file,
            "an annotated picture has instances",
            expected=f"a thing of {config.min_area:.2%} of the picture or more that is no crowd",
            got=f"{len(found.of[key])} annotations without one",
            fix="leave it out, or lower --min-area",
        )
    chosen = tuple(np.where(regions[i], np.uint8(255), np.uint8(0)) for i in kept)
    name = Path(found.names[key]).with_suffix("").as_posix()
    return alone(Still(name, file, picture, masks=chosen))


def _check_size(image: Row, shape: tuple[int, int], file: Path) -> None:
    """Raises CaseError where a picture, of this height and width, is not as large as its JSON says:
    scaled or turned, it would lie askew below its masks."""
    said = image.get("height"), image.get("width")
    if None not in said and said != shape:
        raise CaseError(
            file,
            "an annotated picture has the size that its JSON says",
            expected=f"{said[1]} x {said[0]}",
            got=size_text(shape),
            fix="give the pictures that were annotated, neither scaled nor turned",
        )


def _regions(found: Annotations, key: Any, masks: Path, shape: tuple[int, int]) -> list[Region]:
    """The things of a picture.

    Raises:
        CaseError: an annotation cannot be read, or the PNG of panoptic ones.
    """
    try:
        if found.panoptic:
            return _segments(found, found.of[key], masks, shape)
        return [
            _region(row["segmentation"], shape, found.path / f"annotation {row.get('id')}")
            for row in found.of[key]
            if _counts(found, row) and row.get("segmentation")
        ]
    except (LookupError, TypeError, AttributeError) as error:
        raise CaseError(
            found.path / f"image {key}",
            "annotations have COCO's fields",
            expected="category_id and segmentation; or file_name and segments_info, each of these "
            "with id and category_id",
            got=f"{type(error).__name__}: {error}",
            fix="mend the annotations, or leave the picture out",
        ) from error


def _counts(found: Annotations, row: Row) -> bool:
    """Whether an annotation is of one thing."""
    known = not found.things or row.get("category_id") in found.things
    return known and not row.get("iscrowd")


def _segments(
    found: Annotations, rows: list[Row], folder: Path, shape: tuple[int, int]
) -> list[Region]:
    """The things of a picture's panoptic PNG: each pixel has its segment's id, R + 256 (G + 256 B).

    Raises:
        CaseError: the PNG is missing, or of another size.
    """
    regions = []
    for row in rows:
        path = folder / str(row["file_name"])
        colors = read_picture(path)[0].astype(np.int32)
        ids = colors[..., 0] + 256 * (colors[..., 1] + 256 * colors[..., 2])
        check_mask_size(path, ids.astype(np.uint8), shape, "its picture")
        things = (each for each in row["segments_info"] if _counts(found, each))
        regions += [ids == int(each["id"]) for each in things]
    return regions


def _region(stored: Any, shape: tuple[int, int], where: Path) -> Bool[np.ndarray, "H W"]:
    """The mask of polygons or run lengths.

    Raises:
        CaseError: it is neither, or of another size.
    """
    try:
        if isinstance(stored, Mapping):
            mask = rle.decode(stored)
            if mask.shape == shape:
                return mask
            raise ValueError(f"run lengths of {list(mask.shape)} for a picture of {list(shape)}")
        return _filled([np.asarray(corners, float).reshape(-1, 2) for corners in stored], shape)
    except (ValueError, TypeError) as error:
        raise CaseError(
            where,
            "a segmentation is COCO's",
            expected="polygons [[x, y, x, y, x, y, ..], ..], or run lengths of the picture's size",
            got=str(error),
            fix="mend the annotation, or leave the picture out",
        ) from error


def _filled(polygons: list[np.ndarray], shape: tuple[int, int]) -> Bool[np.ndarray, "H W"]:
    """Pixels inside of any of some polygons; what has less than three corners has no inside.

    # differs: pycocotools draws the outline on a grid of five per pixel; an outline's own pixels
    may count here that do not there.

    Raises:
        ValueError: a corner is far outside of any picture, or no number.
    """
    mask = np.zeros(shape, np.uint8)
    for polygon in polygons:
        if not (np.abs(polygon) <= MAX_PIXELS).all():  # so is no NaN
            raise ValueError(f"corners that are no places in a picture: {polygon[:4].tolist()}")
        if len(polygon) < 3:
            continue
        # COCO's corners count from the picture's corner, OpenCV's from the first pixel's middle.
        corners = np.rint((polygon - 0.5) * (1 << SUBPIXEL)).astype(np.int32)
        cv2.fillPoly(mask, [corners], 1, shift=SUBPIXEL)
    return mask > 0


def _unlike(path: Path, got: str) -> ValueError:
    return ValueError(
        f"{path}: expected COCO's JSON, with images, annotations and categories, got {got}; "
        "give the file of instances or of panoptic annotations"
    )
