"""What a conversion to JAX will do: which files feed which networks, all checked beforehand."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Shaped

from converters.containers import SUFFIXES, WeightFile, open_weights
from converters.maps import detect_style
from converters.weightmap import KeyStyle, Wanted, WeightMap, misfits, wanted
from magiccolor_jax import checkpoint
from magiccolor_jax.tensorfile import Empty, TensorSpec

FOLDER_STEMS = ("diffusion_pytorch_model", "model", "pytorch_model")
FOLDER_NAMES = tuple(
    f"{stem}{ending}"
    for whole, index in (("", ".index.json"), (".fp16", ".index.fp16.json"))
    for suffix in (".safetensors", ".bin")
    for ending in (f"{whole}{suffix}", f"{suffix}{index}", f"{whole}{suffix}.index.json")
    for stem in FOLDER_STEMS
)
"""Files of weights in a diffusers or transformers folder; the first that exists is taken."""

INDEX = re.compile(r"\.index(\.fp16)?\.json$")
"""End of the name of a list of shards."""

ENTRY_BYTES, FILE_BYTES = 300, 1 << 16
"""What a tensor takes in headers and manifest, and a file in configs and blocks of the disk."""


@cache
def _shapes(config: Any) -> dict[str, tuple[int, ...]]:
    """`parameter_shapes`, once for all networks of the same sizes: it takes about a second."""
    return checkpoint.parameter_shapes(config)


@dataclass(frozen=True, kw_only=True)
class Network:
    """One file of the JAX folder."""

    stem: str
    """Its name without `.safetensors`."""
    kind: str
    """As in `checkpoint.KINDS`."""
    config: Any
    """Of the kind's config class."""
    weight_map: WeightMap
    """The kind's, with the extras of the network's role."""

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Our path -> our shape."""
        return _shapes(self.config)


@dataclass(frozen=True, kw_only=True)
class Source:
    """One set of weights, in one file or several, and the networks that it feeds."""

    path: str
    """The file, or the index of its shards, relative to the folder that is converted."""
    files: tuple[WeightFile, ...]
    networks: tuple[Network, ...]

    @cached_property
    def found(self) -> dict[str, WeightFile]:
        """Key -> the file that has it."""
        return {key: file for file in self.files for key in file.specs}

    @cached_property
    def style(self) -> KeyStyle:
        """How the files name their tensors."""
        return detect_style(self.networks[0].kind, self.found)

    def spec(self, key: str) -> TensorSpec:
        """Type and shape of a tensor, as the file has it."""
        return self.found[key].specs[key]

    def wanted(self, network: Network) -> list[Wanted]:
        """What the network takes, in the file's order, so that the disk is read forwards."""
        position = {key: index for index, key in enumerate(self.found)}
        asked = wanted(network.weight_map, network.shapes, self.style)
        return sorted(asked, key=lambda item: position[item.keys[0]])

    def read(
        self, network: Network, item: Wanted, empty: Empty = np.empty
    ) -> Shaped[np.ndarray, "..."]:
        """One parameter of ours, in our orientation and the file's type."""
        parts = [self.found[key].read(key, empty).reshape(item.part) for key in item.keys]
        tensor = parts[0] if len(parts) == 1 else np.concatenate(parts)
        return network.weight_map.to_jax(item.path, tensor, item.shape, empty)

    def dtype(self, item: Wanted) -> np.dtype:
        """Type of one parameter of ours."""
        return self.spec(item.keys[0]).dtype

    @cached_property
    def extras(self) -> dict[str, TensorSpec]:
        """The tensors that no network takes."""
        used = {key for net in self.networks for item in self.wanted(net) for key in item.keys}
        return {key: self.spec(key) for key in self.found if key not in used}

    @property
    def nbytes(self) -> int:
        """Size of all tensors."""
        return sum(spec.nbytes for file in self.files for spec in file.specs.values())

    def check(self) -> None:
        """Compares names and shapes with the networks'.

        Raises:
            ValueError: one report of every missing, misshapen and unused key.
        """
        asked = [
            item
            for network in self.networks
            for item in wanted(network.weight_map, network.shapes, self.style)
        ]
        shapes = {key: self.spec(key).shape for key in self.found}
        report = misfits(asked, shapes, self._is_extra, self.style)
        for item in asked if not report else ():
            kinds = {self.spec(key).dtype for key in item.keys}
            if len(kinds) > 1:
                report.append(f"  dtype    {item.path} <- {item.keys}: expected one, got {kinds}")
        if report:
            names = " and ".join(network.kind for network in self.networks)
            where = self.files[0].path.with_name(Path(self.path).name)
            raise ValueError(f"{where}: weights do not fit the {names}:\n" + "\n".join(report))

    def _is_extra(self, key: str) -> bool:
        return any(network.weight_map.is_extra(key) for network in self.networks)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A checked conversion to JAX."""

    root: Path
    """What the sources' paths are relative to."""
    sources: tuple[Source, ...]
    model: checkpoint.ModelConfig
    verbatim: tuple[str, ...] = ()
    """Small files that travel as they are, relative to `root`."""
    notes: tuple[str, ...] = field(default=())
    """What the user should know before it starts."""

    @property
    def nbytes(self) -> int:
        """Size of all tensors and small files."""
        small = sum((self.root / name).stat().st_size for name in self.verbatim)
        return small + sum(source.nbytes for source in self.sources)

    @property
    def disk(self) -> int:
        """Size of the output, at most."""
        files = [file for source in self.sources for file in source.files]
        return self.nbytes + overhead([file.specs for file in files])


