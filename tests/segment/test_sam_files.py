"""SAM's files, from and to segment-anything and transformers."""

import json

import numpy as np
import pytest
from golden_weights import seeded

from converters import ConvertArgs, maps
from converters.run import convert
from converters.weightmap import wanted
from magiccolor_jax.checkpoint import parameter_shapes, read_config
from magiccolor_jax.segment.sam_config import SAMConfig, infer_config
from magiccolor_jax.tensorfile import TensorFile

CFG = SAMConfig.nano()

OFFICIAL = SAMConfig.nano(decoder_heads=8, channels=64)
"""Small, with the number of heads that no shape tells."""


def shapes_of(config):
    """Key of segment-anything -> shape."""
    asked = wanted(maps.SAM, parameter_shapes(config), maps.SEGMENT_ANYTHING)
    return {item.keys[0]: item.part for item in asked}


@pytest.mark.parametrize("name", ["vit_b", "vit_l", "vit_h", "nano"])
def test_sizes_are_told_by_shapes(name):
    config = OFFICIAL if name == "nano" else getattr(SAMConfig, name)()
    assert infer_config(shapes_of(config)) == config


def test_official_files_have_these_tensors():
    """Counts of sam_vit_{b,l,h}: tensors, and parameters in millions."""
    for name, tensors, millions in (("b", 314, 93.7), ("l", 482, 312.3), ("h", 594, 641.1)):
        shapes = shapes_of(getattr(SAMConfig, f"vit_{name}")())
        assert len(shapes) == tensors
        total = sum(int(np.prod(shape)) for shape in shapes.values())
        assert total / 1e6 == pytest.approx(millions, abs=0.1)


def test_what_is_missing_is_named():
    shapes = shapes_of(CFG)
    del shapes["image_encoder.blocks.1.attn.rel_pos_h"], shapes["image_encoder.pos_embed"]
    with pytest.raises(ValueError, match=r"pos_embed.*blocks\.1\.attn.*needs its config\.json"):
        infer_config(shapes)
    shapes = shapes_of(CFG)
    shapes["image_encoder.blocks.2.attn.rel_pos_h"] = (7, 12)
    with pytest.raises(ValueError, match=r"windows of one size, got \[3, 4\]"):
        infer_config(shapes)


@pytest.mark.parametrize(
    ("section", "change", "message"),
    [
        ("vision_config", {"use_rel_pos": False}, "use_rel_pos: only True"),
        ("vision_config", {"mlp_dim": 50}, "mlp_dim must be a multiple of hidden_size"),
        ("vision_config", {"output_channels": 64}, "parts must have the same channels"),
        ("prompt_encoder_config", {"image_size": 64}, "parts must have the same channels"),
        ("mask_decoder_config", {"num_multimask_outputs": 4}, "num_multimask_outputs: only 3"),
        ("mask_decoder_config", {"colour": 4}, "mask_decoder_config: .*\n.*colour: unknown"),
    ],
)
def test_what_we_cannot_honour(section, change, message):
    from converters.write_configs import to_hf

    content = to_hf(CFG, page=0)
    content[section] |= change
    with pytest.raises(ValueError, match=message):
        SAMConfig.from_hf(content)


@pytest.fixture(scope="module")
def official(tmp_path_factory):
    """A file as segment-anything's, but small."""
    torch = pytest.importorskip("torch")
    shapes = shapes_of(OFFICIAL)
    state = {key: torch.from_numpy(seeded(key, shape)) for key, shape in shapes.items()}
    path = tmp_path_factory.mktemp("official") / "sam_vit_b_01ec64.pth"
    torch.save(state, path)
    return path


def turned(source, output, **options):
    convert(ConvertArgs(source=source, output=output, **options))
    return output


@pytest.mark.torch
def test_the_official_file_comes_back(official, tmp_path):
    torch = pytest.importorskip("torch")
    folder = turned(official, tmp_path / "jax")
    assert read_config(folder).networks == {"sam": OFFICIAL}
    back = turned(folder, tmp_path / "back") / official.name
    one, other = (torch.load(path, weights_only=True) for path in (official, back))
    assert list(one) == list(other)
    assert all(one[key].equal(other[key]) and one[key].dtype == other[key].dtype for key in one)


@pytest.mark.torch
def test_transformers_load_what_we_write_and_their_folder_comes_back(official, tmp_path):
    transformers = pytest.importorskip("transformers")
    folder = turned(official, tmp_path / "jax")
    made = turned(folder, tmp_path / "libraries", to="diffusers") / "sam"
    model, told = transformers.SamModel.from_pretrained(made, output_loading_info=True)
    assert not any(told[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    model.save_pretrained(tmp_path / "theirs")
    again = turned(tmp_path / "theirs", tmp_path / "again")
    assert read_config(again).networks == read_config(folder).networks
    one, other = (TensorFile(path / "sam.safetensors") for path in (folder, again))
    for key in one.specs:
        np.testing.assert_array_equal(one.read(key), other.read(key), err_msg=key)
    back = turned(again, tmp_path / "back")
    theirs, written = (TensorFile(p / "model.safetensors") for p in (tmp_path / "theirs", back))
    assert theirs.specs == written.specs
    for key in theirs.specs:
        np.testing.assert_array_equal(theirs.read(key), written.read(key), err_msg=key)
    assert json.loads((back / "config.json").read_text())["model_type"] == "sam"


@pytest.mark.torch
@pytest.mark.slow
def test_verify_runs_both(official, tmp_path, capsys):
    pytest.importorskip("transformers")
    turned(official, tmp_path / "jax", verify=True)
    assert "largest relative difference" in capsys.readouterr().out
