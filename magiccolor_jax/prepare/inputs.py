"""The inputs of `magiccolor prepare`, by kind: what is read at once, and clips to look through."""

import errno
import functools
import json
import os
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from magiccolor_jax.data.folders import (
    CaseFolders,
    FolderSource,
    ReleaseFolders,
    Triplets,
    has_masks,
)
from magiccolor_jax.data.listing import (
    check_open,
    contents,
    digest,
    is_picture,
    look_below,
    pictures_in,
    walk,
)
from magiccolor_jax.data.pairs import LeftPairs, RightPairs, SidePairs
from magiccolor_jax.data.pictures import CaseError, read_picture
from magiccolor_jax.data.scenes import Scene, Source
from magiccolor_jax.data.sources import folder_of, kind_of, split_kind
from magiccolor_jax.files import sha256_of
from magiccolor_jax.prepare.claims import read_once
from magiccolor_jax.prepare.clips import Clip
from magiccolor_jax.prepare.coco import Folders, coco_units, panoptic_beside
from magiccolor_jax.prepare.credits import Credits
from magiccolor_jax.prepare.marks import Watch, mark_of
from magiccolor_jax.prepare.reels import VIDEO_SUFFIXES, FolderReel, VideoReel
from magiccolor_jax.prepare.results import set_aside
from magiccolor_jax.prepare.stills import Group, Still, Unit, alone
from magiccolor_jax.segment.objects import ObjectConfig

ATD_NAME = re.compile(r"(.+)_[0-9]+_s[0-9]+")
"""A triplet of ATD-12K is called after its film, its place there, and the step of its frames."""


class Around(NamedTuple):
    """What inputs are read with."""

    out: Path
    given: tuple[Path, ...]
    """What --masks and --sketches name."""
    credits: Credits
    folders: Folders
    objects: ObjectConfig
    aside: frozenset[str] = frozenset()
    """Real paths of folders below which nothing is an input."""


Listed = list[Unit | Clip]


class Inputs(NamedTuple):
    """What is prepared."""

    listed: Listed
    """In natural order."""
    contents: str
    """Tells what the inputs hold from other contents."""
    aside: list[Path]
    """Folders in the inputs that were left out, as results of our commands."""
    watch: Watch


def list_inputs(texts: Sequence[str], around: Around) -> Inputs:
    """All that the inputs hold.

    Raises:
        ValueError: an input is none, or two things in them have one name.
        OSError: one cannot be read.
    """
    listed: Listed = []
    marks, aside = [], []
    for text in texts:
        kind, path = _placed(text)
        below = set_aside(path, around.out, around.given)
        around = around._replace(aside=frozenset(map(os.path.realpath, below)))
        kind = kind or _guessed(path, around.aside)
        listed += KINDS[kind](path, around)
        marks.append(_beside(kind, path, around))
        aside += [folder for folder in below if folder not in (around.out, *around.given, *aside)]
    twice = [name for name, count in Counter(each.name for each in listed).items() if count > 1]
    if twice:
        raise ValueError(
            f"records are named after their files, below the input: expected each name once, got "
            f"{', '.join(twice[:5])} twice; rename one, give a folder above both, or use "
            "another --out"
        )
    own = [around.out, *around.given, *aside]
    watch = Watch({each.path: mark_of(each.path, own) for each in listed}, own)
    marks += [f"{each.kind} {each.name} {watch.marks[each.path]}" for each in listed]
    return Inputs(read_once(listed), "\n".join(marks), aside, watch)


def _beside(kind: str, path: Path, around: Around) -> str:
    """Tells what an input says of its pictures from other notes: COCO's JSON with the PNGs beside
    it, ATD-12K's annotations."""
    if kind == "coco":
        return f"{sha256_of(path)} {mark_of(panoptic_beside(path), [around.out])}"
    if kind != "triplets":
        return ""
    return digest(f"{n.relative_to(path)} {n.stat().st_size}" for n in _notes(path, around))


def _notes(root: Path, around: Around) -> list[Path]:
    """Files of JSON below an input."""
    below = look_below(root, lambda path: path.suffix == ".json" and path.is_file())
    return [*_outside(below.files, around)]


def _placed(text: str) -> tuple[str, Path]:
    """Kind of an input, empty where none is said, and its path.

    Raises:
        ValueError: nothing is there, or no such kind.
    """
    kind, place = split_kind(text, list(KINDS))
    path = Path(place)
    if not path.exists():
        folder_of(place)
    return kind, path