def overhead(files: Sequence[Mapping[str, TensorSpec]]) -> int:
    """Bytes of a folder beside the tensors' own, at most."""
    return FILE_BYTES + sum(FILE_BYTES + ENTRY_BYTES * len(tensors) for tensors in files)


def find_weights(root: Path, where: str) -> str | None:
    """The file of weights, or the index of its shards, that stands for `where`; None if none does.

    Args:
        where: a folder of diffusers or transformers, or a file without its suffix; relative.
    """
    if (root / where).is_dir():
        names = [f"{where}/{name}" for name in FOLDER_NAMES]
    else:
        names = [f"{where}{suffix}{index}" for suffix in SUFFIXES for index in ("", ".index.json")]
    return next((str(Path(name)) for name in names if (root / name).is_file()), None)


def open_source(root: Path, path: str) -> tuple[WeightFile, ...]:
    """Opens a file of weights, or all the shards that an index names.

    Raises:
        FileNotFoundError: shards are missing; all are named.
        ValueError: an index and its shards do not agree, or what `open_weights` raises.
    """
    if not INDEX.search(path):
        return (open_weights(root / path),)
    index = read_json(root / path)
    placed = index.get("weight_map")
    if not isinstance(placed, dict) or not all(map(_is_file_name, placed.values())):
        raise ValueError(
            f"{root / path}: expected an index whose `weight_map` gives the name of a file beside "
            "it for every tensor: download it again"
        )
    shards = {name: (root / path).with_name(name) for name in sorted(set(placed.values()))}
    if missing := [str(shard) for shard in shards.values() if not shard.is_file()]:
        raise FileNotFoundError(f"{root / path}: these shards are missing: {', '.join(missing)}")
    files = {name: open_weights(shard) for name, shard in shards.items()}
    held = [(key, name) for name, file in files.items() for key in file.specs]
    if sorted(held) != sorted(placed.items()):
        wrong = sorted(set(held) ^ set(placed.items()))
        raise ValueError(
            f"{root / path}: does not agree with its shards on {len(wrong)} tensors, among them "
            f"{wrong[:4]}: download the folder again"
        )
    return tuple(files.values())


def _is_file_name(name: Any) -> bool:
    return isinstance(name, str) and name not in ("", "..") and Path(name).name == name


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
        ValueError: the file is not JSON, or not an object.
    """
    try:
        content = json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(f"{path}: must be JSON: {error}") from None
    if not isinstance(content, Mapping):
        raise ValueError(f"{path}: expected a JSON object, got {type(content).__name__}")
    return dict(content)
