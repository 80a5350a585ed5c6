"""Opening a source by what it is called, or by what a folder holds; several sources as one."""

import bisect
import difflib
import itertools
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from magiccolor_jax.data.compose import ArtScenes, HeldOutObjects, HeldOutSources
from magiccolor_jax.data.folders import (
    CaseFolders,
    FolderSource,
    ReleaseFolders,
    Triplets,
    has_masks,
)
from magiccolor_jax.data.listing import contents, is_picture, walk
from magiccolor_jax.data.pairs import LeftPairs, RightPairs, SidePairs
from magiccolor_jax.data.pictures import CaseError, picture_size
from magiccolor_jax.data.scenes import Outline, Scene, Source
from magiccolor_jax.data.shards import Records

KINDS: dict[str, type[FolderSource] | type[SidePairs] | type[Records]] = {
    "records": Records,
    "cases": CaseFolders,
    "release": ReleaseFolders,
    "triplets": Triplets,
    "pairs": SidePairs,
    "pairs-left": LeftPairs,
    "pairs-right": RightPairs,
}
"""Kinds of folders that `open_source` can open."""

LIBRARIES = {"art": ArtScenes, "art-objects": HeldOutObjects, "art-sources": HeldOutSources}
"""Kinds of files."""

TOLD = ("pairs-left", "pairs-right")
"""Kinds that cannot be found out."""


class Concatenation:
    """The scenes of several sources, one after the other."""

    def __init__(self, sources: Sequence[Source]):
        """Keeps the sources; raises ValueError where there are none."""
        if not sources:
            raise ValueError("Concatenation: expected at least one source, got none")
        self.sources = tuple(sources)
        self._starts = list(itertools.accumulate(map(len, self.sources), initial=0))

    def __len__(self) -> int:
        return self._starts[-1]

    def __repr__(self) -> str:
        return f"Concatenation({', '.join(map(repr, self.sources))})"

    def outline(self, index: int) -> Outline:
        """Size and number of instances; raises CaseError as the scene's own source does."""
        source, number = self._find(index)
        return source.outline(number)

    def fingerprint(self) -> str:
        """Of all of them, in order."""
        return " ".join(source.fingerprint() for source in self.sources)

    def __getitem__(self, index: int) -> Scene:
        """Reads and checks a scene; raises CaseError as the scene's own source does."""
        source, number = self._find(index)
        return source[number]

    def _find(self, index: int) -> tuple[Source, int]:
        """The source of a scene and its number there; raises IndexError for no such scene."""
        if not 0 <= index < len(self):
            raise IndexError(f"{self!r}: no scene {index}")
        source = bisect.bisect_right(self._starts, index) - 1
        return self.sources[source], index - self._starts[source]


MOST_NAMED = 20
"""Scenes that cannot be used, in one error."""


def outlines(source: Source) -> list[Outline]:
    """Of every scene.

    Raises:
        ValueError: one report of the scenes that cannot be used.
    """
    found, bad = [], []
    for index in range(len(source)):
        try:
            found.append(source.outline(index))
        except CaseError as error:
            bad.append(f"  {error}")
    if bad:
        more = [f"  and {len(bad) - MOST_NAMED} more"] if len(bad) > MOST_NAMED else []
        raise ValueError(
            f"{source!r}: {len(bad)} scenes cannot be used:\n" + "\n".join(bad[:MOST_NAMED] + more)
        )
    return found


def open_source(text: str) -> Source:
    """Opens `KIND:PATH`, or `PATH` as the kind that it holds.

    Raises:
        CaseError: no such folder, nothing in it, or scenes of several kinds.
        ValueError: no such kind.
    """
    kind, place = split_kind(text, [*KINDS, *LIBRARIES], "open_source: ")
    if kind in LIBRARIES:
        return LIBRARIES[kind](Path(place))
    path = folder_of(place)
    return KINDS[kind or _detect(path)](path)


def split_kind(text: str, kinds: Sequence[str], who: str = "") -> tuple[str, str]:
    """`KIND:PATH` in its parts; the kind is empty where there is none.

    Args:
        who: begins the error.

    Raises:
        ValueError: no such kind.
    """
    kind, colon, rest = text.partition(":")
    if colon and kind in kinds:
        return kind, rest
    if colon and kind.replace("-", "_").isidentifier() and not Path(text).exists():
        guess = difflib.get_close_matches(kind, kinds, n=1)
        raise ValueError(
            f"{who}{text}: expected KIND:PATH with one of {', '.join(kinds)}, got {kind!r}"
            + (f"; did you mean {guess[0]}:{rest}?" if guess else "; name one of them")
        )
    return "", text


def folder_of(text: str) -> Path:
    """A path; raises CaseError unless it is a folder."""
    path = Path(text)
    if path.is_dir():
        return path
    beside = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
    guess = difflib.get_close_matches(path.name, beside, n=1)
    raise CaseError(
        path,
        "a source is a folder",
        expected="a folder of scenes",
        got="a file" if path.is_file() else "nothing",
        fix=f"did you mean {path.parent / guess[0]}?" if guess else "check the path",
    )


def _detect(path: Path) -> str:
    """The one kind of which a folder holds scenes.

    Raises:
        CaseError: there are none, or several kinds.
    """
    found = Counter[str]()

    def count(folder: Path, entries: Sequence[Path]) -> bool:
        kind = kind_of(folder, entries)
        found.update([kind] if kind else [])
        return kind is not None

    for _ in walk(path, count):
        pass
    if len(found) != 1:
        known = (kind for kind in KINDS if kind not in TOLD)
        looked = "; ".join(f"{kind}: {KINDS[kind].LAYOUT}" for kind in known)
        each = ", ".join(f"{number} folders of {kind}" for kind, number in found.items())
        raise CaseError(
            path,
            "a folder's names tell the kind of its scenes",
            expected=f"one of these at or below it: {looked}",
            got=each or contents(path),
            fix="name kind and folder (KIND:PATH), each kind for itself"
            if found
            else "check the path and the names, or name the kind (KIND:PATH)",
        )
    return next(iter(found))


def kind_of(folder: Path, entries: Sequence[Path]) -> str | None:
    """The kind of scenes that a folder holds or is; frames with masks are the release's."""
    if Records.marks(folder, entries):
        return "records"
    if Triplets.marks(folder, entries) and not has_masks(entries):
        return "triplets"
    if ReleaseFolders.marks(folder, entries):
        return "release"
    if CaseFolders.marks(folder, entries):
        return "cases"
    return "pairs" if _has_pairs(entries) else None


def _has_pairs(entries: Sequence[Path]) -> bool:
    """Whether the first picture of a folder is twice as wide as high."""
    first = next(filter(is_picture, entries), None)
    if first is None:
        return False
    height, width = picture_size(first)
    return width == 2 * height
