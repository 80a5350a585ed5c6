"""A module's parameters as a dict by path, the form that tables, optimisers and files share."""

from typing import Any

import jax
from flax import nnx
from jaxtyping import Array, Shaped

from magiccolor_jax.checkpoint import flat_parameters

Parameters = dict[str, Shaped[Array, "..."]]
"""`denoiser/conv_in/kernel` -> value."""


class Layout:
    """What a module is beside the values of its parameters."""

    def __init__(self, module: nnx.Module):
        """Remembers the structure.

        Raises:
            ValueError: the module has state that is no parameter, which would be lost.
        """
        self._graph, parameters, rest = nnx.split(module, nnx.Param, ...)
        if others := nnx.to_flat_state(rest):
            raise ValueError(
                f"Layout: expected parameters only, got {[path for path, _ in others]}"
            )
        self._keys = {"/".join(map(str, k)): k for k, _ in nnx.to_flat_state(parameters)}

    def take(self, module: nnx.Module) -> Parameters:
        """The module's parameters."""
        return {path: leaf[...] for path, leaf in flat_parameters(module).items()}

    def shapes(self, module: nnx.Module) -> dict[str, jax.ShapeDtypeStruct]:
        """Their shapes and types; the module may be an abstract one."""
        flat = flat_parameters(module).items()
        return {path: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for path, leaf in flat}

    def build(self, parameters: Parameters) -> Any:
        """The module with these parameters; all of them, in any order."""
        pairs = [(key, nnx.Param(parameters[path])) for path, key in self._keys.items()]
        return nnx.merge(self._graph, nnx.from_flat_state(pairs))
