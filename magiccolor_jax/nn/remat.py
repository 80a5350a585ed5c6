"""Rematerialisation: memory of the backward pass for time."""

from collections.abc import Callable
from typing import Any, Literal

import jax

from magiccolor_jax.nn.plain import is_plain

Remat = Literal["off", "dots", "full"]
"""What a backward pass computes again instead of keeping it: nothing; all but the products of
matrices, which cost most to compute; everything inside of a block."""

POLICIES = {
    "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
    "full": jax.checkpoint_policies.nothing_saveable,
}


def call(function: Callable[..., Any], remat: Remat, *args: Any) -> Any:
    """`function(*args)`; under remat only its inputs, and what the policy says, are kept for the
    backward pass.

    Not in programs that are counted (`nn/plain.py`): the model is what it is without.

    Args:
        function: a layer, or a method of one.
        args: arrays, and trees of them.
    """
    if remat == "off" or is_plain():
        return function(*args)
    # jax.checkpoint remembers a function's trace: one that lives on would keep stale parameters.
    return jax.checkpoint(lambda *args: function(*args), policy=POLICIES[remat])(*args)
