"""safetensors files, tensor by tensor.

The `safetensors` package maps the whole file on reading and wants all tensors in memory on writing;
converters stream files larger than memory allows, so this reads and writes one tensor at a time
(format: huggingface.co/docs/safetensors, "Format").
"""

import json
import os
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Protocol, runtime_checkable

import ml_dtypes
import numpy as np
from jaxtyping import Shaped

DTYPES = {
    "F64": np.dtype(np.float64),
    "F32": np.dtype(np.float32),
    "F16": np.dtype(np.float16),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "I64": np.dtype(np.int64),
    "I32": np.dtype(np.int32),
    "U8": np.dtype(np.uint8),
    "BOOL": np.dtype(np.bool_),
}
NAMES = {dtype: name for name, dtype in DTYPES.items()}
MAX_HEADER = 100_000_000
"""Bytes; the format's own limit."""

Empty = Callable[[tuple[int, ...], np.dtype], Shaped[np.ndarray, "..."]]
"""Gives memory for an array of a shape and type, as `numpy.empty` does."""


class TensorSpec(NamedTuple):
    """Type and shape of one tensor."""

    dtype: np.dtype
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """Size of the data."""
        return int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize


@runtime_checkable
class Tensors(Protocol):
    """Named tensors that are read one by one, wherever they lie."""

    specs: dict[str, TensorSpec]

    def read(self, key: str, empty: Empty = np.empty) -> Shaped[np.ndarray, "..."]:
        """One tensor, in memory that `empty` gives or in its own."""
        ...


class TensorFile:
    """A safetensors file open for reading; no part of it is mapped or kept in memory."""

    def __init__(self, path: Path):
        """Reads the header.

        Raises:
            ValueError: the file is no safetensors file, is cut short, or has an unknown dtype.
        """
        self.path = path
        size = path.stat().st_size
        with path.open("rb") as file:
            start = file.read(8)
            length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
            if not 2 <= length <= min(MAX_HEADER, size - 8):
                raise ValueError(
                    f"{path}: not a whole safetensors file (header of {length} bytes in a file of "
                    f"{size}): download it again"
                )
            try:
                header = json.loads(file.read(length))
            except ValueError as error:
                raise ValueError(f"{path}: the safetensors header is not JSON: {error}") from None
        if not isinstance(header, dict):
            raise ValueError(f"{path}: the safetensors header must be an object, got {header!r}")
        self.metadata: dict[str, str] = header.pop("__metadata__", {})
        self.specs: dict[str, TensorSpec] = {}
        self._offsets: dict[str, int] = {}
        for key, entry in header.items():
            self._add(key, entry, 8 + length, size)

    def _add(self, key: str, entry: Any, data: int, size: int) -> None:
        try:
            dtype, shape, (begin, end) = (
                entry["dtype"],
                tuple(entry["shape"]),
                entry["data_offsets"],
            )
            if min(0, *shape, begin, end) < 0:
                raise ValueError
        except (TypeError, KeyError, ValueError):
            raise ValueError(
                f"{self.path}: the header's entry of {key!r} must give dtype, shape and "
                f"data_offsets, got {entry!r}: download the file again"
            ) from None
        if dtype not in DTYPES:
            known = ", ".join(DTYPES)
            raise ValueError(f"{self.path}: {key} has dtype {dtype}; known are {known}")
        spec = TensorSpec(DTYPES[dtype], shape)
        if end - begin != spec.nbytes or data + end > size:
            raise ValueError(
                f"{self.path}: {key} {spec.shape} needs {spec.nbytes} bytes at {begin}, but the "
                f"header gives it up to {end} and the file's data ends at {size - data}: the file "
                "is cut short or damaged, download it again"
            )
        self.specs[key] = spec
        self._offsets[key] = data + begin

    def read(self, key: str, empty: Empty = np.empty) -> Shaped[np.ndarray, "..."]:
        """One tensor, in memory that `empty` gives."""
        spec = self.specs[key]
        out = empty(spec.shape, spec.dtype)
        with self.path.open("rb", buffering=0) as file:
            file.seek(self._offsets[key])
            view, done = memoryview(out.reshape(-1).view(np.uint8).data), 0
            while done < spec.nbytes:
                got = file.readinto(view[done:])
                if not got:
                    raise ValueError(f"{self.path}: ends inside {key}: download it again")
                done += got
        return out

    def mapped(self, key: str) -> Shaped[np.ndarray, "..."]:
        """One tensor as a read-only view of the file: only what is sliced is read."""
        spec = self.specs[key]
        if not spec.nbytes:
            return np.empty(spec.shape, spec.dtype)
        return np.memmap(self.path, spec.dtype, "r", self._offsets[key], spec.shape)


class TensorFileWriter:
    """Writes a safetensors file of known names, types and shapes, tensors in any order."""

    def __init__(
        self,
        path: Path,
        specs: Mapping[str, TensorSpec],
        metadata: Mapping[str, str] | None = None,
        *,
        keep_order: bool = False,
    ):
        """Writes the header.

        Args:
            keep_order: tensors lie in the order of `specs`; default widest types first, so that
                every tensor is aligned, as the format's own writer does.
        """
        header: dict = {"__metadata__": dict(metadata)} if metadata else {}
        self._offsets, end = {}, 0
        by_width = sorted(specs, key=lambda k: (-specs[k].dtype.itemsize, k))
        for key in specs if keep_order else by_width:
            spec = specs[key]
            self._offsets[key] = end
            header[key] = {
                "dtype": NAMES[spec.dtype],
                "shape": list(spec.shape),
                "data_offsets": [end, end + spec.nbytes],
            }
            end += spec.nbytes
        text = json.dumps(header, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)
        self._specs, self._missing, self._data = dict(specs), set(specs), 8 + len(text)
        self._file = path.open("wb", buffering=0)
        self._write_at(0, struct.pack("<Q", len(text)) + text)
        self._file.truncate(self._data + end)

    def write(self, key: str, array: Shaped[np.ndarray, "..."]) -> None:
        """Puts one tensor in its place; threads may do so at the same time.

        Raises:
            ValueError: its type or shape is not the announced one.
            OSError: the disk is full.
        """
        spec = TensorSpec(array.dtype, array.shape)
        if spec != self._specs[key]:
            raise ValueError(f"{key}: announced {self._specs[key]}, got {spec}")
        flat = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        self._write_at(self._data + self._offsets[key], flat.data)
        self._missing.discard(key)

    def _write_at(self, offset: int, data: bytes | memoryview) -> None:
        """Writes every byte (one call moves at most 2 GiB)."""
        view, done = memoryview(data), 0
        while done < len(view):
            done += os.pwrite(self._file.fileno(), view[done:], offset + done)

    def __enter__(self) -> "TensorFileWriter":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        if kind is None and self._missing:
            raise ValueError(f"{self._file.name}: never written: {sorted(self._missing)}")
