"""From stills to records: instances, references in other frames, sketches."""

import contextlib
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from magiccolor_jax.data.cases import MASK_MIDDLE, owned_pixels
from magiccolor_jax.data.listing import contents, pictures_in, some_names
from magiccolor_jax.data.pictures import (
    PICTURE_SUFFIXES,
    CaseError,
    read_mask,
    read_sketch,
    size_text,
)
from magiccolor_jax.data.scenes import Scene, View
from magiccolor_jax.data.shards import Packed, pack
from magiccolor_jax.data.transforms import WHITE, Mask, Picture, mask_box
from magiccolor_jax.files import is_disk_full
from magiccolor_jax.lineart.method import LineArt
from magiccolor_jax.prepare.clips import Clip
from magiccolor_jax.prepare.marks import StoppedError, Watch
from magiccolor_jax.prepare.matching import Look, Seen
from magiccolor_jax.prepare.pictures import FAILURES
from magiccolor_jax.prepare.segmenting import Cutter
from magiccolor_jax.prepare.stills import Bad, Group, Still, Unit, shrunk

GIVEN = "given"

SUFFIXES = sorted({each for suffix in PICTURE_SUFFIXES for each in (suffix, suffix.upper())})
"""Of sketches that are given; a folder of many is not listed for each."""

MARGIN = 8
"""Pixels of its picture around an instance's box that a view keeps."""


class Given(NamedTuple):
    """Folders of what need not be made, by the pictures' names."""

    masks: Path | None = None
    sketches: Path | None = None

    def check(self) -> None:
        """Raises OSError where a folder has gone: what is given would be made instead."""
        for flag, path in (("--masks", self.masks), ("--sketches", self.sketches)):
            if path and not path.is_dir():
                raise StoppedError(
                    f"{flag} {path}: what is given stays while it is read: expected a folder, got "
                    "none; put it back, the same command goes on"
                )


def check_given(given: Given, listed: Sequence[Unit | Clip]) -> None:
    """Raises ValueError where nothing in a folder that is given is called after an input's picture
    or clip; COCO's panoptic PNGs, which --masks names too, have names of their own."""
    panoptic = any(each.kind == "coco" for each in listed)
    if given.masks and not panoptic and not any((given.masks / n.name).is_dir() for n in listed):
        raise _unnamed("--masks", given.masks, "NAME/1.png", listed)
    # Of a clip there is a folder of sketches.
    places = [given.sketches / each.name for each in listed] if given.sketches else []
    if given.sketches and not any(place.is_dir() or _sketch_file(place) for place in places):
        raise _unnamed("--sketches", given.sketches, "NAME.png", listed)


def _unnamed(flag: str, folder: Path, form: str, listed: Sequence[Unit | Clip]) -> ValueError:
    names = some_names([each.name for each in listed])
    return ValueError(
        f"{flag} {folder}: what is given is called after its picture: expected {form} for a NAME "
        f"of {names}, got {contents(folder)}; give the folder in which they are, or no {flag}"
    )


class Made(NamedTuple):
    """What became of a unit."""

    packed: list[Packed]
    about: list[dict[str, Any]]
    """Of each record, for reports; JSON."""
    bad: list[Bad]


