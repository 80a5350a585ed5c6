"""The UNet in both roles against diffusers: perturbed weights, non-square latents, few programs."""

import contextlib
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")

from oracles.parity import relative_error  # noqa: E402
from oracles.perturb import perturb_  # noqa: E402
from oracles.release_parts import ColorMatcher, hooked, transformer_blocks  # noqa: E402
from torch.nn import functional  # noqa: E402

from converters import maps, weightmap  # noqa: E402
from magiccolor_jax.checkpoint import parameter_shapes  # noqa: E402
from magiccolor_jax.models.color_matching import Matching  # noqa: E402
from magiccolor_jax.models.unet import UNet, UNetConfig, add_to_last_rows  # noqa: E402
from magiccolor_jax.nn.abstract import abstract  # noqa: E402
from magiccolor_jax.types import Residuals  # noqa: E402

pytestmark = pytest.mark.torch

TOLERANCE = 4e-6
"""Asked for is 1e-4; the measured errors are about 1e-6."""

CFG = UNetConfig.nano()
TIMESTEPS = (37, 501, 951)


class Case(NamedTuple):
    """What one evaluation is given; everything is drawn from the sizes."""

    latents: tuple[int, int]
    rows: int
    context: int
    """Tokens."""
    masked: bool = False
    """The last rows do not see the last two context tokens."""
    bank: int = 0
    """Rows with a reference, the last ones."""
    residuals: int = 0
    """Rows with residuals, the last ones."""
    matching: str = "off"


PLAIN = Case((24, 40), rows=2, context=3)
PARTIAL = Case((24, 40), 3, context=5, masked=True, bank=2, residuals=1, matching="fixed")
PAIR = Case((16, 16), 2, context=1, bank=2, residuals=2, matching="release")
CASES = {"plain": PLAIN, "last rows, fixed": PARTIAL, "all rows, release": PAIR}


def channels_last(tensor):
    return jnp.asarray(tensor.movedim(1, -1).contiguous().numpy())


@pytest.fixture(scope="module")
def oracle():
    unet = diffusers.UNet2DConditionModel(
        block_out_channels=CFG.channels,
        attention_head_dim=CFG.heads,  # diffusers' slip: it is the number of heads
        cross_attention_dim=CFG.context,
        norm_num_groups=CFG.groups,
    )
    return perturb_(unet, seed=0)


@pytest.fixture(scope="module")
def ours(oracle):
    unet = abstract(UNet, CFG)
    weights = {key: tensor.numpy() for key, tensor in oracle.state_dict().items()}
    weightmap.load_state_dict(unet, maps.UNET, weights, "unet")
    return unet


class LastRowsBank:
    """Self-attention processor: the last rows see their bank's tokens as well as their own."""

    def __init__(self, bank):
        """`bank`: [R S C]."""
        self.bank = bank

    def __call__(self, attn, hidden_states, *_, **__):
        alone, out = len(hidden_states) - len(self.bank), []
        for row, own in enumerate(hidden_states):
            seen = own if row < alone else torch.cat([own, self.bank[row - alone]])
            query, key, value = (
                linear(x).unflatten(-1, (attn.heads, -1)).transpose(0, 1)
                for linear, x in ((attn.to_q, own), (attn.to_k, seen), (attn.to_v, seen))
            )
            mixed = functional.scaled_dot_product_attention(query[None], key[None], value[None])
            out.append(attn.to_out[0](mixed[0].transpose(0, 1).flatten(1)))
        return torch.stack(out)


def match_fixed_in_a_loop(target, source, inside):
    """[B C h w], [R C s s], [R h w] -> [B C h w]."""
    out, alone = target.clone(), len(target) - len(source)
    for row in range(len(source)):
        candidates = source[row].flatten(1).T
        for y, x in torch.nonzero(inside[row]).tolist():
            likeness = functional.cosine_similarity(candidates, target[alone + row, :, y, x][None])
            out[alone + row, :, y, x] = candidates[likeness.argmax()]
    return out


