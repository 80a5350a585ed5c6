"""Writes PyTorch files from a JAX folder: what is planned by to_release.py and to_diffusers.py."""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Shaped

from converters import maps
from converters.containers import FileRecord, write_weights
from converters.manifest import EXTRA, SourceRecord
from converters.plan import overhead
from converters.streaming import Arena, byte_progress, in_parallel
from converters.weightmap import KeyStyle, WeightMap, wanted
from magiccolor_jax.checkpoint import KINDS
from magiccolor_jax.encoders.dinov2_config import DINOv2Config
from magiccolor_jax.files import atomic_directory
from magiccolor_jax.models.unet import UNetConfig
from magiccolor_jax.tensorfile import Empty, TensorFile, Tensors, TensorSpec

Tensor = Shaped[np.ndarray, "..."]


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Where one PyTorch tensor is in the JAX folder."""

    file: Tensors
    name: str
    """Parameter path, or key of extra.safetensors."""
    spec: TensorSpec
    """Type and shape of the PyTorch tensor."""
    weight_map: WeightMap | None = None
    """None for extras, which are stored as they came."""
    part: tuple[int, int] = (0, 1)
    """Which of how many equal parts along PyTorch's first axis."""

    def read(self, empty: Empty = np.empty) -> Tensor:
        """The tensor as PyTorch has it."""
        array = self.file.read(self.name, empty)
        if self.weight_map is not None:
            array = self.weight_map.to_torch(self.name, array, empty)
        index, count = self.part
        return array if count == 1 else np.ascontiguousarray(np.split(array, count)[index])


@dataclass(frozen=True, kw_only=True)
class Filled:
    """A PyTorch tensor that the JAX folder does not have."""

    value: float
    spec: TensorSpec

    def read(self, empty: Empty = np.empty) -> Tensor:
        """The constant tensor."""
        array = empty(self.spec.shape, self.spec.dtype)
        array.fill(self.value)
        return array


Origins = dict[str, Origin | Filled]


@dataclass(frozen=True, kw_only=True)
class OutputFile:
    """One file of weights to write."""

    record: FileRecord
    origins: Origins
    """Where each key of the record is."""

    def tensors(self, arena: Arena) -> Iterator[tuple[str, Tensor]]:
        """All tensors in the record's order; each is valid until the next."""
        for key, spec in self.record.tensors.items():
            arena.clear()
            yield key, self.origins[key].read(arena.empty).reshape(spec.shape)


@dataclass(frozen=True, kw_only=True)
class Export:
    """A checked conversion to PyTorch."""

    files: tuple[OutputFile, ...]
    copies: dict[str, Path] = field(default_factory=dict)
    """Path in the output -> the file that is copied there."""
    texts: dict[str, str] = field(default_factory=dict)
    """Path in the output -> content."""
    notes: tuple[str, ...] = ()
    """What the user should know before it starts."""

    @property
    def nbytes(self) -> int:
        """Size of all tensors and small files."""
        small = sum(path.stat().st_size for path in self.copies.values())
        return small + sum(file.record.nbytes for file in self.files)

    @property
    def disk(self) -> int:
        """Size of the output, at most."""
        return self.nbytes + overhead([file.record.tensors for file in self.files])


def convert_to_torch(export: Export, output: Path, *, progress: bool = True) -> None:
    """Carries an export out; `output` appears whole or not at all.

    Raises:
        FileExistsError: `output` exists.
        ImportError: a file needs PyTorch, which is not installed.
        OSError: the disk is full.
    """
    with (
        atomic_directory(output) as folder,
        byte_progress("to PyTorch", export.nbytes, show=progress) as advance,
    ):

        def counted(file: OutputFile, arena: Arena) -> Iterator[tuple[str, Tensor]]:
            for key, tensor in file.tensors(arena):
                yield key, tensor
                advance(tensor.nbytes)

        def write(file: OutputFile, arena: Arena) -> None:
            write_weights(folder / file.record.path, file.record, counted(file, arena))

        in_parallel(write, export.files, lambda file: file.record.nbytes)
        for name, source in export.copies.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            advance(shutil.copyfile(source, folder / name).stat().st_size)
        for name, text in export.texts.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text)


def kind_of(config: Any) -> str:
    """The name in `checkpoint.KINDS` of a network's config."""
    return next(kind for kind, (known, _) in KINDS.items() if type(config) is known)


def network_origins(tensors: Tensors, kind: str, style: KeyStyle) -> dict[str, Origin]:
    """Key of the style -> where it is, for every parameter of a network."""
    weight_map = maps.BY_KIND[kind]
    shapes = {path: spec.shape for path, spec in tensors.specs.items()}
    return {
        key: Origin(
            file=tensors,
            name=item.path,
            spec=TensorSpec(tensors.specs[item.path].dtype, item.part),
            weight_map=weight_map,
            part=(index, len(item.keys)),
        )
        for item in wanted(weight_map, shapes, style)
        for index, key in enumerate(item.keys)
    }


def extra_origins(root: Path, source: SourceRecord) -> dict[str, Origin]:
    """Key -> where it is, for a source's tensors that no network uses."""
    file, prefix = TensorFile(root / EXTRA), f"{source.path}/"
    return {
        name.removeprefix(prefix): Origin(file=file, name=name, spec=spec)
        for name, spec in file.specs.items()
        if name.startswith(prefix)
    }


def unused(config: Any) -> dict[str, Filled]:
    """What a strict loader of the library wants beside our parameters, and no result depends on.

    An output head of the reference UNet, whose norm is the identity and whose convolution is zero,
    and DINOv2's token for masked patches, zero as its authors initialise it; by the map's keys.
    """
    float32 = np.dtype(np.float32)

    def filled(value: float, *shape: int) -> Filled:
        return Filled(value=value, spec=TensorSpec(float32, shape))

    if isinstance(config, DINOv2Config):
        return {"mask_token": filled(0.0, 1, config.hidden_size)}
    if isinstance(config, UNetConfig) and not config.head:
        width, outputs = config.channels[0], config.out_channels
        return {
            "conv_norm_out.weight": filled(1.0, width),
            "conv_norm_out.bias": filled(0.0, width),
            "conv_out.weight": filled(0.0, outputs, width, 3, 3),
            "conv_out.bias": filled(0.0, outputs),
        }
    return {}


def new_file(path: str, origins: Origins) -> OutputFile:
    """A file that never was; the container is told by the suffix."""
    safe = path.endswith(".safetensors")
    # The order of safetensors' own writer.
    keys = sorted(origins, key=lambda key: (-origins[key].spec.dtype.itemsize, key))
    record = FileRecord(
        path=path,
        container="safetensors" if safe else "torch",
        tensors={key: origins[key].spec for key in keys},
        metadata={"format": "pt"} if safe else {},
    )
    return OutputFile(record=record, origins=origins)
