"""What comes with the package: a model that needs no download, and cases to try it on."""

from pathlib import Path

ASSETS = Path(__file__).parent / "assets"

MODELS, CASES = ASSETS / "models", ASSETS / "cases"

DEFAULT = "tiny"
"""The model where none is named."""


def model_folder(name: str | Path) -> Path:
    """A model folder: the one at this path, or else the embedded one of this name."""
    return _found(name, MODELS)


def case_folder(name: str | Path) -> Path:
    """A case folder, or a folder of them: the one at this path, or else the embedded case."""
    return _found(name, CASES)


def _found(name: str | Path, folder: Path) -> Path:
    path = Path(name)
    embedded = folder / path.name
    return embedded if not path.exists() and str(name) == path.name and embedded.is_dir() else path
