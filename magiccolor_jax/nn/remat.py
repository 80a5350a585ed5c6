"""Rematerialisation: memory of the backward pass for time."""

from collections.abc import Callable
from typing import Any

import jax


def call(function: Callable[..., Any], remat: bool, *args: Any) -> Any:
    """`function(*args)`; under `remat` only its inputs are kept for the backward pass.

    Args:
        function: a layer, or a method of one.
        args: arrays, and trees of them.
    """
    if not remat:
        return function(*args)
    # jax.checkpoint remembers a function's trace: one that lives on would keep stale parameters.
    return jax.checkpoint(lambda *args: function(*args))(*args)
