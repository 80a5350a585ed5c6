"""Multi-instance sketch colourisation in JAX/Flax (MagicColor, arXiv:2503.16948).

Names are loaded when they are first used, so that importing the package loads no jax.
"""

import importlib
from typing import Any

_WHERE = {
    "Case": "types",
    "Colorizer": "sampling.colorizer",
    "MagicColor": "models.magiccolor",
    "MagicColorConfig": "models.magiccolor",
    "Recipe": "recipe",
    "Settings": "sampling.colorizer",
    "find_cases": "data.cases",
    "read_case": "data.cases",
}
"""Public name -> module."""

__all__ = list(_WHERE)  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_WHERE[name]}"), name)


def __dir__() -> list[str]:
    return sorted(_WHERE)
