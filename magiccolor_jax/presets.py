"""Files of configs/: one expression each, found by name. Nothing heavy is imported here."""

import difflib
import runpy
from pathlib import Path
from typing import Any

CONFIGS = Path(__file__).parents[1] / "configs"


FAMILIES = ("tiny",)
"""Folders of a folder's presets, which are called FAMILY/NAME."""


def names_in(folder: Path) -> list[str]:
    """Names of the files that came with the package."""
    found = sorted(path.stem for path in folder.glob("*.py") if not path.stem.startswith("_"))
    inside = [
        f"{family}/{name.stem}" for family in FAMILIES for name in folder.glob(f"{family}/*.py")
    ]
    return found + sorted(inside)


def load(name: str, folder: Path, what: str, variable: str, kind: type, made: str) -> Any:
    """What a file calls `variable`.

    Args:
        name: of a file in the folder, or a path.
        what: such a file is called in errors.
        kind: of the value.
        made: how the value is written, for the error.

    Raises:
        ValueError: no such file, it does not run, or it does not define the variable.
    """
    path = Path(name) if name.endswith(".py") else folder / f"{name}.py"
    if not path.is_file():
        known = names_in(folder)
        close = difflib.get_close_matches(name, known, n=1)
        hint = f"; perhaps you meant {close[0]}" if close else ""
        raise ValueError(f"no {what} {name!r}: known are {', '.join(known)}{hint}")
    try:
        found = runpy.run_path(str(path)).get(variable)
    except Exception as error:  # whatever a file of the user's does
        raise ValueError(
            f"{path}: a {what} must run, got {type(error).__name__}: {error}"
        ) from error
    if not isinstance(found, kind):
        raise ValueError(f"{path}: a {what} must define {variable} = {made}")
    return found
