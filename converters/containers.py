"""Files of PyTorch tensors behind one interface: safetensors, and torch.save's two formats."""

import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from threading import RLock
from typing import Any, Literal

import numpy as np
from jaxtyping import Shaped

from converters import torchfile
from magiccolor_jax.tensorfile import Empty, TensorFile, TensorFileWriter, TensorSpec

Container = Literal["safetensors", "torch", "torch_legacy"]
"""`torch` is torch.save's zip file, `torch_legacy` its format before PyTorch 1.6."""

SUFFIXES = (".safetensors", ".bin", ".pth", ".pt", ".ckpt")
NESTINGS = ("state_dict", "model")
"""Keys under which training programs put the weights beside optimiser and counters."""

ZIP_MAGIC, PICKLE_MAGIC = b"PK\x03\x04", b"\x80"
LFS_MAGIC = b"version https://git-lfs"
WHOLE = RLock()
"""Held by the thread that has a whole legacy file in memory, so that no two are."""
LDM_KEY = re.compile(
    r"(model\.diffusion_model|first_stage_model|cond_stage_model|control_model)\.|"
    r"((input|output)_blocks|middle_block)\.|(encoder|decoder)\.(down|mid|up)\."
)
"""How the keys of Latent Diffusion's checkpoints begin, whole ones and single networks."""


@dataclass(frozen=True, kw_only=True)
class FileRecord:
    """One file of weights, as it can be written again."""

    path: str
    """Relative to the folder that it came in."""
    container: Container
    tensors: dict[str, TensorSpec]
    """Key -> type and shape, in the file's order."""
    metadata: dict[str, str] = field(default_factory=dict)
    """safetensors' own."""
    nesting: str | None = None
    """The key of `NESTINGS` that holds the weights, if one does."""
    sha256: str = ""
    """Of the file's bytes; empty for a file that never was."""

    @property
    def nbytes(self) -> int:
        """Size of the tensors."""
        return sum(spec.nbytes for spec in self.tensors.values())


class WeightFile(ABC):
    """A file of tensors: its header is known from the start, tensors are read inside `with`."""

    path: Path
    container: Container
    specs: dict[str, TensorSpec]
    """Key -> type and shape, in the file's order."""
    metadata: dict[str, str]
    nesting: str | None
    beside: tuple[str, ...] = ()
    """What else lay beside the nested state dict."""

    @abstractmethod
    def read(self, key: str, empty: Empty = np.empty) -> Shaped[np.ndarray, "..."]:
        """One tensor, in memory that `empty` gives, or a view that ends with the `with` block."""

    @abstractmethod
    def __enter__(self) -> "WeightFile": ...

    @abstractmethod
    def __exit__(self, *_: object) -> None: ...


class SafetensorsWeights(WeightFile):
    """A safetensors file; needs no torch."""

    def __init__(self, path: Path):
        self._file = TensorFile(path)
        self.path, self.container, self.nesting = path, "safetensors", None
        self.specs, self.metadata = self._file.specs, self._file.metadata

    def read(self, key: str, empty: Empty = np.empty) -> Shaped[np.ndarray, "..."]:
        """One tensor, in memory that `empty` gives."""
        return self._file.read(key, empty)

    def __enter__(self) -> WeightFile:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing is held."""


class TorchWeights(WeightFile):
    """A torch.save file. Zip files are read tensor by tensor, legacy ones whole."""

    def __init__(self, path: Path, container: Container):
        self.path, self.container, self.metadata = path, container, {}
        content = torchfile.load(path, headers_only=container == "torch")
        outer = content if isinstance(content, Mapping) else {}
        self.nesting = next((key for key in NESTINGS if key in outer), None)
        if self.nesting:
            self.beside = tuple(str(key) for key in outer if key != self.nesting)
        tensors = self._state_dict(content)
        self.specs = {key: torchfile.spec_of(path, key, t) for key, t in tensors.items()}
        if container == "torch":
            self._places = {key: torchfile.place_of(t) for key, t in tensors.items()}
        self._whole: dict[str, Any] = {}
        self._held = ExitStack()

    def _state_dict(self, content: Any) -> dict[str, Any]:
        return _only_tensors(self.path, content[self.nesting] if self.nesting else content)

    def read(self, key: str, empty: Empty = np.empty) -> Shaped[np.ndarray, "..."]:
        """One tensor, in memory that `empty` gives, or a view of a legacy file's."""
        if self.container == "torch":
            return torchfile.read_placed(self.path, self.specs[key], self._places[key], empty)
        return torchfile.to_numpy(self._whole[key])

    def __enter__(self) -> WeightFile:
        if self.container == "torch_legacy":
            with ExitStack() as held:
                held.enter_context(WHOLE)
                self._whole = self._state_dict(torchfile.load(self.path, headers_only=False))
                self._held = held.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._whole = {}
        self._held.close()


