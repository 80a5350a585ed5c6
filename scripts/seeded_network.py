"""A network of ours under the weights that an oracle drew from the tensors' names."""

from typing import Any

from flax import nnx
from golden_weights import seeded

from converters.weightmap import WeightMap, load_state_dict, wanted
from magiccolor_jax.checkpoint import parameter_shapes
from magiccolor_jax.nn.abstract import abstract


def seeded_network(module: type[nnx.Module], config: Any, weight_map: WeightMap) -> Any:
    """The network of a config; `golden_weights.seeded` gives each of its PyTorch tensors."""
    asked = wanted(weight_map, parameter_shapes(config))
    tensors = {item.keys[0]: seeded(item.keys[0], item.part) for item in asked}
    network = abstract(module, config)
    load_state_dict(network, weight_map, tensors, "drawn")
    return network
