"""Pixel operations of the release against torch and transformers."""

import numpy as np
import pytest
from oracles.case_folders import noise

torch = pytest.importorskip("torch")
clip_processing = pytest.importorskip("transformers.models.clip.image_processing_pil_clip")

from magiccolor_jax.data import transforms  # noqa: E402
from magiccolor_jax.recipe import Recipe  # noqa: E402
from magiccolor_jax.types import Sizes  # noqa: E402

pytestmark = pytest.mark.torch


@pytest.mark.parametrize("shape", [(61, 83), (512, 512), (1024, 1024), (700, 523), (1200, 300)])
def test_squeezed_sketch_is_torch_bilinear(shape: tuple[int, int]):
    sketch = noise((*shape, 3))
    recipe, sizes = Recipe.release(), Sizes()
    ours = transforms.sketch_pixels(sketch, transforms.fit_page(shape, recipe, sizes), recipe)
    signed = torch.tensor(sketch.astype(np.float32)).permute(2, 0, 1)[None] / 255.0 * 2.0 - 1.0
    theirs = torch.nn.functional.interpolate(
        signed, size=(512, 512), mode="bilinear", align_corners=False, antialias=False
    )[0].permute(1, 2, 0)
    np.testing.assert_allclose(ours, theirs.numpy(), atol=1e-6)


def test_signed_range_is_the_release_s_to_the_bit():
    values = np.arange(256, dtype=np.float32).reshape(16, 16, 1).repeat(3, axis=2)
    theirs = torch.from_numpy(values) / 255.0 * 2.0 - 1.0
    np.testing.assert_array_equal(transforms.to_signed(values), theirs.numpy())


@pytest.mark.parametrize(("side", "clip"), [(512, 224), (128, 32), (64, 224), (224, 224)])
def test_clip_input_is_transformers(side: int, clip: int):
    canvas = transforms.to_signed(noise((side, side, 3), side))
    ours = transforms.clip_pixels(canvas, Sizes(canvas=side, clip=clip))
    processor = clip_processing.CLIPImageProcessorPil(
        size={"shortest_edge": clip}, crop_size={"height": clip, "width": clip}
    )
    truncated = np.uint8(((torch.tensor(canvas).numpy() + 1) / 2) * 255)
    theirs = processor(images=truncated, return_tensors="np").pixel_values[0].transpose(1, 2, 0)
    np.testing.assert_allclose(ours, theirs, atol=1e-6)
