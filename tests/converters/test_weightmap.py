"""The engine: orientation, renames, styles, and the one report."""

import ml_dtypes
import numpy as np
import pytest
from flax import nnx

from converters import maps
from converters.weightmap import KeyStyle, WeightMap, check, load_state_dict, misfits, wanted

DTYPES = (np.float32, np.float16, ml_dtypes.bfloat16, np.float64, np.int64, np.uint8)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(5, 7, 3, 3), (5, 7), (1, 4, 3, 1), (1, 1), (6, 3, 2, 5)])
def test_kernels_turn_and_turn_back(shape, dtype):
    tensor = np.random.default_rng(0).integers(0, 200, shape).astype(dtype)
    expected = np.moveaxis(tensor, (0, 1), (-1, -2))
    ours = WeightMap().to_jax("a/kernel", tensor, expected.shape)
    np.testing.assert_array_equal(ours, expected)
    assert ours.dtype == dtype and ours.flags.c_contiguous
    np.testing.assert_array_equal(WeightMap().to_torch("a/kernel", ours), tensor)


def test_not_a_number_keeps_its_bits():
    bits = np.array([[0x7FC01234, 0xFF801234], [0x7F800001, 1]], np.uint32)
    turned = WeightMap().to_jax("a/kernel", bits.view(np.float32), (2, 2))
    np.testing.assert_array_equal(turned.view(np.uint32), bits.T)


def test_a_pointwise_convolution_is_our_linear_map():
    weight_map = WeightMap(conv1x1=(r"proj/kernel",))
    tensor = np.arange(6, dtype=np.float32).reshape(3, 2, 1, 1)
    ours = weight_map.to_jax("proj/kernel", tensor, (2, 3))
    np.testing.assert_array_equal(ours, tensor[:, :, 0, 0].T)
    np.testing.assert_array_equal(weight_map.to_torch("proj/kernel", ours), tensor)


@pytest.mark.parametrize(
    ("weight_map", "path", "key"),
    [
        (maps.UNET, "a/attn1/to_out/kernel", "a.attn1.to_out.0.weight"),
        (maps.UNET, "a/ff/proj_in/bias", "a.ff.net.0.proj.bias"),
        (maps.UNET, "a/proj_in/kernel", "a.proj_in.weight"),
        (maps.UNET, "a/ff/proj_out/kernel", "a.ff.net.2.weight"),
        (maps.VAE, "a/norm/scale", "a.norm.weight"),
        (maps.CLIP_TEXT, "a/token_embedding/embedding", "a.token_embedding.weight"),
        (maps.DINOV2, "blocks/0/ls1/gamma", "blocks.0.ls1.gamma"),
    ],
)
def test_paths_become_keys(weight_map, path, key):
    assert weight_map.key(path) == key


@pytest.mark.parametrize(
    ("style", "key", "names"),
    [
        (
            maps.DIFFUSERS_OLD_ATTENTION,
            "encoder.mid_block.attentions.0.to_out.0.bias",
            ("encoder.mid_block.attentions.0.proj_attn.bias",),
        ),
        (maps.DIFFUSERS_OLD_ATTENTION, "encoder.conv_in.weight", ("encoder.conv_in.weight",)),
        *(
            (
                maps.DIFFUSERS_OLD_ATTENTION,
                f"x.attentions.0.to_{new}.bias",
                (f"x.attentions.0.{old}.bias",),
            )
            for new, old in (("q", "query"), ("k", "key"), ("v", "value"))
        ),
        (
            maps.DINOV2_TRANSFORMERS,
            "blocks.3.attn.qkv.weight",
            tuple(
                f"encoder.layer.3.attention.attention.{part}.weight"
                for part in ("query", "key", "value")
            ),
        ),
        (maps.DINOV2_TRANSFORMERS, "norm.weight", ("layernorm.weight",)),
        (maps.DINOV2_TRANSFORMERS, "blocks.0.norm1.bias", ("encoder.layer.0.norm1.bias",)),
        (
            maps.DINOV2_TRANSFORMERS,
            "blocks.0.mlp.w3.bias",
            ("encoder.layer.0.mlp.weights_out.bias",),
        ),
        (
            maps.TRANSFORMERS_FLAT,
            "text_model.final_layer_norm.weight",
            ("final_layer_norm.weight",),
        ),
    ],
)
def test_styles_rename(style, key, names):
    assert style.file_keys(key) == names


@pytest.mark.parametrize("kind", maps.STYLES)
def test_styles_are_found_by_their_keys_and_names(kind):
    literal = maps.STYLES[kind][0]
    assert maps.detect_style(kind, ["anything"]) is literal
    for style in maps.STYLES[kind]:
        assert maps.style_named(kind, style.name) is style
    with pytest.raises(ValueError, match="key style of a"):
        maps.style_named(kind, "unheard-of")


def test_transformers_dinov2_is_told_by_its_keys():
    keys = maps.DINOV2_TRANSFORMERS.file_keys("cls_token")
    assert maps.detect_style("dinov2", keys) is maps.DINOV2_TRANSFORMERS


def test_one_report_names_everything_that_does_not_fit():
    shapes = {"a/kernel": (2, 3), "b/bias": (4,)}
    found = {"a.weight": (2, 3), "c.weight": (1,), "known": (1,)}
    with pytest.raises(ValueError) as error:
        check(WeightMap(extra=("known",)), shapes, found, "here")
    assert str(error.value).splitlines() == [
        "here: weights do not fit the network:",
        "  shape    a/kernel <- a.weight: expected (3, 2), got (2, 3)",
        "  missing  b/bias <- b.bias (4,)",
        "  unused   c.weight (1,)",
    ]


def test_a_split_parameter_asks_for_all_its_parts():
    style = KeyStyle(name="s", split=("qkv", ("q", "k", "v")))
    (item,) = asked = wanted(WeightMap(), {"qkv/kernel": (2, 6)}, style)
    assert item.keys == ("q.weight", "k.weight", "v.weight") and item.part == (2, 2)
    assert len(misfits(asked, {"q.weight": (2, 2)}, lambda key: False, style)) == 2


def test_old_attention_may_be_stored_as_convolutions():
    key = "encoder.mid_block.attentions.0.query.weight"
    assert maps.DIFFUSERS_OLD_ATTENTION.fits(key, (4, 4, 1, 1), (4, 4))
    assert not maps.DIFFUSERS_OLD_ATTENTION.fits("encoder.other.weight", (4, 4, 1, 1), (4, 4))
    assert not maps.DIFFUSERS.fits(key, (4, 4, 1, 1), (4, 4))


def test_a_small_module_is_filled():
    module = nnx.Linear(2, 3, rngs=nnx.Rngs(0))
    tensors = {"weight": np.arange(6.0).reshape(3, 2), "bias": np.ones(3)}
    load_state_dict(module, WeightMap(), tensors, "here")
    np.testing.assert_array_equal(module.kernel.get_value(), tensors["weight"].T)
