"""What every comparison with PyTorch needs."""

from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
import torch
from flax import nnx

from converters.weightmap import WeightMap, load_state_dict


def run(
    build: Callable[[], nnx.Module],
    weight_map: WeightMap,
    state: Mapping[str, torch.Tensor],
    *inputs: np.ndarray,
) -> Any:
    """Our network's output under PyTorch's weights, compiled as one program.

    No parameter is initialised first, so one that the state dict leaves out cannot pass.
    """
    network = nnx.eval_shape(build)
    tensors = {key: tensor.detach().numpy() for key, tensor in state.items()}
    load_state_dict(network, weight_map, tensors, "oracle")
    call = nnx.jit(lambda network, *inputs: network(*inputs))
    return call(network, *map(jnp.asarray, inputs))


def relative_error(ours, theirs) -> float:
    """Largest difference, relative to the largest value of the oracle; the shapes must agree."""
    ours, theirs = np.asarray(ours), np.asarray(theirs)
    assert ours.shape == theirs.shape
    return float(np.abs(ours - theirs).max() / np.abs(theirs).max())
