"""Sources whose every scene is a folder: cases, the release's training folders, frame triplets."""

import abc
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar, NamedTuple

import numpy as np
from jaxtyping import UInt8

from magiccolor_jax.data.cases import find_case_files, is_case_folder, read_case
from magiccolor_jax.data.listing import (
    contents,
    digest,
    is_picture,
    pictures_in,
    some_names,
    walk,
)
from magiccolor_jax.data.pictures import (
    CaseError,
    picture_size,
    read_mask,
    read_masked,
    read_picture,
)
from magiccolor_jax.data.scenes import Outline, Scene, View

MASKS, FRAME_MASKS = "masks", "frame1_masks"

WHOLE = ""
"""Key of the instance that marks everything, where there are no masks."""


class FolderSource(abc.ABC):
    """The scenes at or below a folder, listed once, in natural order; each is a folder too."""

    LAYOUT: ClassVar[str]
    """What a scene's folder looks like, for errors."""

    def __init__(self, path: str | Path):
        """Lists the scenes; a broken one is listed as well, for reading it to say what is wrong.

        Raises:
            CaseError: there are none.
        """
        self.path = Path(path)
        self.folders = list(walk(self.path, self.marks))
        if not self.folders:
            raise CaseError(
                self.path,
                "a source has scenes",
                expected=f"folders with {self.LAYOUT}",
                got=contents(self.path),
                fix="check the path and the names",
            )

    @staticmethod
    @abc.abstractmethod
    def marks(folder: Path, entries: Sequence[Path]) -> bool:
        """Whether the names in a folder make it a scene, whole or broken."""

    @abc.abstractmethod
    def outline(self, index: int) -> Outline:
        """Size and number of instances."""

    @abc.abstractmethod
    def __getitem__(self, index: int) -> Scene:
        """Reads and checks a scene."""

    def fingerprint(self) -> str:
        """Of the folders' names below the source's."""
        return digest(folder.relative_to(self.path) for folder in self.folders)

    def __len__(self) -> int:
        return len(self.folders)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.path}: {len(self)} scenes)"


class CaseFolders(FolderSource):
    """Cases in our layout (cases.py) that have a target; the references are the views."""

    LAYOUT = "target.* and sketch.* beside references/ and sketch_masks/"

    @staticmethod
    def marks(folder: Path, entries: Sequence[Path]) -> bool:
        """Whether a folder is a case, whole or broken."""
        return is_case_folder(folder, entries)

    def outline(self, index: int) -> Outline:
        """Size and number of instances; raises CaseError for a case that cannot be learned from."""
        folder = self.folders[index]
        files = find_case_files(folder)
        if files.target is None or not files.sketch_masks:
            raise self._unfit(folder, files.layout)
        return Outline(*picture_size(files.target), len(files.sketch_masks))

    def __getitem__(self, index: int) -> Scene:
        """Reads and checks a scene; raises CaseError as `read_case` does, and without target."""
        folder = self.folders[index]
        case = read_case(folder, report_overlaps=False)
        if case.target is None or not case.sketch_masks:
            raise self._unfit(folder, case.layout)
        pairs = zip(case.references, case.reference_masks, strict=True)
        return Scene(
            name=case.name,
            path=folder,
            target=case.target,
            lines=case.sketch,
            masks=case.sketch_masks,
            views=tuple((View(*pair),) for pair in pairs),
        )

    def _unfit(self, folder: Path, layout: str) -> CaseError:
        """The error of a case that can be coloured but not learned from."""
        release = layout == "release"
        got = "the release's layout, without sketch masks" if release else contents(folder)
        rule = "a training case shows its colours and where its instances are"
        fix = "add what is missing, or take the case out of the training folder"
        return CaseError(folder, rule, self.LAYOUT, got, fix)


class _Parts(NamedTuple):
    """The files of a training folder."""

    target: Path
    masks: dict[str, Path]
    """Of the target, in natural order; by what stands behind `mask_`. None at all: one instance
    that marks everything."""
    views: Mapping[str, tuple[Path, Path | None]]
    """Picture and mask file in which the instance of the same key is seen."""


class ReleaseFolders(FolderSource):
    """The release's training folders: a picture with references, or two frames.

    # differs: the release fills its id map in the target's masks and numbers files by one counter.
    Here `masks/` are masks of the target (NAME.* or frame3.*) whatever number they begin with;
    NAME_k.* is a view of the instance of mask_k, by its alpha channel or as a whole. For the
    other frame release.md names no masks: `frame1_masks/mask_k.png` may say where instance k is
    in frame1.* (an instance without one is not seen there); without that folder every instance
    has frame1.* as a whole for its view.
    """

    LAYOUT = f"NAME/NAME.* or frame1.*, frame3.* beside {MASKS}/mask_1.png, ..."

    @staticmethod
    def marks(folder: Path, entries: Sequence[Path]) -> bool:
        """Whether a folder holds masks or frames; with a sketch it is a case."""
        if any(entry.stem == "sketch" and is_picture(entry) for entry in entries):
            return False
        return has_masks(entries) or has_frames(entries)

    def outline(self, index: int) -> Outline:
        """Size of the target and number of its masks; raises CaseError as listing files does."""
        parts = self._parts(self.folders[index])
        return Outline(*picture_size(parts.target), max(1, len(parts.masks)))

    def __getitem__(self, index: int) -> Scene:
        """Reads and checks a scene; raises CaseError naming the file."""
        folder = self.folders[index]
        return _read(folder, self._parts(folder))

    def _parts(self, folder: Path) -> _Parts:
        """The files of a scene; raises CaseError unless they make one."""
        parts = _find_parts(folder, self.LAYOUT)
        if not parts.masks:
            raise _no_scene(folder, self.LAYOUT, f"no {MASKS}/mask_*")
        return parts


