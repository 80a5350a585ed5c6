"""What comes with the package: cases to try it on."""

from pathlib import Path

CASES = Path(__file__).parent / "assets" / "cases"


def case_folder(name: str | Path) -> Path:
    """A case folder, or a folder of them: the one at this path, or else the embedded case."""
    path = Path(name)
    embedded = CASES / path.name
    return embedded if not path.exists() and str(name) == path.name and embedded.is_dir() else path
