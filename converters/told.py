"""What a model is and the release's files cannot say: our config.json beside them.

`--to release` writes it where it is needed, and reading the folder needs it then; the release's own
code passes over it.
"""

import dataclasses
import os
from pathlib import Path
from typing import Any

from converters import configs
from converters.plan import read_json
from magiccolor_jax.checkpoint import ModelConfig, config_from_json

TRAINED = "MagicColor"
"""Folder of what the release has trained; without it, the rest is where a training starts."""

TOLD = f"{TRAINED}/magiccolor_jax.json"

WHOLE = ("denoiser", "sketch_guider")
"""Networks of a model that colours; by these a model of our own is told from a single network."""

AGAIN = "undo what was changed, or convert the model again: `--to release` writes this file"


def read_told(root: Path) -> ModelConfig | None:
    """What `TOLD` says; None where there is none.

    Raises:
        ValueError: it is damaged, or not of a model that colours.
    """
    path = root / TOLD
    if not os.path.lexists(path):
        return None
    if not path.is_file():
        raise ValueError(f"{path}: must be a file, and is none: {AGAIN}")
    try:
        told = configs.named(path, lambda: config_from_json(read_json(path), path))
    except ValueError as error:
        raise ValueError(f"{error} ({AGAIN})") from None
    if absent := [stem for stem in WHOLE if stem not in told.networks]:
        raise ValueError(
            f"{path}: must name the networks of a model that colours: expected {', '.join(WHOLE)}, "
            f"{', '.join(absent)} not among {', '.join(told.networks) or 'none'}: {AGAIN}"
        )
    return told


def agreed(root: Path, told: ModelConfig, found: ModelConfig) -> ModelConfig:
    """What is told, with the networks that are there.

    Args:
        found: what the release's files amount to by themselves.

    Raises:
        ValueError: they say something else.
    """
    report = [
        line
        for stem, config in told.networks.items()
        for line in _differences(stem, config, found.networks.get(stem))
    ]
    report += _differences("schedule", told.schedule, found.schedule)
    if told.sizes.page != found.sizes.page:
        report.append(f"  page: expected {told.sizes.page} px, got {found.sizes.page}")
    if report:
        text = "\n".join(report)
        raise ValueError(
            f"{root / TOLD}: must say the same as the files that it came with:\n{text}\n{AGAIN}"
        )
    others = {stem: cfg for stem, cfg in found.networks.items() if stem not in told.networks}
    return dataclasses.replace(told, networks=told.networks | others)


def _differences(name: str, told: Any, found: Any) -> list[str]:
    """A line for each field in which a config differs from what is told."""
    if found is None:
        return [f"  {name}: expected a file of weights, got none"]
    if type(told) is not type(found):
        return [f"  {name}: expected {told}, got {found}"]
    names = [field.name for field in dataclasses.fields(told)]
    values = ((field, getattr(told, field), getattr(found, field)) for field in names)
    return [f"  {name}: expected {field} {a!r}, got {b!r}" for field, a, b in values if a != b]
