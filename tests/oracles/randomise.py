"""Random weights for an abstract network of ours, without compiling an initialiser."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx


def randomise(network: nnx.Module, seed: int) -> nnx.Module:
    """Gives every parameter a value in place; no tensor stays at zero, at one, or symmetric."""
    rng = np.random.default_rng(seed)

    def drawn(x):
        vector = len(x.shape) == 1
        spread = 0.3 if vector else np.prod(x.shape[:-1]) ** -0.5
        return jnp.asarray(rng.normal(0.5 * vector, spread, x.shape), x.dtype)

    nnx.update(network, jax.tree.map(drawn, nnx.state(network, nnx.Param)))
    return network
