"""The files of extractors of line art, to JAX and back."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from oracles.lineart import oracle_of, run_anime2sketch  # noqa: E402
from oracles.parity import relative_error  # noqa: E402

from converters import verify, verify_lineart  # noqa: E402
from converters.command import ConvertArgs, main  # noqa: E402
from magiccolor_jax.checkpoint import load_network, read_config  # noqa: E402
from magiccolor_jax.lineart.anime2sketch import Anime2SketchConfig  # noqa: E402
from magiccolor_jax.lineart.informative_drawings import InformativeDrawingsConfig  # noqa: E402
from magiccolor_jax.lineart.sketch_keras import SketchKerasConfig  # noqa: E402

pytestmark = pytest.mark.torch

NANO = {
    "netG.pth": ("anime2sketch", Anime2SketchConfig.nano(depth=6)),
    "improved.bin": ("anime2sketch", Anime2SketchConfig.nano(enlarging="bilinear")),
    "model.pth": ("sketch_keras", SketchKerasConfig.nano()),
    "sk_model.pth": ("informative_drawings", InformativeDrawingsConfig.nano()),
}

OFFICIAL = {
    "netG.pth": ("anime2sketch", Anime2SketchConfig.official()),
    "model.pth": ("sketch_keras", SketchKerasConfig.official()),
    "sk_model.pth": ("informative_drawings", InformativeDrawingsConfig.official()),
}


def state_of(config):
    """A state dict of PyTorch's names, keys, shapes and types."""
    return dict(oracle_of(config).state_dict())


def convert(source, output, **options):
    return main(ConvertArgs(source=source, output=output, **options))


def assert_comes_back(path, folder, tmp_path, expected):
    """Through JAX to a file of the same keys, order, types and bytes."""
    kind, config = expected
    assert convert(path, folder) == 0
    assert read_config(folder).networks == {kind: config}
    assert convert(folder, tmp_path / "back") == 0
    one, other = (torch.load(p, weights_only=True) for p in (path, tmp_path / "back" / path.name))
    assert list(one) == list(other)
    for key, tensor in one.items():
        assert tensor.dtype == other[key].dtype and tensor.equal(other[key]), key


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("name", NANO)
def test_to_jax_and_back(tmp_path, name, prefix, legacy):
    kind, config = NANO[name]
    state = {prefix + key: tensor for key, tensor in state_of(config).items()}
    path = tmp_path / name
    torch.save(state, path, _use_new_zipfile_serialization=not legacy)
    assert_comes_back(path, tmp_path / "jax", tmp_path, NANO[name])
    network = load_network(tmp_path / "jax", kind, config)
    if kind == "anime2sketch":
        stored = state[f"{prefix}model.model.3.weight"]  # transposed: [I O 4 4]
        kernel = network.model.model["3"].kernel[...]
        np.testing.assert_array_equal(kernel[1, 3], stored[:, :, 1, 3].T)


@pytest.mark.slow
@pytest.mark.parametrize("name", OFFICIAL)
def test_official_sizes_come_back(tmp_path, name):
    torch.save(state_of(OFFICIAL[name][1]), tmp_path / name)
    assert_comes_back(tmp_path / name, tmp_path / "jax", tmp_path, OFFICIAL[name])


def test_a_config_of_something_else_beside_it_does_not_matter(tmp_path):
    (tmp_path / "config.json").write_text('{"_class_name": "UNet2DConditionModel"}')
    torch.save(state_of(NANO["netG.pth"][1]), tmp_path / "netG.pth")
    assert convert(tmp_path / "netG.pth", tmp_path / "jax") == 0
    assert read_config(tmp_path / "jax").networks == {"anime2sketch": NANO["netG.pth"][1]}


def test_libraries_get_a_file_and_a_note(tmp_path, capsys):
    torch.save(state_of(NANO["sk_model.pth"][1]), tmp_path / "sk_model.pth")
    assert convert(tmp_path / "sk_model.pth", tmp_path / "jax") == 0
    assert convert(tmp_path / "jax", tmp_path / "folders", to="diffusers") == 0
    assert "informative_drawings: no library loads it" in capsys.readouterr().out
    assert (tmp_path / "folders/informative_drawings/model.safetensors").is_file()


@pytest.mark.parametrize(
    ("name", "spoil", "message"),
    [
        ("netG.pth", "model.model.1.model.3.model.5.bias", "missing  model/model/1"),
        ("netG.pth", "model.model.1.model.3.model.1.weight", "at least 5 levels, got"),
        ("model.pth", "downblock_3.6.running_var", "missing  downblock_3/6/running_var"),
        ("sk_model.pth", "model2.1.conv_block.5.bias", "missing  model2/1/conv_block/5/bias"),
    ],
)
def test_what_is_missing_is_named(tmp_path, capsys, name, spoil, message):
    state = state_of(NANO[name][1])
    del state[spoil]
    torch.save(state, tmp_path / name)
    assert convert(tmp_path / name, tmp_path / "jax") == 1
    said = capsys.readouterr().err
    assert message in said and not (tmp_path / "jax").exists()
    assert "--config" not in said, "sizes come from the file"


def test_every_misfit_is_in_one_report(tmp_path, capsys):
    state = state_of(NANO["netG.pth"][1])
    state["model.model.9.weight"] = torch.zeros(3)
    state["model.model.3.bias"] = torch.zeros(2)
    torch.save(state, tmp_path / "netG.pth")
    assert convert(tmp_path / "netG.pth", tmp_path / "jax") == 1
    said = capsys.readouterr().err
    assert "unused   model.model.9.weight" in said
    assert "model.model.3.bias: expected (1,), got (2,)" in said


@pytest.mark.parametrize("name", NANO)
def test_verifys_side_of_pytorch_is_the_network(name):
    """Ours is compared with the same module elsewhere."""
    kind, config = NANO[name]
    network, (pixels,) = oracle_of(config), verify.random_inputs(config).values()
    given = {"pixels": torch.from_numpy(pixels).movedim(-1, 1)}
    with torch.inference_mode():
        run = run_anime2sketch if kind == "anime2sketch" else type(network).__call__
        expected = run(network, given["pixels"])
        (found,) = dict(verify_lineart.TORCH[kind](config, network.state_dict(), given)).values()
    assert relative_error(found, expected) < 1e-6


@pytest.mark.slow
@pytest.mark.nightly
def test_verify_runs_both(tmp_path, capsys):
    pytest.importorskip("diffusers")
    state = {f"module.{key}": tensor for key, tensor in state_of(NANO["netG.pth"][1]).items()}
    torch.save(state, tmp_path / "netG.pth")
    assert convert(tmp_path / "netG.pth", tmp_path / "jax", verify=True) == 0
    assert "largest relative difference" in capsys.readouterr().out