class Maker:
    """Makes records of units; threads may share it."""

    def __init__(
        self,
        cutter: Cutter,
        extractor: LineArt,
        look: Look,
        given: Given,
        watch: Watch,
        side: int,
        *,
        lone: bool,
    ):
        """
        Args:
            side: longest side of pictures, in pixels.
            lone: networks run, and one thread at a time may use their device.
        """
        self._cutter, self._extractor, self._look = cutter, extractor, look
        self._given, self._watch, self._side = given, watch, side
        self._device = threading.Lock() if lone else contextlib.nullcontext()

    def __call__(self, unit: Unit) -> Made:
        """Reads a unit and makes its records.

        Raises:
            OSError: the disk is full, an input has gone or changed, or an error may pass.
        """
        try:
            group = unit.read()
            return self._records(unit, group)
        except FAILURES as error:
            if isinstance(error, StoppedError) or is_disk_full(error):
                raise
            self._watch.check(unit.path, error)
            return Made([], [], [Bad(unit.name, str(error))])

    def _records(self, unit: Unit, group: Group) -> Made:
        """The records of all stills that have instances; the others are left out."""
        made, stills, hows = Made([], [], [*group.bad]), dict[int, Still](), dict[int, str]()
        for number, still in enumerate(group.stills):
            try:
                stills[number], hows[number] = self._cut(shrunk(self._completed(still), self._side))
            except StoppedError:
                raise
            except FAILURES as error:
                self._watch.check(unit.path, error)
                made.bad.append(Bad(still.name, str(error)))
        seen = self._seen(stills, group.looks)
        for number, others in group.looks.items():
            if number not in stills:
                continue
            try:
                still, near = stills[number], [each for each in others if each in stills]
                if near:
                    still = still._replace(views=self._views(number, near, stills, seen))
                still = still if still.lines is not None else self._drawn(still)
                packed, about = _pack(unit, still, hows[number])
            except FAILURES as error:
                self._watch.check(unit.path, error)
                made.bad.append(Bad(group.stills[number].name, str(error)))
            else:
                made.packed.append(packed)
                made.about.append(about)
        return made

    def _completed(self, still: Still) -> Still:
        """With the masks and the sketch that are given; at the picture's own size.

        Raises:
            CaseError: one cannot be read, or has another size.
            OSError: a folder of what is given has gone.
        """
        self._given.check()
        shape, owner = still.picture.shape[:2], still.path.name
        folder = self._given.masks and self._given.masks / still.name
        if folder and still.masks is None and folder.is_dir():
            found = [read_mask(file, shape, owner) for file in pictures_in(folder).values()]
            still = still._replace(masks=tuple(found) or None)
        place = self._given.sketches and self._given.sketches / still.name
        if place and still.lines is None:
            file = _sketch_file(place)
            still = still if file is None else still._replace(lines=_sketch(file, still))
        return still

    def _cut(self, still: Still) -> tuple[Still, str]:
        """With masks, and by what they were found.

        Raises:
            CaseError: there are none.
        """
        if still.masks is not None:
            found, how = _seen_ones(still) if still.views else _parted(still), GIVEN
        else:
            with self._device:
                cut = self._cutter(still.name, still.picture, still.alpha)
            masks = tuple(np.where(each.mask, np.uint8(255), np.uint8(0)) for each in cut.found)
            found, how = _parted(still._replace(masks=masks)), cut.how
        if not found.masks:
            raise CaseError(
                still.path,
                "a record has instances",
                expected=f"one of {self._cutter.objects.min_area:.2%} of the picture or more that "
                "is not all of it",
                got=f"none by {how}",
                fix="lower --min-area, give --masks or a --model, or leave the picture out",
            )
        return found, how

    def _seen(
        self, stills: Mapping[int, Still], looks: Mapping[int, Sequence[int]]
    ) -> dict[int, Seen]:
        """What instances look like, of the stills that are compared with others."""
        compared = {n for target, others in looks.items() if others for n in (target, *others)}
        return {
            number: self._look.see(
                still.picture, [mask > MASK_MIDDLE for mask in still.masks or ()]
            )
            for number, still in stills.items()
            if number in compared
        }

    def _views(
        self,
        target: int,
        others: Sequence[int],
        stills: Mapping[int, Still],
        seen: Mapping[int, Seen],
    ) -> tuple[tuple[View, ...], ...]:
        """For each instance of a still the same one in others."""
        views: list[list[View]] = [[] for _ in stills[target].masks or ()]
        for number in others:
            other = stills[number]
            for i, j in self._look.match(seen[target], seen[number]):
                assert other.masks is not None, "they have been cut"
                views[i].append(_view(other.picture, other.masks[j]))
        return tuple(map(tuple, views))

    def _drawn(self, still: Still) -> Still:
        """With its lines."""
        with self._device:
            lines = self._extractor(still.picture)
        return still._replace(lines=np.repeat(lines[..., None], 3, axis=-1))


def _parted(still: Still) -> Still:
    """With masks that do not overlap, as training sees them: no reference of an instance shows
    what stands before it. What is hidden altogether is no instance."""
    owned = owned_pixels(still.masks) if still.masks else []
    masks = (np.where(mask, np.uint8(255), np.uint8(0)) for mask in owned if mask.any())
    return still._replace(masks=tuple(masks))


def _seen_ones(still: Still) -> Still:
    """Without instances of which nothing is left at this size; the others as they are."""
    pairs = zip(still.masks or (), still.views, strict=True)
    seen = [(mask, views) for mask, views in pairs if (mask > MASK_MIDDLE).any()]
    masks, views = (tuple(column) for column in zip(*seen, strict=True)) if seen else ((), ())
    return still._replace(masks=masks, views=views)


def _view(picture: Picture, mask: Mask) -> View:
    """The part of a picture that shows an instance, and a little around it."""
    box = mask_box(mask > MASK_MIDDLE)
    assert box is not None, "an instance has a pixel"
    top, left, bottom, right = box
    at = (
        slice(max(top - MARGIN, 0), bottom + 1 + MARGIN),
        slice(max(left - MARGIN, 0), right + 1 + MARGIN),
    )
    return View(np.ascontiguousarray(picture[at]), np.ascontiguousarray(mask[at]))


def _sketch_file(place: Path) -> Path | None:
    """The picture that has this path without its suffix."""
    files = (place.with_name(place.name + suffix) for suffix in SUFFIXES)
    return next(filter(Path.is_file, files), None)


def _sketch(file: Path, still: Still) -> Picture:
    """A sketch that is given.

    Raises:
        CaseError: it cannot be read, or has another size than its picture.
    """
    lines = read_sketch(file)
    if lines.shape != still.picture.shape:
        raise CaseError(
            file,
            "a sketch has the size of its picture",
            expected=size_text(still.picture.shape),
            got=size_text(lines.shape),
            fix="draw it from the picture as it is, or remove it",
        )
    return lines


def _pack(unit: Unit, still: Still, how: str) -> tuple[Packed, dict[str, Any]]:
    """A still's record, and what reports say of it.

    Raises:
        CaseError: a reader would refuse it.
    """
    masks = still.masks or ()
    views = still.views or ((),) * len(masks)
    scene = Scene(still.name, still.path, still.picture, still.lines, masks, views)
    note = "; ".join(filter(None, (unit.provenance.note, still.note)))
    provenance = unit.provenance._replace(note=note)
    packed = pack(scene, provenance)
    assert still.lines is not None, "they have been drawn"
    about = {
        "name": still.name,
        "clip": unit.clip,
        "kind": unit.kind,
        "how": how,
        "height": packed.outline.height,
        "width": packed.outline.width,
        "areas": [round(float((mask > MASK_MIDDLE).mean()), 4) for mask in masks],
        "references": [len(each) for each in views],
        "ink": round(float((still.lines < WHITE // 2).mean()), 4),
        "bytes": len(packed.data),
        **provenance._asdict(),
    }
    return packed, about