class Triplets(ReleaseFolders):
    """ATD-12K's folders of three frames: frame3.* is the target and frame1.* a view of it.

    One scene is made of a triplet, frame2.* is left out; what masks there are (normally none) are
    read as `ReleaseFolders` does, and without any one instance marks everything.
    """

    LAYOUT = "frame1.*, frame2.*, frame3.*"

    @staticmethod
    def marks(folder: Path, entries: Sequence[Path]) -> bool:
        """Whether a folder holds frames."""
        return has_frames(entries)

    def _parts(self, folder: Path) -> _Parts:
        """The files of a scene; raises CaseError unless they make one of frames."""
        parts = _find_parts(folder, self.LAYOUT)
        if parts.target.stem != "frame3":
            raise _no_scene(folder, self.LAYOUT, contents(folder))
        return parts


def has_masks(entries: Sequence[Path]) -> bool:
    """Whether a folder with these entries has masks beside its pictures."""
    return any(entry.name == MASKS and entry.is_dir() for entry in entries)


def has_frames(entries: Sequence[Path]) -> bool:
    """Whether a folder with these entries holds frames."""
    return any(entry.stem in ("frame1", "frame3") and is_picture(entry) for entry in entries)


def whole(picture: UInt8[np.ndarray, "H W 3"]) -> UInt8[np.ndarray, "H W"]:
    """The mask that marks everything."""
    return np.full(picture.shape[:2], 255, np.uint8)


def _find_parts(folder: Path, layout: str) -> _Parts:
    """Tells a picture with references from frames, and collects the files.

    Raises:
        CaseError: neither or both, or views and masks that do not pair.
    """
    name, pictures = folder.resolve().name, pictures_in(folder)
    masks = _masks(folder / MASKS)
    instances = masks or {WHOLE: None}
    if (name in pictures) == ("frame3" in pictures):
        raise _no_scene(folder, layout, contents(folder))
    if name in pictures:
        numbered = pictures_in(folder, re.escape(name) + "_[0-9]+")
        views = {stem[len(name) + 1 :]: (file, None) for stem, file in numbered.items()}
    elif "frame1" not in pictures:
        raise _no_scene(folder, layout, contents(folder))
    else:
        seen = _masks(folder / FRAME_MASKS)
        keys = seen if (folder / FRAME_MASKS).is_dir() else instances
        views = {key: (pictures["frame1"], seen.get(key)) for key in keys}
    for key, files in views.items():
        if key not in instances:
            raise CaseError(
                files[1] or files[0],
                "every view belongs to an instance",
                expected=f"mask_{key}.png beside {some_names([f.name for f in masks.values()])}",
                got="none",
                fix=f"add the mask to {MASKS}/, or remove or rename the view",
            )
    return _Parts(pictures.get(name) or pictures["frame3"], masks, views)


def _masks(folder: Path) -> dict[str, Path]:
    """What stands behind `mask_` -> file; raises CaseError for a picture of another name."""
    if not folder.is_dir():
        return {}
    masks = {}
    for stem, file in pictures_in(folder).items():
        match = re.fullmatch(r"mask_([0-9]+)", stem)
        if match is None:
            raise CaseError(
                file,
                "masks are numbered",
                expected="mask_1.png, mask_2.png, ...",
                got=file.name,
                fix="rename or remove it",
            )
        masks[match[1]] = file
    return masks


def _read(folder: Path, parts: _Parts) -> Scene:
    """Reads the files of a training folder; a frame that several instances share is read once."""
    target, _ = read_picture(parts.target)
    owner = parts.target.name
    masks = [read_mask(file, target.shape[:2], owner) for file in parts.masks.values()]
    files = [parts.views.get(key) for key in parts.masks or [WHOLE]]
    read = {pair: View(*read_masked(*pair)) for pair in set(files) if pair is not None}
    return Scene(
        name=folder.resolve().name,
        path=folder,
        target=target,
        lines=None,
        masks=tuple(masks) or (whole(target),),
        views=tuple((read[pair],) if pair is not None else () for pair in files),
    )


def _no_scene(folder: Path, layout: str, got: str) -> CaseError:
    """The error of a folder whose names do not make a scene."""
    fix = "check the names, or take the folder out of the training folder"
    return CaseError(folder, "a training folder has one layout", layout, got, fix)