def _guessed(path: Path, aside: Collection[str]) -> str:
    """The kind that a file's or a folder's names tell; those of folders set aside do not count.

    Raises:
        CaseError: they tell none, or several.
    """
    if path.is_file():
        suffix = path.suffix.lower()
        kinds = {".json": "coco"} | dict.fromkeys(VIDEO_SUFFIXES, "video")
        return kinds.get(suffix, "pictures")
    found = Counter[str]()

    def count(folder: Path, entries: Sequence[Path]) -> bool:
        if os.path.realpath(folder) in aside:
            return True
        entries = [e for e in entries if is_picture(e) or os.path.realpath(e) not in aside]
        try:
            kind = kind_of(folder, entries)
        except CaseError:  # its first picture is damaged, which its reader will report
            kind = None
        if kind in ("records", "triplets", "release", "cases"):
            found[kind] += 1
            return True
        found["pairs"] += kind == "pairs"
        found["pictures"] += kind is None and any(map(is_picture, entries))
        found["video"] += any(map(_is_video, entries))
        return False

    for _ in walk(path, count):
        pass
    kinds = [kind for kind, number in found.items() if number]
    if kinds in (["pictures"], ["video"], ["triplets"], ["release"], ["cases"]):
        return kinds[0]
    told = "pictures twice as wide as high, which may be pairs" if kinds == ["pairs"] else ""
    raise CaseError(
        path,
        "an input's names tell what it is",
        expected="pictures, video, triplets, or cases, and one of these",
        got=told or " and ".join(kinds) or contents(path),
        fix=f"say which: KIND:{path} with one of {', '.join(KINDS)}",
    )


def _is_video(path: Path) -> bool:
    return path.suffix.lower() in VIDEO_SUFFIXES and not path.name.startswith(".")


def _named(root: Path, path: Path) -> str:
    """Path below the input, without a file's suffix; its own name for the input itself."""
    below = Path(_own_name(path)) if path == root else path.relative_to(root)
    return below.as_posix() if path.is_dir() else below.with_suffix("").as_posix()


def _own_name(path: Path) -> str:
    """The last part of a path, without links."""
    return os.path.basename(os.path.realpath(path))


def _outside(paths: Sequence[Path], around: Around) -> Iterator[Path]:
    """Paths that are not in a folder set aside."""
    for path in paths:
        real = Path(os.path.realpath(path))
        if around.aside.isdisjoint(map(str, (real, *real.parents))):
            yield path


def _below(
    root: Path, kind: str, wanted: Callable[[Path], bool], around: Around
) -> tuple[list[Path], Listed]:
    """Files of an input, itself or below it, and a unit for each folder that cannot be listed,
    which says so when it is read."""
    if root.is_file():
        return [root], []
    below = look_below(root, wanted)
    closed: Listed = [
        Unit(name, name, kind, path, 1, around.credits.of(name, str(path)), read)
        for path in _outside(below.closed, around)
        for name, read in ((_named(root, path), functools.partial(_read_closed, path)),)
    ]
    return [*_outside(below.files, around)], closed


def _read_closed(path: Path) -> Group:
    """Raises CaseError where a folder cannot be listed, OSError where now it can."""
    check_open(path)
    raise OSError(errno.ESTALE, "could not be listed before, and now it can", str(path))


def _pictures(root: Path, around: Around) -> Listed:
    """A unit for each picture.

    Raises:
        ValueError: there is none.
    """
    if root.is_file() and not is_picture(root):
        raise ValueError(f"{root}: expected a picture or a folder of pictures")
    files, closed = _below(root, "pictures", is_picture, around)
    if not files:
        raise ValueError(
            f"{root}: no pictures: expected pictures, or folders of them, that are neither given "
            f"nor results, got {contents(root)}; check the path"
        )
    found: Listed = []
    for path in files:
        name = root.stem if path == root else _named(root, path)
        read = functools.partial(_read_picture, name, path)
        found.append(
            Unit(name, name, "pictures", path, 1, around.credits.of(name, str(path)), read)
        )
    return found + closed


def _read_picture(name: str, path: Path) -> Group:
    picture, alpha = read_picture(path)
    return alone(Still(name, path, picture, alpha))


def _videos(root: Path, around: Around) -> Listed:
    """A clip for each file; raises ValueError where there is none."""
    files, closed = _below(root, "video", _is_video, around)
    found: Listed = []
    for path in _outside(files, around):  # also where the input itself is one
        name = _named(root, path)
        origin = around.credits.of(name, str(path))
        found.append(Clip(name, "video", path, origin, VideoReel(path)))
    if not found:
        _nothing(root, f"files that end in {', '.join(sorted(VIDEO_SUFFIXES))}")
    return found + closed


def _frames(root: Path, around: Around) -> Listed:
    """A clip for each folder with pictures; raises ValueError where there is none, or two of a
    folder have one name."""
    files, closed = _below(root, "frames", is_picture, around)
    found: Listed = []
    for folder in dict.fromkeys(file.parent for file in files if file != root):
        name = _named(root, folder)
        origin = around.credits.of(name, str(folder))
        reel = FolderReel([*pictures_in(folder).values()])
        found.append(Clip(name, "frames", folder, origin, reel))
    if not found:
        _nothing(root, "folders of pictures")
    return found + closed


