"""The PyTorch oracle agrees with itself and with docs/release.md's formulas."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")
pytest.importorskip("transformers")

from oracles import nano, pixels, release  # noqa: E402
from oracles.release_parts import BankAttention, ColorMatcher, transformer_blocks  # noqa: E402

pytestmark = pytest.mark.torch

STEPS = 3


@pytest.fixture(scope="module")
def models():
    return nano.nano_release_models(seed=1)


@pytest.fixture(scope="module")
def case():
    return nano.nano_release_case(seed=2)


@pytest.fixture(scope="module")
def sampled(models, case):
    """The release's order of computation, matching on."""
    return release.sample(models, *case, steps=STEPS)


def assert_close(ours, theirs, tolerance=1e-5):
    assert (ours - theirs).abs().max() <= tolerance * theirs.abs().max()


def test_networks_are_small_and_lively(models, sampled):
    for model in models:
        assert sum(parameter.numel() for parameter in model.parameters()) < 1_000_000
    assert 0.1 < sampled.eps_pairs.std() < 3
    assert sampled.pixels.std() > 0.1
    assert sampled.pixels.abs().max() <= 1


@pytest.mark.parametrize("matching", ["off", "release"])
def test_hoisting_changes_nothing(models, case, sampled, matching):
    expected = release.sample(models, *case, steps=STEPS, matching=matching)
    hoisted = release.sample(
        models, *case, steps=STEPS, matching=matching, hoisted=True, nearest=expected.nearest
    )
    assert_close(hoisted.eps_pairs, expected.eps_pairs, 1e-4)
    assert_close(hoisted.pixels, expected.pixels, 1e-4)


@pytest.mark.parametrize("scale", [0.0, 0.4, 1.0, 3.5])
def test_guidance(models, case, scale):
    found = release.sample(models, *case, steps=2, scale=scale, matching="off", hoisted=True)
    uncond, cond = found.eps_pairs[:, :1], found.eps_pairs[:, 1:]
    assert_close(found.eps, (1 - scale) * uncond + scale * cond)
    assert not torch.equal(uncond, cond)


def test_matching_takes_the_indices_it_is_given(models, case, sampled):
    again = release.sample(models, *case, steps=STEPS, nearest=sampled.nearest)
    assert torch.equal(again.pixels, sampled.pixels)
    others = [(found + 1) % len(found) for found in sampled.nearest]
    assert not torch.allclose(
        release.sample(models, *case, steps=STEPS, nearest=others).pixels, sampled.pixels
    )


def test_switches_matter(models, case, sampled):
    off = release.sample(models, *case, steps=STEPS, matching="off")
    assert off.nearest is None
    assert (off.pixels - sampled.pixels).abs().max() > 1e-2
    exact = release.sample(models, *case, steps=STEPS, matching="off", bank_dtype=torch.float32)
    assert 0 < (off.latents - exact.latents).abs().max() < 1e-2 * exact.latents.abs().max()


def test_each_network_has_its_own_empty_prompt(models, case):
    inputs, noise = case
    conditions = release.encode(models, inputs, noise.canvas)
    for context, text_model in (
        (conditions.reference_context, models.text_encoder),
        (conditions.context, models.clip_text),
    ):
        bos_alone = text_model(torch.tensor([[62]])).last_hidden_state
        assert_close(context[:1], bos_alone)
        assert_close(context[1:], models.clip_vision(inputs.clip_pixels).image_embeds[None])


def test_unconditional_half_is_blind_to_the_bank(models, case):
    inputs, noise = case
    other = inputs._replace(canvas=-inputs.canvas)
    t = torch.tensor(501)
    before, after = (
        release.GuidedDenoiser(models, release.encode(models, one, noise.canvas), None)(
            noise.latents, t
        ).eps
        for one in (inputs, other)
    )
    assert torch.equal(before[:1], after[:1])
    assert (before[1:] - after[1:]).abs().max() > 1e-2


def test_the_bank_is_the_conditional_row(models, case):
    inputs, noise = case
    conditions = release.encode(models, inputs, noise.canvas)

    def eps(unconditional, conditional):
        signs = torch.tensor([unconditional, conditional])[:, None, None]
        changed = conditions._replace(reference_context=signs * conditions.reference_context)
        return release.GuidedDenoiser(models, changed, None)(noise.latents, torch.tensor(1)).eps

    assert torch.equal(eps(-1.0, 1.0), eps(1.0, 1.0))
    assert not torch.allclose(eps(1.0, -1.0), eps(1.0, 1.0), atol=1e-2)


