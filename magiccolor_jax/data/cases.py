"""Finding and reading case folders, in our layout and the release's (release.md §3).

    ours      sketch.*  [target.*]  references/ID.*  sketch_masks/ID.png  [reference_masks/ID.png]
    release   sketch.*  [target.*]  1.* ... n.*      masks/mask_1.png ... mask_n.png

Files pair by stem and natural order gives the ids. The release's masks belong to the references.
"""

import logging
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, UInt8

from magiccolor_jax.data.listing import contents, is_picture, pictures_in, some_names, walk
from magiccolor_jax.data.pictures import (
    CaseError,
    read_mask,
    read_masked,
    read_picture,
    read_sketch,
    size_text,
)
from magiccolor_jax.types import Case

logger = logging.getLogger(__name__)

MAX_REFERENCES = 16
"""Most instances on one page: the largest bucket that programs are compiled for."""

MASK_MIDDLE = 127
"""Masks overlap where both are above this."""

SAME_PROPORTIONS = 0.02
"""Largest relative difference that rounding to whole pixels explains."""

OVERLAP_TEXT = "sketch masks overlap in {} pixels; the higher id owns them"

OUR_FOLDERS = ("references", "sketch_masks")
RELEASE_FOLDER = "masks"
LAYOUT_TEXT = "sketch.* beside references/ and sketch_masks/ (or beside 1.*, 2.*, ... and masks/)"


class CaseFiles(NamedTuple):
    """Where the parts of a case are; the dicts go from the stem that pairs them to the file."""

    layout: str
    sketch: Path
    target: Path | None
    references: dict[str, Path]
    reference_masks: dict[str, Path]
    sketch_masks: dict[str, Path]


def find_cases(paths: Iterable[str | Path]) -> list[Path]:
    """Lists the cases at or below the paths, each once: paths as given, folders in natural order.

    Raises nothing: a path without any case stays in the list, for `read_case` to say what is wrong
    with it while the others go on.
    """
    found: dict[str, Path] = {}
    for path in map(Path, paths):
        for case in list(walk(path, is_case_folder)) or [path]:
            found.setdefault(os.path.realpath(case), case)
    return list(found.values())


def read_case(path: str | Path, *, report_overlaps: bool = True) -> Case:
    """Reads and checks one case folder; nothing is resized.

    Args:
        report_overlaps: log a warning where sketch masks overlap (the higher id owns such pixels);
            training, which reads a case many times, passes False.

    Raises:
        CaseError: anything that keeps the case from being used.
    """
    path = Path(path)
    files = find_case_files(path)
    _check_pairs(path, files)
    sketch = read_sketch(files.sketch)
    page = sketch.shape[:2]
    pairs = [_read_reference(files, stem) for stem in files.references]
    masks = [
        read_mask(files.sketch_masks[stem], page, "the sketch")
        for stem in files.references
        if stem in files.sketch_masks
    ]
    if report_overlaps and (count := overlapping_pixels(masks)):
        logger.warning("%s: %s", path, OVERLAP_TEXT.format(count))
    return Case(
        name=path.resolve().name,
        path=path,
        layout=files.layout,
        sketch=sketch,
        references=tuple(picture for picture, _ in pairs),
        reference_masks=tuple(mask for _, mask in pairs),
        sketch_masks=tuple(masks),
        target=_read_target(files.target, page),
    )


def is_case_folder(folder: Path, entries: Sequence[Path]) -> bool:
    """Whether the names in a folder make it a case, whole or broken."""
    return any(_is_mark(entry) for entry in entries)


def case_files(path: str | Path) -> list[Path]:
    """The files that colouring a case reads (all but the target), in a fixed order.

    Raises:
        CaseError: not a case.
    """
    files = find_case_files(Path(path))
    parts = (files.references, files.reference_masks, files.sketch_masks)
    return [files.sketch, *(file for part in parts for file in part.values())]


def _is_mark(entry: Path) -> bool:
    """Whether an entry's name makes its folder a case."""
    if entry.stem == "sketch" and is_picture(entry):
        return True
    return entry.name in (*OUR_FOLDERS, RELEASE_FOLDER) and entry.is_dir()


def find_case_files(path: Path) -> CaseFiles:
    """Tells the layout by its names and collects the files.

    Raises:
        CaseError: not a case, or the names of both layouts.
    """
    top = pictures_in(path, r"sketch|target|[0-9]+")
    numbered = {f"mask_{stem}": file for stem, file in top.items() if stem.isdigit()}
    ours = [f"{name}/" for name in OUR_FOLDERS if (path / name).is_dir()]
    theirs = [file.name for file in numbered.values()]
    theirs += [f"{RELEASE_FOLDER}/"] if (path / RELEASE_FOLDER).is_dir() else []
    if "sketch" not in top or not (ours or theirs):
        raise CaseError(
            path,
            "a case has a sketch and references",
            expected=LAYOUT_TEXT,
            got=contents(path),
            fix="give a case folder, or a folder of case folders, and check the names",
        )
    if ours and theirs:
        raise CaseError(
            path,
            "a case has one layout",
            expected=LAYOUT_TEXT,
            got=some_names(ours + theirs),
            fix="remove what belongs to the other layout",
        )
    sketch, target = top["sketch"], top.get("target")
    if theirs:
        return CaseFiles("release", sketch, target, numbered, _part(path / RELEASE_FOLDER), {})
    references, masks = _part(path / "references"), _part(path / "reference_masks")
    return CaseFiles("magiccolor", sketch, target, references, masks, _part(path / "sketch_masks"))


