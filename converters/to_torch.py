"""Writes PyTorch files from a JAX folder; `plan_return` is the way back of `convert_to_jax`."""

import dataclasses
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Shaped

from converters import maps
from converters.containers import FileRecord, write_weights
from converters.manifest import (
    EXTRA,
    VERBATIM,
    Manifest,
    SourceRecord,
    check_inside,
    read_manifest,
)
from converters.plan import overhead
from converters.streaming import Arena, byte_progress, in_parallel
from converters.weightmap import KeyStyle, WeightMap, wanted
from magiccolor_jax.checkpoint import KINDS, ModelConfig, check_weights, read_config
from magiccolor_jax.files import atomic_directory
from magiccolor_jax.tensorfile import Empty, TensorFile, TensorSpec

Tensor = Shaped[np.ndarray, "..."]


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Where one PyTorch tensor is in the JAX folder."""

    file: TensorFile
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


def plan_return(folder: Path) -> Export:
    """Exactly what came in: the same files, containers, keys, order, types and bytes.

    Raises:
        FileNotFoundError: a file of the JAX folder is missing.
        ValueError: the folder has no manifest, or does not agree with it.
    """
    model, manifest = open_folder(folder)
    if manifest is None:
        raise ValueError(
            f"{folder}: was not converted from PyTorch (it has no manifest.json), so there is "
            "nothing to go back to: use `--to diffusers`"
        )
    files = tuple(
        _returned(folder, model, source, record)
        for source in manifest.sources
        for record in source.files
    )
    return Export(files=files, copies={n: folder / VERBATIM / n for n in manifest.verbatim})


def _returned(
    folder: Path, model: ModelConfig, source: SourceRecord, record: FileRecord
) -> OutputFile:
    origins: Origins = dict(extra_origins(folder, source))
    for stem in source.networks:
        kind = kind_of(model.networks[stem])
        origins |= network_origins(folder, stem, kind, maps.style_named(kind, source.style))
    if lost := [key for key in record.tensors if key not in origins]:
        raise ValueError(
            f"{folder}: {record.path} had {len(lost)} tensors that are not here: {lost[:8]}"
        )
    # Types are what the folder has now: a training may have changed them since.
    tensors = {
        key: TensorSpec(origins[key].spec.dtype, spec.shape) for key, spec in record.tensors.items()
    }
    return OutputFile(record=dataclasses.replace(record, tensors=tensors), origins=origins)


def open_folder(folder: Path) -> tuple[ModelConfig, Manifest | None]:
    """Reads what describes a JAX folder, and looks whether its files are there.

    Raises:
        FileNotFoundError: one report of all that is missing.
        ValueError: config.json or manifest.json is damaged, or names paths outside the folder; or
            one report of every tensor that does not fit config.json.
    """
    model, manifest = read_config(folder), read_manifest(folder)
    check_inside(model.networks, folder)
    wanted_files = [f"{stem}.safetensors" for stem in model.networks]
    if manifest is not None:
        check_inside(manifest.verbatim, folder)
        check_inside((file.path for s in manifest.sources for file in s.files), folder)
        wanted_files += [EXTRA, *(f"{VERBATIM}/{name}" for name in manifest.verbatim)]
    if missing := [name for name in wanted_files if not (folder / name).is_file()]:
        raise FileNotFoundError(f"{folder}: these files are missing: {', '.join(missing)}")
    check_weights(folder, model)
    return model, manifest


def kind_of(config: Any) -> str:
    """The name in `checkpoint.KINDS` of a network's config."""
    return next(kind for kind, (known, _) in KINDS.items() if type(config) is known)


def network_origins(folder: Path, stem: str, kind: str, style: KeyStyle) -> dict[str, Origin]:
    """Key of the style -> where it is, for every parameter of a network."""
    file, weight_map = TensorFile(folder / f"{stem}.safetensors"), maps.BY_KIND[kind]
    shapes = {path: spec.shape for path, spec in file.specs.items()}
    return {
        key: Origin(
            file=file,
            name=item.path,
            spec=TensorSpec(file.specs[item.path].dtype, item.part),
            weight_map=weight_map,
            part=(index, len(item.keys)),
        )
        for item in wanted(weight_map, shapes, style)
        for index, key in enumerate(item.keys)
    }


def extra_origins(folder: Path, source: SourceRecord) -> dict[str, Origin]:
    """Key -> where it is, for a source's tensors that no network uses."""
    file, prefix = TensorFile(folder / EXTRA), f"{source.path}/"
    return {
        name.removeprefix(prefix): Origin(file=file, name=name, spec=spec)
        for name, spec in file.specs.items()
        if name.startswith(prefix)
    }
