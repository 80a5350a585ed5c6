"""torch.save's files, read and written one tensor at a time.

Reading goes through `torch.load(weights_only=True)`, which runs no code from the file; torch tells
where the tensors are and this module fetches them. Writing needs no torch: the format is a zip file
of uncompressed records, `NAME/data.pkl` (the tensors' names, types and shapes) and `NAME/data/N`
(facts: pytorch `torch/serialization.py`, `torch/csrc/jit/serialization/`).
"""

import os
import pickle
import re
import struct
import warnings
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np
from jaxtyping import Shaped

from magiccolor_jax.tensorfile import NAMES, Empty, TensorSpec

Tensor = Shaped[np.ndarray, "..."]

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
STORAGES = {
    "F64": "DoubleStorage",
    "F32": "FloatStorage",
    "F16": "HalfStorage",
    "BF16": "BFloat16Storage",
    "I64": "LongStorage",
    "I32": "IntStorage",
    "U8": "ByteStorage",
    "BOOL": "BoolStorage",
}
"""safetensors' name of a type -> torch's class in a pickle."""

ALIGNMENT = 64
"""Bytes: where torch.save puts the start of each tensor."""

ZIP_HEADER, PADDING_HEADER = 30, 4
"""Bytes before a record's name, and before the padding that follows it."""

NO_TORCH = "a file of torch.save needs PyTorch: pip install 'magiccolor_jax[torch]'"


class Place(NamedTuple):
    """Where one tensor's data are."""

    offset: int
    """Bytes from the start of the file."""
    strides: tuple[int, ...]
    """In elements."""


def import_torch(path: Path) -> Any:
    """The module torch.

    Raises:
        ImportError: it is not installed; names the file that needs it.
    """
    try:
        import torch
    except ModuleNotFoundError:
        raise ImportError(f"{path}: {NO_TORCH}") from None
    return torch


def load(path: Path, *, headers_only: bool) -> Any:
    """What a file holds, nothing but data.

    Args:
        headers_only: tensors know their place in the file and hold no data (zip files only).

    Raises:
        ValueError: it is damaged, or only running code from inside it would load it.
        ImportError: torch is not installed.
    """
    torch = import_torch(path)
    from torch._subclasses.fake_tensor import FakeTensorMode

    try:
        with warnings.catch_warnings():
            # Files from before PyTorch 2.0 are announced as such; nothing can be done about it.
            warnings.filterwarnings("ignore", message="TypedStorage is deprecated")
            if not headers_only:
                return torch.load(path, map_location="cpu", weights_only=True)
            with FakeTensorMode():
                return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        refused = re.search(r"GLOBAL (\S+)", str(error))
        raise ValueError(
            f"{path}: must hold tensors only, and loading it would run code from inside it"
            f"{f' ({refused[1]})' if refused else ''}: take the safetensors file, or have someone "
            "you trust save its state_dict alone"
        ) from None
    except (RuntimeError, EOFError, OSError, KeyError, struct.error) as error:
        if "TorchScript" in str(error):
            raise ValueError(
                f"{path}: a TorchScript program, not weights: save the state_dict() of what "
                "torch.jit.load makes of it, where you trust it"
            ) from None
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"{path}: damaged or cut short ({reason}): download it again") from None


def spec_of(path: Path, key: str, tensor: Any) -> TensorSpec:
    """Type and shape of a torch tensor.

    Raises:
        ValueError: safetensors and NumPy do not know the type, or the tensor is sparse.
    """
    torch = import_torch(path)
    dtypes = {getattr(torch, dtype.name): dtype for dtype in NAMES}
    if tensor.dtype not in dtypes or tensor.layout != torch.strided:
        raise ValueError(
            f"{path}: {key} is {tensor.dtype} ({tensor.layout}); dense tensors of "
            f"{', '.join(NAMES.values())} can be converted"
        )
    return TensorSpec(dtypes[tensor.dtype], tuple(tensor.shape))


def place_of(tensor: Any) -> Place:
    """Where the data of a tensor from `load(headers_only=True)` are."""
    start = tensor.untyped_storage()._checkpoint_offset
    return Place(start + tensor.storage_offset() * tensor.element_size(), tensor.stride())


def read_placed(path: Path, spec: TensorSpec, place: Place, empty: Empty = np.empty) -> Tensor:
    """Fetches one tensor into memory that `empty` gives.

    Raises:
        ValueError: the file ends before it.
    """
    steps = ((size - 1) * step for size, step in zip(spec.shape, place.strides, strict=True))
    count = 1 + sum(steps) if 0 not in spec.shape else 0
    flat = empty((count,), spec.dtype)
    with path.open("rb") as file:
        file.seek(place.offset)
        if file.readinto(flat.view(np.uint8).data) != flat.nbytes:
            raise ValueError(f"{path}: ends inside a tensor: download it again")
    strides = [step * spec.dtype.itemsize for step in place.strides]
    return np.ascontiguousarray(np.lib.stride_tricks.as_strided(flat, spec.shape, strides)).reshape(
        spec.shape
    )