def _part(folder: Path) -> dict[str, Path]:
    """The pictures of a case's sub-folder; none where it does not exist."""
    return pictures_in(folder) if folder.is_dir() else {}


def _check_pairs(path: Path, files: CaseFiles) -> None:
    """Raises CaseError unless there are 1..16 references, each paired as its layout demands."""
    count = len(files.references)
    if not 1 <= count <= MAX_REFERENCES:
        raise CaseError(
            path,
            "a page takes its colours from a few references",
            expected=f"1 to {MAX_REFERENCES} references",
            got=str(count),
            fix="add the missing pictures, or split the page's instances over several cases",
        )
    if files.layout == "release":
        _check_pair(files.references, files.reference_masks, "mask", required=True)
    else:
        _check_pair(files.references, files.sketch_masks, "sketch mask", required=True)
        _check_pair(files.references, files.reference_masks, "reference mask", required=False)


def _check_pair(
    references: dict[str, Path], masks: dict[str, Path], kind: str, *, required: bool
) -> None:
    """Raises CaseError for a mask without reference, or the reverse where masks are required."""
    for stem, file in masks.items():
        if stem not in references:
            raise CaseError(
                file,
                f"every {kind} belongs to a reference",
                expected=f"a reference for {file.name} beside {some_names(_names(references))}",
                got="none",
                fix="add the reference, or remove or rename the mask",
            )
    for stem, file in references.items():
        if required and stem not in masks:
            raise CaseError(
                file,
                f"every reference has a {kind}",
                expected=f"{stem}.png beside {some_names(_names(masks))}",
                got="none",
                fix="add the mask, or remove or rename the reference",
            )


def _names(files: dict[str, Path]) -> list[str]:
    """Folder and file name of each, for an error."""
    return [f"{file.parent.name}/{file.name}" for file in files.values()]


def _read_reference(
    files: CaseFiles, stem: str
) -> tuple[UInt8[np.ndarray, "H W 3"], UInt8[np.ndarray, "h w"]]:
    """A reference and what counts of it."""
    path, mask = files.references[stem], files.reference_masks.get(stem)
    if mask is not None and files.layout == "release":
        # It squeezes picture and mask to one square, each from a size of its own.
        picture, found = read_picture(path)[0], read_mask(mask, None, path.name)
        if _squeezes_alike(found.shape, picture.shape[:2]):
            return picture, found
    return read_masked(path, mask)


def _squeezes_alike(mask: tuple[int, ...], picture: tuple[int, ...]) -> bool:
    """Whether a mask is its picture at another scale, or is squeezed to a square already."""
    height, width = mask
    scales = height / picture[0], width / picture[1]
    return height == width or abs(scales[0] / scales[1] - 1) < SAME_PROPORTIONS


def _read_target(path: Path | None, page: tuple[int, int]) -> UInt8[np.ndarray, "H W 3"] | None:
    """The truth, where the case has one.

    Raises:
        CaseError: it is not as large as the sketch.
    """
    if path is None:
        return None
    target, _ = read_picture(path)
    if target.shape[:2] != page:
        raise CaseError(
            path,
            "a target has the size of its sketch",
            expected=size_text(page),
            got=size_text(target.shape),
            fix="export both at one size, or remove the target",
        )
    return target


def overlapping_pixels(masks: Sequence[UInt8[np.ndarray, "H W"]]) -> int:
    """How many pixels several sketch masks claim."""
    claims = sum((mask > MASK_MIDDLE).astype(np.uint8) for mask in masks)
    return int(np.count_nonzero(np.asarray(claims) > 1))


def owned_pixels(masks: Sequence[UInt8[np.ndarray, "H W"]]) -> list[Bool[np.ndarray, "H W"]]:
    """Each instance's own pixels, of one or more: where masks overlap, the higher id's."""
    return owned([mask > MASK_MIDDLE for mask in masks])


def owned(marked: Sequence[Bool[np.ndarray, "H W"]]) -> list[Bool[np.ndarray, "H W"]]:
    """What each instance owns of what it marks: where they overlap, the higher id; may be nothing
    at all."""
    taken, found = np.zeros_like(marked[0]), []
    for own in reversed(marked):
        found.append(own & ~taken)
        taken |= own
    return found[::-1]
