"""Released sizes, counted and traced without allocating anything (DINOv2: test_dinov2_config)."""

import math

import jax
import jax.numpy as jnp
import pytest
from flax import nnx

from magiccolor_jax.encoders.clip import CLIPText, CLIPVision
from magiccolor_jax.encoders.clip_config import CLIPTextConfig, CLIPVisionConfig
from magiccolor_jax.encoders.dinov2 import DINOv2
from magiccolor_jax.encoders.dinov2_config import DINOv2Config
from magiccolor_jax.encoders.vgg import VGG19, VGG19Config

CLIP_L14_FILE = 427_616_513
"""Parameters of openai/clip-vit-large-patch14, both towers."""

VGG19_FILE, VGG19_CLASSIFIER = 143_667_240, 123_642_856
"""Parameters of torchvision's vgg19."""


def pixels(height, width):
    return jax.ShapeDtypeStruct((1, height, width, 3), jnp.float32)


@pytest.mark.parametrize(
    ("network", "cfg", "inputs", "outputs", "parameters"),
    [
        pytest.param(
            CLIPVision,
            CLIPVisionConfig.vit_l14(),
            pixels(224, 224),
            [(1, 768)],
            CLIP_L14_FILE - 123_060_480 - 768 * 768 - 1,  # text tower and projection, logit scale
            id="clip-vision",
        ),
        pytest.param(
            CLIPText,
            CLIPTextConfig.vit_l14(),
            jax.ShapeDtypeStruct((2, 77), jnp.int32),
            [(2, 77, 768)],
            123_060_480,
            id="clip-text",
        ),
        pytest.param(
            DINOv2,
            DINOv2Config.vitl14(),
            pixels(504, 518),
            [(1, 1024), (1, 36, 37, 1024)],
            304_368_640 + 3 * 1024,  # four registers, no mask token
            id="dinov2-l-reg4",
        ),
        pytest.param(
            VGG19,
            VGG19Config.vgg19(),
            pixels(512, 384),
            [(1, 512, 384, 64), (1, 256, 192, 128), (1, 128, 96, 256), (1, 64, 48, 512)]
            + [(1, 32, 24, 512)],
            VGG19_FILE - VGG19_CLASSIFIER,
            id="vgg19",
        ),
    ],
)
def test_released_size(network, cfg, inputs, outputs, parameters):
    module = nnx.eval_shape(lambda: network(cfg, rngs=nnx.Rngs(0)))
    counted = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(nnx.state(module, nnx.Param)))
    found = nnx.eval_shape(lambda module, inputs: module(inputs), module, inputs)
    assert counted == parameters
    assert [leaf.shape for leaf in jax.tree.leaves(found)] == outputs
