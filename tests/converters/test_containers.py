"""Every container reads and writes the same tensors, and bad files say what they are."""

import os
import pickle
import zipfile

import ml_dtypes
import numpy as np
import pytest

from converters.containers import FileRecord, open_weights, write_weights
from magiccolor_jax.tensorfile import TensorFileWriter, TensorSpec

DTYPES = ("float64", "float32", "float16", ml_dtypes.bfloat16, "int64", "int32", "uint8", "bool")
CONTAINERS = {
    "x.safetensors": "safetensors",
    "x.pth": "torch",
    "x.bin": "torch",
    "x.ckpt": "torch",
    "legacy.pth": "torch_legacy",
}


def tensors():
    generator = np.random.default_rng(0)
    made = {f"b.{i}": generator.integers(0, 2, (3, i)).astype(d) for i, d in enumerate(DTYPES)}
    return made | {"a.scalar": np.array(1.5, np.float32), "empty": np.zeros((0, 4), np.float32)}


def record_of(name, arrays, **rest):
    specs = {key: TensorSpec(array.dtype, array.shape) for key, array in arrays.items()}
    return FileRecord(path=name, container=CONTAINERS[name], tensors=specs, **rest)


@pytest.mark.torch
@pytest.mark.parametrize("name", CONTAINERS)
@pytest.mark.parametrize("nesting", [None, "state_dict"])
def test_every_container_keeps_every_type(tmp_path, name, nesting):
    pytest.importorskip("torch")
    nesting = None if name.endswith("safetensors") else nesting
    arrays = tensors()
    write_weights(tmp_path / name, record_of(name, arrays, nesting=nesting), arrays.items())
    with open_weights(tmp_path / name) as weights:
        assert weights.container == CONTAINERS[name] and weights.nesting == nesting
        assert list(weights.specs) == list(arrays)
        for key, array in arrays.items():
            assert weights.specs[key] == TensorSpec(array.dtype, array.shape)
            read = weights.read(key)
            assert read.shape == array.shape and read.tobytes() == array.tobytes()


@pytest.mark.torch
def test_torch_loads_what_we_write(tmp_path):
    torch = pytest.importorskip("torch")
    arrays = tensors()
    path = tmp_path / "x.pth"
    write_weights(path, record_of("x.pth", arrays), arrays.items())
    assert zipfile.ZipFile(path).testzip() is None
    for mapped in (False, True):
        loaded = torch.load(path, weights_only=True, mmap=mapped)
        assert list(loaded) == list(arrays)
        assert loaded["b.3"].dtype == torch.bfloat16
        np.testing.assert_array_equal(loaded["b.1"].numpy(), arrays["b.1"])
        assert loaded["b.1"].data_ptr() % 64 == 0


@pytest.mark.torch
def test_views_and_strides_of_torch_are_read_right(tmp_path):
    torch = pytest.importorskip("torch")
    whole = torch.arange(24.0).reshape(4, 6)
    state = {"turned": whole.T, "part": whole[1:3, ::2], "same": whole, "none": whole[:0]}
    torch.save(state, tmp_path / "x.pth")
    with open_weights(tmp_path / "x.pth") as weights:
        for key, tensor in state.items():
            np.testing.assert_array_equal(weights.read(key), tensor.numpy())


def test_safetensors_come_back_byte_for_byte(tmp_path):
    from safetensors.numpy import save_file

    arrays = {"b": np.ones(3, np.float16), "a": np.ones((2, 2), np.float32), "c": np.ones(1)}
    save_file(arrays, tmp_path / "x.safetensors", metadata={"format": "pt"})
    with open_weights(tmp_path / "x.safetensors") as weights:
        record = FileRecord(
            path="", container="safetensors", tensors=weights.specs, metadata=weights.metadata
        )
        write_weights(tmp_path / "y", record, ((key, weights.read(key)) for key in weights.specs))
    assert (tmp_path / "y").read_bytes() == (tmp_path / "x.safetensors").read_bytes()