def test_matching_is_the_formula():
    """release.md §5: out[:, x', y'] = source[:, x, y] for p = (y, x), q = (y', x')."""
    generator = torch.Generator().manual_seed(5)
    source, target = torch.randn(2, 2, 6, 3, 3, generator=generator)
    order = torch.tensor([7, 2, 5, 1, 0])
    matcher = ColorMatcher(source, order, None)
    found = matcher(target)
    src, expected = source.mean(0), target.mean(0)
    kept = expected.clone()
    for p, q in zip(order.tolist(), matcher.nearest.tolist(), strict=True):
        similarity = torch.cosine_similarity(src[:, p // 3, p % 3, None, None], kept, dim=0)
        assert q == similarity.argmax()
        expected[:, q % 3, q // 3] = src[:, p % 3, p // 3]
    assert torch.equal(found, expected.expand(2, -1, -1, -1))
    given = ColorMatcher(source, order[:2], torch.tensor([5, 5]))(target)
    assert torch.equal(given[0, :, 2, 1], src[:, 2, 0])  # position 2 = (0, 2) wrote last
    assert torch.equal(given[0, :, 1, 2], kept[:, 1, 2])


def test_a_bank_of_own_tokens_is_plain_attention(models):
    attn = next(iter(transformer_blocks(models.denoiser).values())).attn1
    hidden = torch.randn(2, 35, 16, generator=torch.Generator().manual_seed(0))
    assert_close(BankAttention(hidden[1:])(attn, hidden), attn(hidden))


def test_models_are_left_as_they_were(models, sampled):
    for unet in (models.denoiser, models.reference):
        assert not any(isinstance(p, BankAttention) for p in unet.attn_processors.values())
        assert not any(module._forward_hooks for module in unet.modules())
    assert len(models.multi_guider.controlnet_cond_embedding.blocks) == 6


def test_page_need_not_be_square_without_matching(models, case):
    inputs, noise = nano.nano_release_case(seed=3, page=(64, 192))
    found = release.sample(models, inputs, noise, steps=2, matching="off")
    assert found.pixels.shape == (1, 3, 64, 192)
    with pytest.raises(ValueError, match="square maps of one shape"):
        release.sample(models, inputs, noise, steps=2)


def bilinear(grid, row, column):
    """grid [g g C] at a fractional position inside it."""
    top, left = int(row), int(column)
    bottom, right = min(top + 1, len(grid) - 1), min(left + 1, len(grid) - 1)
    down, across = row - top, column - left
    upper = (1 - across) * grid[top, left] + across * grid[top, right]
    lower = (1 - across) * grid[bottom, left] + across * grid[bottom, right]
    return (1 - down) * upper + down * lower


ID_MAP = torch.zeros(9, 11, dtype=torch.int64)
ID_MAP[1:6, 2:9] = 1
ID_MAP[4:8, 5:10] = 2  # overwrites a corner of 1
ID_MAP[8, 0:4] = 3  # one pixel high
ROI = torch.tensor([[0.5, 1.0, 2.25, 3.0], [0.0, 0.0, 3.0, 3.0], [1.0, 0.0, 2.0, 3.0]])


@pytest.mark.parametrize("grid_order", ["xy", "yx"])
@pytest.mark.parametrize("box_end", ["inclusive", "exclusive"])
@pytest.mark.parametrize("roi", [None, ROI])
def test_guidance_map_is_the_formula(grid_order, box_end, roi):
    grids = np.random.default_rng(0).normal(size=(3, 4, 4, 5))
    found = release.guidance_map(
        torch.tensor(grids, dtype=torch.float32).flatten(1, 2),
        ID_MAP,
        grid_order=grid_order,
        box_end=box_end,
        roi=roi,
    )
    expected = np.zeros((9, 11, 5))
    boxes = {1: (1, 2, 5, 8), 2: (4, 5, 7, 9), 3: (8, 0, 8, 3)}
    for number, (top, left, bottom, right) in boxes.items():
        height = bottom - top + (box_end == "inclusive")
        width = right - left + (box_end == "inclusive")
        for row, column in np.ndindex(height, width):
            if ID_MAP[top + row, left + column] != number:
                continue
            down, across = row / max(height - 1, 1), column / max(width - 1, 1)
            if grid_order == "yx":
                down, across = across, down
            r0, c0, r1, c1 = (0, 0, 3, 3) if roi is None else roi[number - 1].tolist()
            expected[top + row, left + column] = bilinear(
                grids[number - 1], r0 + (r1 - r0) * down, c0 + (c1 - c0) * across
            )
    np.testing.assert_allclose(found[0].permute(1, 2, 0).numpy(), expected, atol=2e-6)


@pytest.mark.parametrize(("count", "placed"), [(1, 1), (5, 4), (10, 9)])
def test_collage_places_squares_as_the_release_does(count, placed):
    crops = [np.full((300, 300, 3), 10 * number, np.uint8) for number in range(1, count + 1)]
    side = 256 if count <= 5 else 150
    canvas, id_map = pixels.collage(crops, 512, side)
    assert sorted(set(id_map.flatten().tolist()) - {0}) == list(range(1, placed + 1))
    assert (canvas[..., 0] == 10 * id_map).all()


def test_release_inputs():
    rng = np.random.default_rng(4)
    sketch = rng.integers(0, 256, (90, 70, 3), np.uint8)
    references = [rng.integers(0, 256, (size, 2 * size, 3), np.uint8) for size in (40, 55)]
    masks = [np.zeros(reference.shape[:2], np.uint8) for reference in references]
    masks[0][5:30, 10:40], masks[1][20:40, 30:100] = 255, 200
    plain, mirrored = (
        pixels.release_inputs(
            sketch, references, masks, mirror=mirror, page=128, sides=(64, 37), dino=56, clip=32
        )
        for mirror in (False, True)
    )
    shapes = [tuple(tensor.shape) for tensor in plain]
    assert shapes == [
        (1, 3, 128, 128),
        (1, 3, 128, 128),
        (1, 3, 32, 32),
        (2, 3, 56, 56),
        (128, 128),
    ]
    assert plain.canvas.min() == -1 and plain.canvas.max() == 1
    assert torch.equal(mirrored.canvas, plain.canvas.flip(-1))
    assert torch.equal(mirrored.id_map, plain.id_map)
    assert not torch.equal(mirrored.clip_pixels, plain.clip_pixels)


@pytest.mark.parametrize("value", [0, 255])
def test_pixels_name_what_the_release_cannot_do(value):
    picture = np.full((20, 20, 3), 7, np.uint8)
    with pytest.raises(ValueError, match="the release"):
        pixels.cropped(picture, np.full((20, 20), value, np.uint8))
