"""Which numbers the networks are stored and computed in: the one place that decides."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp


class Precision(NamedTuple):
    """Dtypes of a network; norms, softmax, schedules, predictions, pictures are f32 whatever they
    are."""

    dtype: Any
    """Of the activations."""
    param_dtype: Any
    """Of the parameters."""


NAMES = {
    "float32": Precision(jnp.float32, jnp.float32),
    "bfloat16": Precision(jnp.bfloat16, jnp.bfloat16),
}
"""Choices for inference."""


def for_inference(name: str | None = None) -> Precision:
    """The precision called `name`; by default f32 on CPU (its bf16 convolutions are slower), bf16
    on accelerators.

    Raises:
        ValueError: unknown name.
    """
    if name is None:
        name = "float32" if jax.default_backend() == "cpu" else "bfloat16"
    if name not in NAMES:
        raise ValueError(f"precision must be one of {sorted(NAMES)}, got {name!r}")
    return NAMES[name]


def for_training(parameters: str, compute: str | None) -> Precision:
    """What the trained networks are stored in and computed in; default as `for_inference`.

    Raises:
        ValueError: unknown name.
    """
    return Precision(for_inference(compute).dtype, for_inference(parameters).param_dtype)
