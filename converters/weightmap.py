"""The one rule by which a parameter of ours and a tensor of PyTorch's are the same thing.

Attribute names are the checkpoint's names, so a network's map is a handful of renames.
Walks are driven by the destination: every parameter of ours asks for its key, and what is missing,
misshapen or left over is reported in one error.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Shaped

from magiccolor_jax.tensorfile import Empty

Tensor = Shaped[np.ndarray, "..."]

LEAVES = {"kernel": "weight", "scale": "weight", "embedding": "weight"}
"""Flax's name of a leaf -> PyTorch's; every other leaf keeps its name."""


SAME_WIDTH = {1: np.uint8, 2: np.uint16, 4: np.int32, 8: np.float64}
"""Bytes of an element -> a type of that size that OpenCV moves."""


@dataclass(frozen=True, kw_only=True)
class WeightMap:
    """How one network's parameter paths become PyTorch keys."""

    renames: tuple[tuple[str, str], ...] = ()
    """(ours, theirs): dotted module names, each replaced where it stands as whole segments."""
    conv1x1: tuple[str, ...] = ()
    """Regexes of our paths whose [I O] kernel is a 1x1 convolution [O I 1 1] in PyTorch."""
    extra: tuple[str, ...] = ()
    """Regexes of known keys that no network uses; they travel in extra.safetensors."""

    def key(self, path: str) -> str:
        """PyTorch's key of our parameter `path`: `a/0/kernel` -> `a.0.weight`."""
        *modules, leaf = path.split("/")
        name = f".{'.'.join(modules)}."
        for ours, theirs in self.renames:
            name = name.replace(f".{ours}.", f".{theirs}.")
        return f"{name}{LEAVES.get(leaf, leaf)}".lstrip(".")

    def is_extra(self, key: str) -> bool:
        """Whether `key` is known and used by no network."""
        return any(re.fullmatch(pattern, key) for pattern in self.extra)

    def to_torch_shape(self, path: str, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Shape that the PyTorch tensor of our parameter must have."""
        if path.rpartition("/")[2] != "kernel":
            return shape
        *window, inputs, outputs = shape
        if any(re.fullmatch(pattern, path) for pattern in self.conv1x1):
            window = [1, 1]
        return (outputs, inputs, *window)

    def to_jax(
        self, path: str, tensor: Tensor, shape: tuple[int, ...], empty: Empty = np.empty
    ) -> Tensor:
        """PyTorch's [O I *window] -> our [*window I O]; anything else as it is.

        Args:
            empty: gives the memory for what is turned.
        """
        if path.rpartition("/")[2] != "kernel":
            return tensor
        outputs, inputs = tensor.shape[:2]
        turned = _transposed(tensor.reshape(outputs, -1), empty).reshape(inputs, -1, outputs)
        return _contiguous(turned.swapaxes(0, 1), empty).reshape(shape)

    def to_torch(self, path: str, array: Tensor, empty: Empty = np.empty) -> Tensor:
        """The inverse of `to_jax`."""
        if path.rpartition("/")[2] != "kernel":
            return array
        *_, inputs, outputs = array.shape
        moved = _contiguous(array.reshape(-1, inputs, outputs).swapaxes(0, 1), empty)
        return _transposed(moved.reshape(-1, outputs), empty).reshape(
            self.to_torch_shape(path, array.shape)
        )


@dataclass(frozen=True, kw_only=True)
class KeyStyle:
    """How a file names what we call by the map's keys: one row of a table in maps.py."""

    name: str
    """Recorded in the manifest."""
    marker: str = ""
    """Regex that some key of such a file contains; empty for the literal style."""
    renames: tuple[tuple[str, str], ...] = ()
    """(regex in the map's key, replacement), applied in order."""
    split: tuple[str, tuple[str, ...]] | None = None
    """(a part of the renamed key, its replacements): one tensor of ours is several in the file."""
    pointwise: str = "(?!)"
    """Regex of file keys that may be stored as 1x1 convolutions, [O I 1 1] for [O I]."""

    def file_keys(self, key: str) -> tuple[str, ...]:
        """Names in the file of the map's `key`."""
        for pattern, replacement in self.renames:
            key = re.sub(pattern, replacement, key)
        if self.split and self.split[0] in key:
            return tuple(key.replace(self.split[0], part) for part in self.split[1])
        return (key,)

    def fits(self, key: str, found: tuple[int, ...], expected: tuple[int, ...]) -> bool:
        """Whether a file's tensor has the right shape."""
        return found == expected or (
            found == (*expected, 1, 1) and bool(re.fullmatch(self.pointwise, key))
        )


LITERAL = KeyStyle(name="literal")
"""The map's keys as they are."""


def _transposed(matrix: Shaped[np.ndarray, "m n"], empty: Empty) -> Shaped[np.ndarray, "n m"]:
    """A transposed copy, bit for bit; NumPy's own takes up to ten times as long."""
    width, turned = SAME_WIDTH[matrix.dtype.itemsize], empty(matrix.shape[::-1], matrix.dtype)
    return cv2.transpose(matrix.view(width), dst=turned.view(width)).view(matrix.dtype)


def _contiguous(array: Tensor, empty: Empty) -> Tensor:
    """The array itself where it lies in order, else a copy that does."""
    if array.flags.c_contiguous:
        return array
    copy = empty(array.shape, array.dtype)
    np.copyto(copy, array)
    return copy


class Wanted(NamedTuple):
    """Where one parameter of ours comes from."""

    path: str
    shape: tuple[int, ...]
    keys: tuple[str, ...]
    """Names in the file; several tensors are stacked along PyTorch's first axis."""
    part: tuple[int, ...]
    """Shape of each of them."""


def wanted(
    weight_map: WeightMap, shapes: Mapping[str, tuple[int, ...]], style: KeyStyle = LITERAL
) -> list[Wanted]:
    """What every parameter asks of a file of the given style.

    Args:
        shapes: our path -> our shape.
    """
    asked = []
    for path, shape in shapes.items():
        keys = style.file_keys(weight_map.key(path))
        whole = weight_map.to_torch_shape(path, shape)
        part = (whole[0] // len(keys), *whole[1:]) if len(keys) > 1 else whole
        asked.append(Wanted(path, shape, keys, part))
    return asked


def misfits(
    asked: Iterable[Wanted],
    found: Mapping[str, tuple[int, ...]],
    is_extra: Callable[[str], bool],
    style: KeyStyle = LITERAL,
) -> list[str]:
    """One line for every missing, misshapen and unused key of a file.

    Args:
        found: PyTorch key -> shape, as the file has them.
        is_extra: whether a key that nobody asks for is known.
    """
    report, used = [], set()
    for path, _, keys, part in asked:
        for key in keys:
            used.add(key)
            if key not in found:
                report.append(f"  missing  {path} <- {key} {part}")
            elif not style.fits(key, tuple(found[key]), part):
                report.append(f"  shape    {path} <- {key}: expected {part}, got {found[key]}")
    unused = [key for key in found if key not in used and not is_extra(key)]
    return report + [f"  unused   {key} {tuple(found[key])}" for key in unused]


def check(
    weight_map: WeightMap,
    shapes: Mapping[str, tuple[int, ...]],
    found: Mapping[str, tuple[int, ...]],
    where: str,
) -> None:
    """Compares the keys and shapes of a state dict with what our parameters ask for.

    Args:
        shapes: our path -> our shape.
        found: PyTorch key -> shape, as the file has them.
        where: names the file in the error.

    Raises:
        ValueError: one report of every missing, misshapen and unused key.
    """
    if report := misfits(wanted(weight_map, shapes), found, weight_map.is_extra):
        raise ValueError(f"{where}: weights do not fit the network:\n" + "\n".join(report))


def load_state_dict(
    module: nnx.Module, weight_map: WeightMap, tensors: Mapping[str, Tensor], where: str
) -> None:
    """Fills a small module in place from a whole PyTorch state dict (tests, scripts).

    Raises:
        ValueError: the report of `check`.
    """
    state = nnx.state(module, nnx.Param)
    flat = {"/".join(map(str, path)): leaf for path, leaf in nnx.to_flat_state(state)}
    shapes = {path: leaf.shape for path, leaf in flat.items()}
    check(weight_map, shapes, {key: t.shape for key, t in tensors.items()}, where)
    for path, leaf in flat.items():
        tensor = weight_map.to_jax(path, np.asarray(tensors[weight_map.key(path)]), leaf.shape)
        leaf.set_value(jnp.asarray(tensor, leaf.dtype))
    nnx.update(module, state)