@pytest.mark.parametrize("name", ["x.safetensors", "x.pth"])
def test_writing_something_else_than_announced_is_an_error(tmp_path, name):
    arrays = {"a": np.ones(3, np.float32), "b": np.ones(2, np.float32)}
    record = record_of(name, arrays)
    with pytest.raises(ValueError, match="b|never written"):
        write_weights(tmp_path / name, record, [("a", arrays["a"])])
    with pytest.raises(ValueError, match="announced|expected"):
        write_weights(tmp_path / name, record, [("a", np.ones(4, np.float32))])


class Bomb:
    def __reduce__(self):
        return os.mkdir, ("made-by-the-file",)


@pytest.mark.torch
@pytest.mark.parametrize("name", ["x.pth", "legacy.pth"])
def test_a_file_that_runs_code_is_refused_and_runs_none(tmp_path, name, monkeypatch):
    torch = pytest.importorskip("torch")
    monkeypatch.chdir(tmp_path)
    torch.save({"a": Bomb()}, name, _use_new_zipfile_serialization=name == "x.pth")
    with pytest.raises(ValueError, match="would run code from inside it.*safetensors"):
        open_weights(tmp_path / name)
    assert not (tmp_path / "made-by-the-file").exists()


@pytest.mark.torch
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "git lfs pull"),
        (b"<!DOCTYPE html>", "starts with b'<!DOCTYP'"),
        (b"PK\x03\x04 and then nothing", "damaged or cut short"),
        (pickle.dumps({"a": 1}, 2)[:6], "damaged or cut short"),
        (b"", "expected a file of torch.save"),
    ],
)
def test_damaged_files_are_told(tmp_path, content, message):
    pytest.importorskip("torch")
    (tmp_path / "x.pth").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        open_weights(tmp_path / "x.pth")


@pytest.mark.torch
@pytest.mark.parametrize("name", ["x.safetensors", "x.pth"])
def test_a_file_cut_short_is_told_before_anything_is_read(tmp_path, name):
    pytest.importorskip("torch")
    arrays = {"a": np.ones(4000, np.float32)}
    write_weights(tmp_path / name, record_of(name, arrays), arrays.items())
    whole = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="cut short|damaged"):
        open_weights(tmp_path / name)


@pytest.mark.torch
@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"epoch": 3, "w": 1.0}, "no named tensors.*epoch"),
        ([1, 2], "expected a state dict, got list"),
        ({}, "expected a state dict"),
    ],
)
def test_other_content_than_weights_is_told(tmp_path, state, message):
    torch = pytest.importorskip("torch")
    torch.save(state, tmp_path / "x.pth")
    with pytest.raises(ValueError, match=message):
        open_weights(tmp_path / "x.pth")


@pytest.mark.torch
def test_unknown_types_are_told(tmp_path):
    torch = pytest.importorskip("torch")
    torch.save({"w": torch.zeros(2, dtype=torch.complex64)}, tmp_path / "x.pth")
    with pytest.raises(ValueError, match="w is torch.complex64"):
        open_weights(tmp_path / "x.pth")


def test_latent_diffusions_names_are_told(tmp_path):
    key = "model.diffusion_model.input_blocks.0.0.weight"
    specs = {key: TensorSpec(np.dtype(np.float32), (1,))}
    with TensorFileWriter(tmp_path / "x.safetensors", specs) as writer:
        writer.write(key, np.ones(1, np.float32))
    with pytest.raises(ValueError, match="Latent Diffusion.*from_single_file"):
        open_weights(tmp_path / "x.safetensors")


def test_without_torch_the_error_names_the_extra(tmp_path, monkeypatch):
    import sys

    (tmp_path / "x.pth").write_bytes(b"PK\x03\x04")
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ImportError, match=r"x\.pth.*magiccolor_jax\[torch\]"):
        open_weights(tmp_path / "x.pth")
