"""Our safetensors reader and writer against the `safetensors` package, both ways."""

import json
import struct

import ml_dtypes
import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from magiccolor_jax.tensorfile import DTYPES, TensorFile, TensorFileWriter, TensorSpec

SHAPES = [(3, 5), (0, 4), (), (7,), (2, 1, 3, 2)]


def random_tensors():
    """Every dtype in every kind of shape, bits drawn at random (NaNs included)."""
    rng = np.random.default_rng(0)
    tensors = {}
    for name, dtype in DTYPES.items():
        for shape in SHAPES:
            top = 2 if name == "BOOL" else 256
            raw = rng.integers(0, top, (*shape, dtype.itemsize), np.uint8)
            tensors[f"{name}.{len(tensors)}"] = raw.view(dtype).reshape(shape)
    return tensors


def write(path, tensors, **options):
    specs = {key: TensorSpec(array.dtype, array.shape) for key, array in tensors.items()}
    with TensorFileWriter(path, specs, **options) as writer:
        for key in reversed(tensors):
            writer.write(key, tensors[key])


def same(ours, theirs):
    return (
        ours.dtype == theirs.dtype
        and ours.shape == theirs.shape
        and np.ascontiguousarray(ours).tobytes() == np.ascontiguousarray(theirs).tobytes()
    )


@pytest.mark.parametrize("keep_order", [False, True])
def test_the_package_reads_what_we_write(tmp_path, keep_order):
    tensors = random_tensors()
    write(tmp_path / "t", tensors, metadata={"format": "pt"}, keep_order=keep_order)
    found = load_file(tmp_path / "t")
    assert found.keys() == tensors.keys()
    assert all(same(tensors[key], found[key]) for key in tensors)
    with safe_open(tmp_path / "t", "np") as file:
        assert file.metadata() == {"format": "pt"}
    if keep_order:
        assert list(TensorFile(tmp_path / "t").specs) == list(tensors)


@pytest.mark.parametrize("how", ["read", "mapped"])
def test_we_read_what_the_package_writes(tmp_path, how):
    tensors = random_tensors()
    save_file(tensors, tmp_path / "t", metadata={"made": "here"})
    file = TensorFile(tmp_path / "t")
    assert file.metadata == {"made": "here"}
    assert file.specs.keys() == tensors.keys()
    assert all(same(tensors[key], getattr(file, how)(key)) for key in tensors)


def test_our_file_is_the_packages_byte_for_byte(tmp_path):
    """Of one dtype: the package's order of equally wide dtypes is its own affair."""
    tensors = {key: array for key, array in random_tensors().items() if key.startswith("F16")}
    write(tmp_path / "ours", tensors)
    save_file(tensors, tmp_path / "theirs")
    assert (tmp_path / "ours").read_bytes() == (tmp_path / "theirs").read_bytes()


def test_non_contiguous_arrays_are_written_in_their_own_order(tmp_path):
    array = np.arange(24, dtype=np.float32).reshape(4, 6).T[::2]
    write(tmp_path / "t", {"a": array})
    assert np.array_equal(load_file(tmp_path / "t")["a"], array)


def test_mapped_is_read_only(tmp_path):
    write(tmp_path / "t", {"a": np.zeros(4, np.float32)})
    with pytest.raises(ValueError, match="read-only"):
        TensorFile(tmp_path / "t").mapped("a")[0] = 1


@pytest.mark.parametrize("keep", [0, 4, 8, 40, -1])
def test_a_truncated_file_is_refused(tmp_path, keep):
    write(tmp_path / "t", {"a": np.zeros((4, 4), np.float32)})
    whole = (tmp_path / "t").read_bytes()
    (tmp_path / "t").write_bytes(whole[:keep])
    with pytest.raises(ValueError, match="download it again"):
        TensorFile(tmp_path / "t")


def test_a_file_cut_after_opening_is_refused(tmp_path):
    write(tmp_path / "t", {"a": np.ones((4, 4), np.float32)})
    file = TensorFile(tmp_path / "t")
    (tmp_path / "t").write_bytes((tmp_path / "t").read_bytes()[:-8])
    with pytest.raises(ValueError, match="ends inside a"):
        file.read("a")


def with_header(path, entry):
    text = json.dumps({"a": entry}).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + bytes(16))
    return path


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"dtype": "F8_E4M3", "shape": [16], "data_offsets": [0, 16]}, "dtype F8_E4M3; known are"),
        ({"dtype": "F32", "shape": [4], "data_offsets": [0, 12]}, "needs 16 bytes"),
        ({"dtype": "F32", "shape": [4], "data_offsets": [4, 20]}, "cut short or damaged"),
        ({"dtype": "F32", "shape": [4], "data_offsets": [-4, 12]}, "header's entry of 'a'"),
    ],
)
def test_a_wrong_header_is_refused(tmp_path, entry, message):
    with pytest.raises(ValueError, match=message):
        TensorFile(with_header(tmp_path / "t", entry))


def test_a_header_that_is_no_json_is_refused(tmp_path):
    (tmp_path / "t").write_bytes(struct.pack("<Q", 8) + b"notjson!" + bytes(8))
    with pytest.raises(ValueError, match="not JSON"):
        TensorFile(tmp_path / "t")


def test_another_kind_of_file_is_refused(tmp_path):
    (tmp_path / "t").write_bytes(b"PK\x03\x04" + bytes(range(200)))
    with pytest.raises(ValueError, match="not a whole safetensors file"):
        TensorFile(tmp_path / "t")


@pytest.mark.parametrize(
    "array", [np.zeros((2, 3), np.float16), np.zeros((3, 2), np.float32), np.zeros(6, np.float32)]
)
def test_only_what_was_announced_is_written(tmp_path, array):
    spec = TensorSpec(np.dtype(np.float32), (2, 3))
    with TensorFileWriter(tmp_path / "t", {"a": spec}) as writer:
        with pytest.raises(ValueError, match="announced"):
            writer.write("a", array)
        writer.write("a", np.zeros((2, 3), np.float32))


def test_a_tensor_that_was_never_written_is_an_error(tmp_path):
    specs = dict.fromkeys("ab", TensorSpec(np.dtype(ml_dtypes.bfloat16), (2,)))
    with (
        pytest.raises(ValueError, match=r"never written: \['b'\]"),
        TensorFileWriter(tmp_path / "t", specs) as writer,
    ):
        writer.write("a", np.zeros(2, ml_dtypes.bfloat16))


def test_the_first_error_is_the_one_that_is_seen(tmp_path):
    """An exception in the block is not hidden behind `never written`."""
    spec = TensorSpec(np.dtype(np.float32), (2,))
    with pytest.raises(KeyError), TensorFileWriter(tmp_path / "t", {"a": spec}):
        raise KeyError
