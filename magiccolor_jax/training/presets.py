"""Presets of `magiccolor train`: files in configs/. Nothing heavy is imported before one is run."""

from typing import Any

from magiccolor_jax import presets

PRESETS = presets.CONFIGS

USAGE = """usage: magiccolor train PRESET [FLAGS]

Trains one stage. PRESET is the name of a preset or the path of a file like one:

{presets}

`magiccolor train PRESET --help` lists every flag with the preset's value. The run's own folder
(--out) must be given, and the one to start from (--init), or an autoencoder's --sources. A run that
ended early goes on by the same command.
"""


def load_preset(name: str) -> dict[str, Any]:
    """The settings of a preset: what its file calls `CONFIG`.

    Args:
        name: of a file in configs/, or a path.

    Raises:
        ValueError: no such preset, or the file has no CONFIG.
    """
    made = "dict(...) of TrainConfig's fields"
    return presets.load(name, PRESETS, "preset", "CONFIG", dict, made)


def preset_names() -> list[str]:
    """Names of the presets that came with the package."""
    return presets.names_in(PRESETS)


def usage() -> str:
    """What `magiccolor train --help` prints; no preset is executed for it."""
    texts = []
    for name in preset_names():
        header = (PRESETS / f"{name}.py").read_text().split('"""')[1]
        texts.append(f"  {name:18} {header.splitlines()[0]}")
    return USAGE.format(presets="\n".join(texts))
