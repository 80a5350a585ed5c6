"""Presets of `magiccolor train`: files in configs/. Nothing heavy is imported before one is run."""

import difflib
import runpy
from pathlib import Path
from typing import Any

PRESETS = Path(__file__).parents[2] / "configs"

USAGE = """usage: magiccolor train PRESET [FLAGS]

Trains one stage. PRESET is the name of a preset or the path of a file like one:

{presets}

`magiccolor train PRESET --help` lists every flag with the preset's value. The folder to start from
(--init) and the run's own (--out) must be given. A run that ended early goes on by the same
command.
"""


def load_preset(name: str) -> dict[str, Any]:
    """The settings of a preset: what its file calls `CONFIG`.

    Args:
        name: of a file in configs/, or a path.

    Raises:
        ValueError: no such preset, or the file has no CONFIG.
    """
    path = Path(name) if name.endswith(".py") else PRESETS / f"{name}.py"
    if not path.is_file():
        known = preset_names()
        close = difflib.get_close_matches(name, known, n=1)
        hint = f"; perhaps you meant {close[0]}" if close else ""
        raise ValueError(f"no preset {name!r}: known are {', '.join(known)}{hint}")
    try:
        content = runpy.run_path(str(path)).get("CONFIG")
    except Exception as error:  # whatever a file of the user's does
        raise ValueError(
            f"{path}: a preset must run, got {type(error).__name__}: {error}"
        ) from error
    if not isinstance(content, dict):
        raise ValueError(f"{path}: a preset must define CONFIG = dict(...) of TrainConfig's fields")
    return content


def preset_names() -> list[str]:
    """Names of the presets that came with the package."""
    return sorted(path.stem for path in PRESETS.glob("*.py") if not path.stem.startswith("_"))


def usage() -> str:
    """What `magiccolor train --help` prints; no preset is executed for it."""
    texts = []
    for name in preset_names():
        header = (PRESETS / f"{name}.py").read_text().split('"""')[1]
        texts.append(f"  {name:18} {header.splitlines()[0]}")
    return USAGE.format(presets="\n".join(texts))
