"""What comes with the package: models that need no download, and cases to try them on."""

from pathlib import Path

ASSETS = Path(__file__).parent / "assets"

MODELS = ASSETS / "models"

DEFAULT = "tiny"
"""The model where none is named."""


def model_folder(name: str | Path) -> Path:
    """A model folder: the one at this path, or else the embedded one of this name."""
    path = Path(name)
    embedded = MODELS / path.name
    return embedded if not path.exists() and str(name) == path.name and embedded.is_dir() else path
