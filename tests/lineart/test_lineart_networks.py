"""The networks that draw lines, against PyTorch modules of the published architectures."""

import math

import pytest
from flax import nnx
from golden_weights import seeded_pictures

torch = pytest.importorskip("torch")

from oracles.lineart import (  # noqa: E402
    InformativeDrawingsOracle,
    SketchKerasOracle,
    anime2sketch,
    lively_,
    run_anime2sketch,
)
from oracles.parity import relative_error, run  # noqa: E402

from converters import maps  # noqa: E402
from converters.weightmap import wanted  # noqa: E402
from magiccolor_jax.checkpoint import parameter_shapes  # noqa: E402
from magiccolor_jax.lineart.anime2sketch import Anime2Sketch, Anime2SketchConfig  # noqa: E402
from magiccolor_jax.lineart.informative_drawings import (  # noqa: E402
    InformativeDrawings,
    InformativeDrawingsConfig,
)
from magiccolor_jax.lineart.sketch_keras import SketchKeras, SketchKerasConfig  # noqa: E402

pytestmark = pytest.mark.torch

TOLERANCE = 1e-5
FULL_TOLERANCE = 1e-4


def build(cfg):
    """(our class, its map, PyTorch's module, how that is called)."""
    if isinstance(cfg, Anime2SketchConfig):
        theirs = anime2sketch(cfg.width, cfg.depth, cfg.enlarging == "bilinear")
        return Anime2Sketch, maps.ANIME2SKETCH, theirs, run_anime2sketch
    if isinstance(cfg, SketchKerasConfig):
        return SketchKeras, maps.SKETCH_KERAS, SketchKerasOracle(cfg.width), lambda m, x: m(x)
    theirs = InformativeDrawingsOracle(cfg.width, cfg.blocks)
    return InformativeDrawings, maps.INFORMATIVE_DRAWINGS, theirs, lambda m, x: m(x)


def compare(cfg, shape, precision=torch.float32):
    """Largest relative difference of the two networks under the same lively weights.

    Args:
        precision: of PyTorch's; ours has float32.
    """
    ours, weight_map, theirs, call = build(cfg)
    state = {key: tensor.clone() for key, tensor in lively_(theirs).state_dict().items()}
    pixels = 2 * seeded_pictures("lines", shape) - 1
    with torch.inference_mode():
        given = torch.from_numpy(pixels).movedim(-1, 1).to(precision)
        expected = call(theirs.to(precision), given).movedim(1, -1)
    assert expected.std() > 0.02
    found = run(lambda: ours(cfg, rngs=nnx.Rngs(0)), weight_map, state, pixels)
    return relative_error(found, expected)


@pytest.mark.parametrize(
    ("cfg", "shape"),
    [
        (Anime2SketchConfig.nano(), (2, 96, 160, 3)),
        (Anime2SketchConfig.nano(enlarging="bilinear"), (2, 96, 160, 3)),
        (SketchKerasConfig.nano(), (3, 48, 80, 1)),
        (InformativeDrawingsConfig.nano(), (2, 36, 52, 3)),
        (InformativeDrawingsConfig.nano(blocks=0, width=3), (1, 44, 8, 3)),
    ],
)
def test_equals_pytorch(cfg, shape):
    assert compare(cfg, shape) < TOLERANCE


@pytest.mark.slow
@pytest.mark.parametrize(
    ("cfg", "shape"),
    [
        (Anime2SketchConfig.official(), (1, 256, 512, 3)),
        (Anime2SketchConfig.official(enlarging="bilinear"), (1, 256, 512, 3)),
        (SketchKerasConfig.official(), (1, 80, 112, 1)),
        (InformativeDrawingsConfig.official(), (1, 100, 84, 3)),
    ],
)
def test_equals_pytorch_at_full_size(cfg, shape):
    """In float64, for float32 leaves 9e-5 in PyTorch too: instances whose channels hardly vary are
    blown up by their normalisation."""
    assert compare(cfg, shape, torch.float64) < FULL_TOLERANCE


OFFICIAL = {
    "netG.pth": (Anime2SketchConfig.official(), 54_405_505),
    "improved.bin": (Anime2SketchConfig.official(enlarging="bilinear"), None),
    "model.pth": (SketchKerasConfig.official(), None),
    "sk_model.pth": (InformativeDrawingsConfig.official(), 4_290_945),
}
"""File -> its network, and the number of its parameters where that is known elsewhere."""


@pytest.mark.parametrize("name", OFFICIAL)
def test_full_sizes_ask_for_pytorchs_keys_and_shapes(name):
    cfg, parameters = OFFICIAL[name]
    with torch.device("meta"):
        _, weight_map, theirs, _ = build(cfg)
    shapes = {key: tuple(tensor.shape) for key, tensor in theirs.state_dict().items()}
    asked = {item.keys[0]: item.part for item in wanted(weight_map, parameter_shapes(cfg))}
    extra = {key: shape for key, shape in shapes.items() if weight_map.is_extra(key)}
    assert asked | extra == shapes and not asked.keys() & extra.keys()
    if parameters is not None:
        assert sum(math.prod(shape) for shape in asked.values()) == parameters