def to_numpy(tensor: Any) -> Tensor:
    """The same bytes; NumPy has no bfloat16 of its own, so that goes by integers."""
    import torch

    tensor = tensor.detach().contiguous()
    if tensor.dtype == torch.bfloat16:
        return tensor.view(torch.int16).numpy().view(BFLOAT16)
    return tensor.numpy()


def from_numpy(array: Tensor) -> Any:
    """The inverse of `to_numpy`; shares memory where it may."""
    import torch

    array = np.require(array, requirements=["C", "W"])
    if array.dtype == BFLOAT16:
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(array)


def write_zip(
    path: Path,
    specs: Mapping[str, TensorSpec],
    tensors: Iterable[tuple[str, Tensor]],
    nesting: str | None = None,
) -> None:
    """Writes a file that torch.load reads, as torch.save would.

    Args:
        tensors: every key of `specs`, in its order.
        nesting: puts the state dict under this key of an outer dict.

    Raises:
        ValueError: a tensor is not the one that `specs` announces.
    """
    content = pickled_state_dict(specs)
    if nesting:
        content = pickle.EMPTY_DICT + _text(nesting) + content + pickle.SETITEM
    with path.open("wb") as file:
        with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
            _add(
                archive,
                file.tell(),
                f"{path.stem}/data.pkl",
                pickle.PROTO + b"\x02" + content + pickle.STOP,
            )
            _add(archive, file.tell(), f"{path.stem}/byteorder", b"little")
            announced = iter(specs.items())
            for index, (key, tensor) in enumerate(tensors):
                if (key, TensorSpec(tensor.dtype, tensor.shape)) != next(announced, None):
                    raise ValueError(f"{path}: {key} {tensor.dtype} {tensor.shape} is not expected")
                _add(archive, file.tell(), f"{path.stem}/data/{index}", _bytes_of(tensor))
            if left := [key for key, _ in announced]:
                raise ValueError(f"{path}: never written: {left}")
            _add(archive, file.tell(), f"{path.stem}/version", b"3\n")
        file.flush()
        os.fsync(file.fileno())


def _add(archive: zipfile.ZipFile, start: int, name: str, data: bytes | memoryview) -> None:
    """Appends a record at byte `start` whose data begin at a multiple of `ALIGNMENT`."""
    info = zipfile.ZipInfo(name)
    info.file_size = len(data)
    padding = -(start + ZIP_HEADER + len(name) + PADDING_HEADER) % ALIGNMENT
    info.extra = b"FB" + struct.pack("<H", padding) + b"Z" * padding
    with archive.open(info, "w") as record:
        record.write(data)


def _bytes_of(tensor: Tensor) -> memoryview:
    return np.ascontiguousarray(tensor).reshape(-1).view(np.uint8).data


def pickled_state_dict(specs: Mapping[str, TensorSpec]) -> bytes:
    """The opcodes of a dict of tensors, storage N for the N-th, without head and stop."""
    pairs = (_text(key) + _tensor(i, spec) for i, (key, spec) in enumerate(specs.items()))
    return pickle.EMPTY_DICT + pickle.MARK + b"".join(pairs) + pickle.SETITEMS


def _tensor(index: int, spec: TensorSpec) -> bytes:
    """`_rebuild_tensor_v2(storage, 0, shape, strides, False, OrderedDict())`."""
    count = int(np.prod(spec.shape, dtype=np.int64))
    strides = [int(np.prod(spec.shape[i + 1 :], dtype=np.int64)) for i in range(len(spec.shape))]
    kind = _global("torch", STORAGES[NAMES[spec.dtype]])
    parts = [_text("storage"), kind, _text(str(index)), _text("cpu"), _number(count)]
    arguments = [
        _tuple(parts) + pickle.BINPERSID,
        _number(0),
        _tuple(map(_number, spec.shape)),
        _tuple(map(_number, strides)),
        pickle.NEWFALSE,
        _global("collections", "OrderedDict") + pickle.EMPTY_TUPLE + pickle.REDUCE,
    ]
    return _global("torch._utils", "_rebuild_tensor_v2") + _tuple(arguments) + pickle.REDUCE


def _global(module: str, name: str) -> bytes:
    return pickle.GLOBAL + f"{module}\n{name}\n".encode()


def _text(value: str) -> bytes:
    data = value.encode()
    return pickle.BINUNICODE + struct.pack("<I", len(data)) + data


def _number(value: int) -> bytes:
    data = pickle.encode_long(value)
    return pickle.LONG1 + struct.pack("<B", len(data)) + data


def _tuple(items: Iterable[bytes]) -> bytes:
    return pickle.MARK + b"".join(items) + pickle.TUPLE
