"""PyTorch's side of `--verify` for extractors of line art: their tensors in torch's functions."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch.nn import functional

State = dict[str, torch.Tensor]
Named = Iterator[tuple[str, torch.Tensor]]


def _conv(state: State, name: str, x: torch.Tensor, *, up: bool = False, **how: int):
    """A convolution, or a transposed one."""
    apply = functional.conv_transpose2d if up else functional.conv2d
    return apply(x, state[f"{name}.weight"], state[f"{name}.bias"], **how)


def _mirrored(x: torch.Tensor, before: int, after: int) -> torch.Tensor:
    return functional.pad(x, (before, after, before, after), mode="reflect")


def _anime2sketch(config: Any, state: State, inputs: State) -> Named:
    def enlarged(x: torch.Tensor, name: str) -> torch.Tensor:
        if f"{name}.conv.weight" not in state:
            return _conv(state, name, x, up=True, stride=2, padding=1)
        x = functional.interpolate(x, scale_factor=2, mode="bilinear")
        x = functional.pad(x, (1, 1, 1, 1), mode="replicate")
        row = x.new_tensor((0.25, 0.5, 0.25))
        blur = torch.outer(row, row).expand(x.shape[1], 1, 3, 3)
        x = functional.conv2d(x, blur, groups=x.shape[1])
        x = _conv(state, f"{name}.conv", x, padding=1)
        wide = functional.gelu(_conv(state, f"{name}.mlp.0", x))
        return _conv(state, f"{name}.mlp.2", wide) + x

    def level(index: int, name: str, x: torch.Tensor) -> torch.Tensor:
        below = functional.leaky_relu(x, 0.2)
        made = _conv(state, f"{name}.model.1", below, stride=2, padding=1)
        last = index == config.depth - 1
        if not last:
            made = level(index + 1, f"{name}.model.3", functional.instance_norm(made))
        made = enlarged(torch.relu(made), f"{name}.model.{3 if last else 5}")
        return torch.cat([x, functional.instance_norm(made)], dim=1)

    x = _conv(state, "model.model.0", inputs["pixels"], stride=2, padding=1)
    x = torch.relu(level(1, "model.model.1", x))
    x = _conv(state, "model.model.3", x, up=True, stride=2, padding=1)
    yield "lines", torch.tanh(x)


def _sketch_keras(config: Any, state: State, inputs: State) -> Named:
    def layers(name: str, x: torch.Tensor, place: int, around: int, stride: int) -> torch.Tensor:
        """Both convolutions of a block, where it has two."""
        while f"{name}.{place}.weight" in state:
            x = _conv(state, f"{name}.{place}", _mirrored(x, 1, around), stride=stride)
            norm = f"{name}.{place + 1}"
            means = state[f"{norm}.running_mean"], state[f"{norm}.running_var"]
            scale, shift = state[f"{norm}.weight"], state[f"{norm}.bias"]
            x = torch.relu(functional.batch_norm(x, *means, scale, shift, eps=1e-3))
            place, around, stride = place + 4, 1, 1
        return x

    x, kept = inputs["pixels"], []
    for number in range(1, 6):
        x = layers(f"downblock_{number}", x, 1, 1, 1 if number == 1 else 2)
        kept.append(x)
    x = layers("downblock_6", x, 1, 1, 1)
    for number in range(1, 5):
        x = functional.interpolate(torch.cat([kept.pop(), x], dim=1), scale_factor=2)
        x = layers(f"upblock_{number}", x, 2, 2, 1)
    x = torch.cat([kept.pop(), x], dim=1)
    yield "lines", _conv(state, "last_conv", _mirrored(x, 1, 1))


def _informative_drawings(config: Any, state: State, inputs: State) -> Named:
    normed: Callable[[torch.Tensor], torch.Tensor] = functional.instance_norm
    conv = partial(_conv, state)
    x = torch.relu(normed(conv("model0.1", _mirrored(inputs["pixels"], 3, 3))))
    for place in (0, 3):
        x = torch.relu(normed(conv(f"model1.{place}", x, stride=2, padding=1)))
    for number in range(config.blocks):
        name = f"model2.{number}.conv_block"
        made = torch.relu(normed(conv(f"{name}.1", _mirrored(x, 1, 1))))
        x = x + normed(conv(f"{name}.5", _mirrored(made, 1, 1)))
    for place in (0, 3):
        how = {"stride": 2, "padding": 1, "output_padding": 1}
        x = torch.relu(normed(conv(f"model3.{place}", x, up=True, **how)))
    yield "lines", torch.sigmoid(conv("model4.1", _mirrored(x, 3, 3)))


TORCH: dict[str, Callable[[Any, State, State], Named]] = {
    "anime2sketch": _anime2sketch,
    "sketch_keras": _sketch_keras,
    "informative_drawings": _informative_drawings,
}
"""Kind -> its named outputs, as converters/verify.py names them."""