def _triplets(root: Path, around: Around) -> Listed:
    """A unit for each triplet."""
    notes = {file.stem: file for file in _notes(root, around)}
    units: Listed = []
    for folder in _outside(Triplets(root).folders, around):
        name, film = _named(root, folder), ATD_NAME.fullmatch(_own_name(folder))
        read = functools.partial(_read_triplet, name, folder, notes.get(_own_name(folder)))
        origin = around.credits.of(name, str(folder))
        clip = film[1] if film else name
        units.append(Unit(name, clip, "triplets", folder, 1, origin, read))
    return units or _nothing(root, f"folders with {Triplets.LAYOUT}")


def _read_triplet(name: str, folder: Path, annotation: Path | None) -> Group:
    """The third frame, which looks at the first; with masks, as training reads it."""
    note = _annotation(annotation) if annotation else ""
    if has_masks(list(folder.iterdir())):
        return alone(_still(name, Triplets(folder)[0])._replace(note=note))
    files = pictures_in(folder, "frame[13]")
    if list(files) != ["frame1", "frame3"]:
        raise CaseError(
            folder,
            "a triplet has a first and a third frame",
            expected=Triplets.LAYOUT,
            got=contents(folder),
            fix="complete it, or leave it out",
        )
    stills = [Still(name, path, read_picture(path)[0], note=note) for path in files.values()]
    return Group(stills, {1: (0,)})


def _annotation(path: Path) -> str:
    """What ATD-12K says of a triplet: its level of difficulty, the kind of its motion."""
    try:
        content: Any = json.loads(path.read_text())
        rows = ((key, value) for key, value in content.items() if isinstance(value, str | int))
        return ", ".join(f"{key} {value}" for key, value in rows)
    except (OSError, ValueError, AttributeError) as error:
        raise CaseError(
            path,
            "a triplet's annotation is JSON",
            expected="an object, of level and motion",
            got=str(error),
            fix="mend or remove it",
        ) from error


def _pairs(kind: str, opener: type[SidePairs]) -> Callable[[Path, Around], Listed]:
    """Lists pairs: a unit for each picture."""

    def units(root: Path, around: Around) -> Listed:
        source = opener(folder_of(str(root)))
        return _of_source(root, kind, source, source.files, around)

    return units


def _cases(kind: str, opener: type[FolderSource]) -> Callable[[Path, Around], Listed]:
    """Lists folders with masks: a unit for each."""

    def units(root: Path, around: Around) -> Listed:
        source = opener(folder_of(str(root)))
        return _of_source(root, kind, source, source.folders, around)

    return units


def _of_source(
    root: Path, kind: str, source: Source, paths: Sequence[Path], around: Around
) -> Listed:
    """A unit for each scene that training could read by itself."""
    wanted = set(_outside(paths, around))
    units: Listed = []
    for number, path in enumerate(paths):
        if path not in wanted:
            continue
        name = _named(root, path)
        masked = not isinstance(source, SidePairs)
        read = functools.partial(_read_scene, name, source, number, masked)
        units.append(Unit(name, name, kind, path, 1, around.credits.of(name, str(path)), read))
    return units or _nothing(root, "scenes outside of --out")


def _read_scene(name: str, source: Source, number: int, masked: bool) -> Group:
    still = _still(name, source[number])
    return alone(still if masked else still._replace(masks=None, views=()))


def _still(name: str, scene: Scene) -> Still:
    """A scene of training as a still."""
    fields = {"masks": scene.masks, "views": scene.views, "lines": scene.lines}
    return Still(name, scene.path, scene.target, **fields)


def _coco(path: Path, around: Around) -> Listed:
    """A unit for each picture with annotations."""
    return [*coco_units(path, around.folders, around.objects, around.credits)]


def _nothing(root: Path, expected: str) -> Listed:
    """Raises CaseError: an input is empty."""
    fix = "check the path, or name another kind (KIND:PATH)"
    raise CaseError(root, "an input has something", expected, contents(root), fix)


KINDS: dict[str, Callable[[Path, Around], Listed]] = {
    "pictures": _pictures,
    "video": _videos,
    "frames": _frames,
    "triplets": _triplets,
    "pairs": _pairs("pairs", SidePairs),
    "pairs-left": _pairs("pairs-left", LeftPairs),
    "pairs-right": _pairs("pairs-right", RightPairs),
    "coco": _coco,
    "cases": _cases("cases", CaseFolders),
    "release": _cases("release", ReleaseFolders),
}
"""By the name that the command has."""
