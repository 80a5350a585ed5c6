"""The stand-in for the download: complete, literal, deterministic, no value special."""

from pathlib import Path

import numpy as np
import pytest
from make_release_checkpoint import Args, load_configs, main, random_tensor, release_records

from converters.containers import open_weights
from magiccolor_jax.tensorfile import TensorSpec


def records(size, **rest):
    args = Args(out=Path("unused"), size=size, **rest)
    return {record.path: record for record in release_records(args, load_configs(size))}


def test_the_full_release_has_the_published_files_and_size():
    found = records("full")
    assert {path for path in found if path.startswith("MagicColor")} == {
        "MagicColor/denoising_unet.pth",
        "MagicColor/reference_unet.pth",
        "MagicColor/controlnet_sketch/diffusion_pytorch_model.safetensors",
        "MagicColor/controlnet_multi/diffusion_pytorch_model.safetensors",
    }
    assert 18e9 < sum(record.nbytes for record in found.values()) < 20e9
    reference = found["MagicColor/reference_unet.pth"].tensors
    assert "conv_out.weight" in reference and "conv_norm_out.weight" not in reference
    sketch = found["MagicColor/controlnet_sketch/diffusion_pytorch_model.safetensors"].tensors
    assert sketch["dino_adapter.0.weight"].shape == (3, 3)
    multi = found["MagicColor/controlnet_multi/diffusion_pytorch_model.safetensors"].tensors
    assert multi["dino_adapter.0.weight"].shape == (1024, 1024)
    assert found["clip-vit-large-patch14/model.safetensors"].tensors[
        "text_model.embeddings.position_ids"
    ] == TensorSpec(np.dtype(np.int64), (1, 77))
    dinov2 = found["dinov2_vitl14_reg4_pretrain.pth"].tensors
    assert dinov2["pos_embed"].shape == (1, 1370, 1024)


def test_the_same_seed_gives_the_same_bytes(tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        main(Args(out=tmp_path / name, size="nano", seed=seed, containers="safetensors"))
    path = "sd-vae-ft-mse/diffusion_pytorch_model.safetensors"
    a, b, c = ((tmp_path / name / path).read_bytes() for name in "abc")
    assert a == b != c


def test_no_value_is_special(release_folder):
    for path in release_folder.rglob("*.safetensors"):
        with open_weights(path) as weights:
            for key, spec in weights.specs.items():
                if spec.dtype == np.float32 and np.prod(spec.shape) > 1:
                    tensor = weights.read(key)
                    assert np.unique(tensor).size > tensor.size // 2, key
                    assert 0.001 < np.abs(tensor).max() < 5, key


@pytest.fixture(scope="module")
def release_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("release") / "nano"
    main(Args(out=folder, size="nano", containers="safetensors"))
    return folder


def test_existing_folders_and_full_disks_are_refused(tmp_path, release_folder):
    with pytest.raises(FileExistsError):
        main(Args(out=release_folder, size="nano", containers="safetensors"))


def test_a_full_disk_is_told(tmp_path, monkeypatch):
    import shutil

    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=10**9))
    with pytest.raises(OSError, match=r"needs 1\d\.\d\d GB of disk"):
        main(Args(out=tmp_path / "x", size="full"))
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(
    ("key", "shape", "mean", "deviation"),
    [
        ("conv.weight", (64, 32, 3, 3), 0.0, 288**-0.5),
        ("norm.weight", (4096,), 1.0, 0.1),
        ("norm.bias", (4096,), 0.0, 0.1),
        ("blocks.0.ls1.gamma", (4096,), 0.3, 0.05),
    ],
)
def test_values_keep_activations_of_order_one(key, shape, mean, deviation):
    spec = TensorSpec(np.dtype(np.float32), shape)
    tensor = random_tensor(key, spec, np.random.Generator(np.random.SFC64(0)))
    assert abs(tensor.mean() - mean) < 0.1 * deviation
    assert abs(tensor.std() / deviation - 1) < 0.05