def residual_shapes(case):
    """[R C h w] of every skip in order of making, and of the middle."""
    found, last = [(CFG.channels[0], 1)], len(CFG.channels) - 1
    for level, width in enumerate(CFG.channels):
        found += [(width, 2**level)] * CFG.layers
        found += [(width, 2 ** (level + 1))] * (level < last)
    found.append((CFG.channels[last], CFG.reduction))
    h, w = case.latents
    return [(case.residuals, width, h // by, w // by) for width, by in found]


def draw(case, oracle):
    """Every input as a torch tensor; None where the case does without."""
    generator = torch.Generator().manual_seed(1)

    def randn(*shape):
        return torch.randn(shape, generator=generator)

    h, w = case.latents
    mask = None
    if case.masked:
        mask = torch.ones(case.rows, case.context, dtype=torch.bool)
        mask[1:, -2:] = False
    blocks = transformer_blocks(oracle)
    widths = [blocks[name].norm1.normalized_shape[0] for name in execution_order(oracle)]
    matched = CFG.channels[-2]
    return {
        "latents": randn(case.rows, CFG.in_channels, h, w),
        "timesteps": torch.tensor(TIMESTEPS[: case.rows]),
        "context": randn(case.rows, case.context, CFG.context),
        "mask": mask,
        "bank": [randn(case.bank, 11 + i, width) for i, width in enumerate(widths)],
        "residuals": [randn(*shape) for shape in residual_shapes(case)],
        "source": randn(2, matched, 8, 8),
        "order": torch.randperm(64, generator=generator),
        "inside": torch.rand(2, h // 2, w // 2, generator=generator) < 0.5,
    }


def run_oracle(oracle, case, inputs):
    """(sample [B C h w], hidden by block name, output of up-block 1)."""
    blocks, hidden, match = transformer_blocks(oracle), {}, []
    stores = {
        block.norm1: lambda *hook, name=name: hidden.__setitem__(name, hook[-1])
        for name, block in blocks.items()
    }
    stores[oracle.up_blocks[1]] = lambda *hook: match.append(hook[-1])
    replace = {
        "fixed": lambda *hook: match_fixed_in_a_loop(hook[-1], inputs["source"], inputs["inside"]),
        "release": lambda *hook: ColorMatcher(inputs["source"], inputs["order"], None)(hook[-1]),
    }
    changes = {oracle.up_blocks[1]: replace[case.matching]} if case.matching in replace else {}
    options = {"encoder_attention_mask": inputs["mask"]}
    if case.residuals:
        padded = [
            torch.cat([torch.zeros(case.rows - case.residuals, *x.shape[1:]), x])
            for x in inputs["residuals"]
        ]
        options["down_block_additional_residuals"] = padded[:-1]
        options["mid_block_additional_residual"] = padded[-1]
    order = execution_order(oracle)
    with torch.inference_mode(), hooked(stores), hooked(changes), contextlib.ExitStack() as stack:
        if case.bank:
            for name, bank in zip(order, inputs["bank"], strict=True):
                layer = blocks[name].attn1
                stack.callback(layer.set_processor, layer.processor)
                layer.set_processor(LastRowsBank(bank))
        sample = oracle(inputs["latents"], inputs["timesteps"], inputs["context"], **options).sample
    return sample, [hidden[name] for name in order], match[0]


def execution_order(oracle):
    """diffusers lists down, up, middle."""
    rank = {"down_blocks": 0, "mid_block": 1, "up_blocks": 2}
    return sorted(transformer_blocks(oracle), key=lambda name: rank[name.split(".")[0]])


@nnx.jit
def evaluate(unet, latents, timesteps, context, mask, bank, residuals, matching):
    caches = unet.project(context, mask, bank)
    return unet(latents, timesteps, caches, residuals=residuals, matching=matching)


def run_ours(ours, case, inputs):
    bank = tuple(jnp.asarray(x.numpy()) for x in inputs["bank"]) if case.bank else None
    residuals, matching = None, None
    if case.residuals:
        *down, mid = map(channels_last, inputs["residuals"])
        residuals = Residuals(tuple(down), mid)
    if case.matching == "fixed":
        inside = jnp.asarray(inputs["inside"].numpy())
        matching = Matching(channels_last(inputs["source"]), inside=inside)
    if case.matching == "release":
        order = jnp.asarray(inputs["order"].numpy()[None])
        matching = Matching(channels_last(inputs["source"]), order=order)
    return evaluate(
        ours,
        channels_last(inputs["latents"]),
        jnp.asarray(inputs["timesteps"].numpy()),
        jnp.asarray(inputs["context"].numpy()),
        None if inputs["mask"] is None else jnp.asarray(inputs["mask"].numpy()),
        bank,
        residuals,
        matching,
    )


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_equals_diffusers(oracle, ours, case):
    inputs = draw(case, oracle)
    sample, hidden, match = run_oracle(oracle, case, inputs)
    found = run_ours(ours, case, inputs)
    assert relative_error(found.sample, channels_last(sample)) < TOLERANCE
    assert relative_error(found.features.match, channels_last(match)) < TOLERANCE
    assert len(found.features.hidden) == len(hidden) == 16
    for x, y in zip(found.features.hidden, hidden, strict=True):
        assert relative_error(x, y) < TOLERANCE


def test_the_reference_role_has_no_head(oracle):
    cfg = UNetConfig.nano(head=False)
    found = {key: tuple(tensor.shape) for key, tensor in oracle.state_dict().items()}
    headless = {key: shape for key, shape in found.items() if not key.startswith("conv_norm_out")}
    weightmap.check(maps.REFERENCE_UNET, parameter_shapes(cfg), headless, "reference_unet.pth")
    with pytest.raises(ValueError, match="unused   conv_out.weight"):
        weightmap.check(maps.UNET, parameter_shapes(cfg), headless, "reference_unet.pth")
    out = traced(cfg)
    assert out.sample is None
    assert len(out.features.hidden) == 16


def traced(cfg, height=16, width=16):
    """What an evaluation returns, as shapes."""
    latents = jax.ShapeDtypeStruct((1, height, width, cfg.in_channels), jnp.float32)
    context = jax.ShapeDtypeStruct((1, 1, cfg.context), jnp.float32)
    timesteps = jax.ShapeDtypeStruct((1,), jnp.int32)
    nones = (None,) * 4
    return nnx.eval_shape(evaluate, abstract(UNet, cfg), latents, timesteps, context, *nones)


@pytest.mark.parametrize(("height", "width"), [(20, 24), (24, 28)])
def test_sides_that_cannot_be_halved_are_refused(height, width):
    with pytest.raises(ValueError, match="multiples of 8 .*multiples of 64 px"):
        traced(CFG, height, width)


def test_a_bank_of_another_architecture_is_refused():
    unet = abstract(UNet, CFG)
    with pytest.raises(ValueError, match="pair with transformer blocks.*expected 16, got 3"):
        unet.project(jnp.zeros((1, 1, CFG.context)), None, (jnp.zeros((1, 4, 16)),) * 3)


def test_full_size():
    """runwayml/stable-diffusion-v1-5 has 859,520,964 parameters in 686 tensors."""
    shapes = parameter_shapes(UNetConfig.sd15())
    assert len(shapes) == 686
    assert sum(int(np.prod(shape)) for shape in shapes.values()) == 859_520_964


@pytest.mark.parametrize("rows", [1, 3])
def test_add_to_last_rows(rows):
    x, addend = np.ones((3, 2), np.float32), np.full((rows, 2), 5, np.float32)
    expected = x.copy()
    expected[-rows:] += 5
    assert np.array_equal(add_to_last_rows(jnp.asarray(x), jnp.asarray(addend)), expected)
