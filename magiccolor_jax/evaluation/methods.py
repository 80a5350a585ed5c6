"""Whose pictures are judged: folders of them, baselines, the truth itself."""

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from magiccolor_jax.data.cases import CaseFiles, find_case_files
from magiccolor_jax.data.listing import pictures_below
from magiccolor_jax.data.pictures import CaseError, read_picture, size_text
from magiccolor_jax.data.transforms import Picture
from magiccolor_jax.evaluation.baselines import BASELINES
from magiccolor_jax.files import atomic_directory, link_or_copy, sha256_of
from magiccolor_jax.sampling.outputs import hash_case
from magiccolor_jax.types import Case

SWAPPED = "swapped"
"""Folder, in a folder of predictions, of the pages whose first two references were exchanged."""

TRUTH = "truth"
"""Name of the method that knows the answer: what the numbers are at best."""

SOURCE = ".source"
"""File in a case with exchanged references: identifies the case that it was made from."""


class Method(NamedTuple):
    """A row of the report."""

    name: str
    paint: Callable[[Case], Picture] | None = None
    """Makes a page; None: read it from the folder."""
    pictures: Mapping[str, Path] = {}
    """Case -> its prediction."""
    swapped: Mapping[str, Path] = {}
    """Case -> its prediction with the first two references exchanged; empty: not known."""

    def page(self, name: str, case: Case) -> Picture:
        """The page that the method made of a case.

        Raises:
            CaseError: the picture is damaged, or not of the sketch's size.
            ValueError: a baseline cannot colour the case.
        """
        return self.paint(case) if self.paint else _read(self.pictures[name], case)

    def swapped_page(self, name: str, case: Case) -> Picture | None:
        """The same with the first two references exchanged; None where that is not known.

        Args:
            case: with the references as they are.

        Raises:
            CaseError, ValueError: as `page`.
        """
        if len(case.references) < 2 or self.name == TRUTH:
            return None
        if self.paint:
            return self.paint(exchanged(case))
        return _read(self.swapped[name], case) if name in self.swapped else None


def exchanged(case: Case) -> Case:
    """The case with its first two references in each other's place."""
    order = exchanged_order(len(case.references))
    return case._replace(
        references=tuple(case.references[i] for i in order),
        reference_masks=tuple(case.reference_masks[i] for i in order),
    )


def exchanged_order(count: int) -> list[int]:
    """Numbers of the references when the first two change places."""
    return [1, 0, *range(2, count)] if count > 1 else [0]


def baseline(name: str) -> Method:
    """One of `baselines.BASELINES`, or `TRUTH`.

    Raises:
        ValueError: no such baseline.
    """
    if name == TRUTH:
        return Method(name, paint=_truth)
    if name not in BASELINES:
        raise ValueError(f"no baseline {name!r}: known are {', '.join(BASELINES)}")
    return Method(name, paint=BASELINES[name])


def folder_method(name: str, folder: Path, cases: Mapping[str, Path]) -> Method:
    """A folder with a picture for every case, CASE.png or another kind of picture.

    Args:
        cases: name -> case folder.

    Raises:
        ValueError: one report of all pictures that are missing, misnamed or there twice.
    """
    found = _find(folder, cases, problems := [])
    swapped: dict[str, Path] = {}
    if (folder / SWAPPED).is_dir():
        several = {name: path for name, path in cases.items() if _has_two(path)}
        swapped = _find(folder / SWAPPED, several, problems)
    if problems:
        raise ValueError(
            f"{folder}: expected one picture per case, called as its folder below --cases:\n"
            + "\n".join(problems)
        )
    return Method(name, pictures=found, swapped=swapped)


def _find(folder: Path, cases: Mapping[str, Path], problems: list[str]) -> dict[str, Path]:
    """Case -> picture; adds what is wrong to `problems`."""
    if not folder.is_dir():
        problems.append(f"  {folder} is no folder")
        return {}
    found: dict[str, Path] = {}
    twice, unknown = [], []
    for path in pictures_below(folder):
        below = path.relative_to(folder)
        if below.parts[0] == SWAPPED:
            continue
        name = below.with_suffix("").as_posix()
        if name not in cases:
            unknown.append(path)
        elif name in found:
            twice.append(path)
        else:
            found[name] = path
    missing = [folder / name for name in cases if name not in found]
    # Pictures of other cases are no harm where every case has one: a part may be judged alone.
    kinds = {"missing": missing, "twice": twice, "of no case": unknown if missing else []}
    problems += [f"  {kind}: {path}" for kind, paths in kinds.items() for path in paths]
    return found


def _read(path: Path, case: Case) -> Picture:
    picture, _ = read_picture(path)
    check_size(path, picture.shape[:2], case.sketch.shape[:2])
    return picture


def check_size(path: Path, found: tuple[int, ...], page: tuple[int, ...]) -> None:
    """Raises CaseError where a prediction has not its sketch's size."""
    if found != page:
        raise CaseError(
            path,
            "a prediction has the size of its sketch",
            expected=size_text(page),
            got=size_text(found),
            fix="colour the page at its own size, or resize the picture",
        )


def _truth(case: Case) -> Picture:
    if case.target is None:
        raise ValueError(f"{case.path}: has no target.*, and so no truth")
    return case.target


def _has_two(case: Path) -> bool:
    """Whether a case has references to exchange; a broken one is told of elsewhere."""
    try:
        return len(find_case_files(case).references) > 1
    except CaseError:
        return False


def write_swapped(cases: Mapping[str, Path], out: Path) -> dict[str, Path]:
    """Case folders whose first two references have changed places, by hard links.

    Args:
        cases: name -> case folder; those of one reference are left out.
        out: gets a folder per case; one that is there is written again if the case has changed.

    Returns:
        Name -> new folder.

    Raises:
        CaseError: a folder is no case of our layout.
    """
    made = {}
    for name, case in cases.items():
        files = find_case_files(case)
        if files.layout != "magiccolor":
            raise CaseError(
                case,
                "references are exchanged in our layout",
                expected="references/ and sketch_masks/",
                got="the release's layout",
                fix="bring the case into the layout with sketch_masks/",
            )
        if len(files.references) < 2:
            continue
        made[name] = out / name
        source = "".join(case_hashes(case))
        stamp = made[name] / SOURCE
        if stamp.is_file() and stamp.read_text() == source:
            continue
        if stamp.is_file():
            shutil.rmtree(made[name])
        _write_swapped(files, made[name], source)
    return made


def case_hashes(case: Path) -> tuple[str, str]:
    """Of what a case is coloured from, and of its target, empty where it has none.

    Raises:
        CaseError, OSError: it is no case, or a file cannot be read.
    """
    target = find_case_files(case).target
    return hash_case(case), "" if target is None else sha256_of(target)


def _write_swapped(files: CaseFiles, new: Path, source: str) -> None:
    first, second, *_ = files.references
    other = {first: second, second: first}
    parts = {
        "references": {other.get(stem, stem): path for stem, path in files.references.items()},
        "reference_masks": {
            other.get(stem, stem): path for stem, path in files.reference_masks.items()
        },
        "sketch_masks": files.sketch_masks,
    }
    with atomic_directory(new) as folder:
        (folder / SOURCE).write_text(source)
        for path in (files.sketch, files.target):
            if path is not None:
                link_or_copy(path, folder / path.name)
        for part, found in parts.items():
            for stem, path in found.items():
                link_or_copy(path, folder / part / f"{stem}{path.suffix}")
