"""Rematerialisation: memory of the backward pass for time."""

from collections.abc import Callable
from typing import Any

import jax

from magiccolor_jax.nn.plain import is_plain


def call(function: Callable[..., Any], remat: bool, *args: Any) -> Any:
    """`function(*args)`; under `remat` only its inputs are kept for the backward pass.

    Not in programs that are counted (`nn/plain.py`): the model is what it is without.

    Args:
        function: a layer, or a method of one.
        args: arrays, and trees of them.
    """
    if not remat or is_plain():
        return function(*args)
    # jax.checkpoint remembers a function's trace: one that lives on would keep stale parameters.
    return jax.checkpoint(lambda *args: function(*args))(*args)