def open_weights(path: Path) -> WeightFile:
    """Opens a file of weights, whatever its container; reads no tensor yet.

    Raises:
        FileNotFoundError: it does not exist.
        ValueError: it is damaged, is no file of weights, needs code to load, holds a dtype that
            we do not know, or has Latent Diffusion's key names.
        ImportError: it needs PyTorch, which is not installed.
    """
    with path.open("rb") as file:
        start = file.read(len(LFS_MAGIC))
    if start == LFS_MAGIC:
        raise ValueError(f"{path}: a git-lfs pointer, not the file: fetch it with `git lfs pull`")
    if path.suffix == ".safetensors" or start[8:9] == b"{":
        weights: WeightFile = SafetensorsWeights(path)
    elif start[:4] == ZIP_MAGIC:
        weights = TorchWeights(path, "torch")
    elif start[:1] == PICKLE_MAGIC:
        weights = TorchWeights(path, "torch_legacy")
    else:
        raise ValueError(
            f"{path}: expected a file of torch.save, got one that starts with {start[:8]!r}: "
            "download it again"
        )
    if ldm := [key for key in weights.specs if LDM_KEY.match(key)]:
        raise ValueError(
            f"{path}: has the key names of Latent Diffusion ({ldm[0]}, ...), expected diffusers' "
            "(down_blocks.0...): load it with diffusers' `from_single_file`, `save_pretrained` it, "
            "and convert the folder"
        )
    return weights


def write_weights(
    path: Path, record: FileRecord, tensors: Iterable[tuple[str, Shaped[np.ndarray, "..."]]]
) -> None:
    """Writes a file that `open_weights` reads as `record`, one tensor at a time.

    Only torch's legacy format is held in memory while it is written, and needs torch.

    Args:
        tensors: every key of the record, in its order; each may end when the next is asked for.

    Raises:
        ValueError: a key is missing, or type and shape of a tensor are not the record's.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if record.container == "safetensors":
        with TensorFileWriter(path, record.tensors, record.metadata, keep_order=True) as writer:
            for key, tensor in tensors:
                writer.write(key, tensor)
    elif record.container == "torch":
        torchfile.write_zip(path, record.tensors, tensors, record.nesting)
    else:
        torch = torchfile.import_torch(path)
        with WHOLE:
            state = {key: torchfile.from_numpy(tensor.copy()) for key, tensor in tensors}
            content = {record.nesting: state} if record.nesting else state
            torch.save(content, path, _use_new_zipfile_serialization=False)


def _only_tensors(path: Path, content: Any) -> dict[str, Any]:
    """The mapping of a state dict.

    Raises:
        ValueError: it is something else.
    """
    if not isinstance(content, Mapping) or not content:
        raise ValueError(f"{path}: expected a state dict, got {type(content).__name__}")
    strange = [
        key
        for key, value in content.items()
        if not (isinstance(key, str) and hasattr(value, "untyped_storage"))
    ]
    if strange:
        raise ValueError(
            f"{path}: expected a state dict of tensors, or one under {' or '.join(NESTINGS)}; "
            f"these entries are no named tensors: {strange[:8]}"
        )
    return dict(content)
