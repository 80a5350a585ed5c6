"""SAM against transformers' SamModel."""

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from oracles.parity import relative_error  # noqa: E402
from oracles.perturb import perturb_  # noqa: E402

from converters import maps  # noqa: E402
from converters.weightmap import wanted  # noqa: E402
from magiccolor_jax.checkpoint import parameter_shapes  # noqa: E402
from magiccolor_jax.nn.abstract import abstract  # noqa: E402
from magiccolor_jax.segment.prompt_encoder import NO_POINT  # noqa: E402
from magiccolor_jax.segment.sam import SAM  # noqa: E402
from magiccolor_jax.segment.sam_config import SAMConfig  # noqa: E402

pytestmark = pytest.mark.torch

CFG = SAMConfig.nano()

TOLERANCE = 1e-5

PROMPTS, POINTS = 3, 2


@pytest.fixture(scope="module")
def theirs():
    """transformers' model of the same sizes; its decoder's norms as segment-anything's."""
    vision = transformers.SamVisionConfig(
        hidden_size=CFG.width,
        num_hidden_layers=CFG.depth,
        num_attention_heads=CFG.heads,
        image_size=CFG.image_size,
        patch_size=CFG.patch_size,
        window_size=CFG.window,
        global_attn_indexes=list(CFG.global_blocks),
        mlp_dim=CFG.width * CFG.mlp_ratio,
        output_channels=CFG.channels,
        num_pos_feats=CFG.channels // 2,
    )
    prompts = transformers.SamPromptEncoderConfig(
        hidden_size=CFG.channels,
        image_size=CFG.image_size,
        patch_size=CFG.patch_size,
        mask_input_channels=CFG.mask_channels,
    )
    decoder = transformers.SamMaskDecoderConfig(
        hidden_size=CFG.channels,
        mlp_dim=CFG.decoder_width,
        num_attention_heads=CFG.decoder_heads,
        iou_head_hidden_dim=CFG.channels,
        layer_norm_eps=CFG.decoder_eps,
    )
    config = transformers.SamConfig(
        vision_config=vision, prompt_encoder_config=prompts, mask_decoder_config=decoder
    )
    model = perturb_(transformers.SamModel(config), seed=0)
    matrix = model.shared_image_embedding.positional_embedding
    matrix.copy_(torch.randn(matrix.shape, generator=torch.Generator().manual_seed(1)))
    model.prompt_encoder.shared_embedding.positional_embedding.copy_(matrix)
    return model


@pytest.fixture(scope="module")
def ours(theirs):
    """Filled through the file style of transformers."""
    network = abstract(SAM, CFG)
    state = {key: tensor.numpy() for key, tensor in theirs.state_dict().items()}
    assert maps.detect_style("sam", state) is maps.SAM_TRANSFORMERS
    parameters = nnx.state(network, nnx.Param)
    leaves = {"/".join(map(str, path)): leaf for path, leaf in nnx.to_flat_state(parameters)}
    used = set()
    for item in wanted(maps.SAM, parameter_shapes(CFG), maps.SAM_TRANSFORMERS):
        (key,) = item.keys
        value = maps.SAM.to_jax(item.path, state[key].reshape(item.part), item.shape)
        leaves[item.path].set_value(jnp.asarray(value))
        used.add(key)
    assert all(maps.SAM.is_extra(key) for key in state.keys() - used)
    nnx.update(network, parameters)
    return network


@pytest.fixture(scope="module")
def pixels():
    shape = (2, CFG.image_size, CFG.image_size, 3)
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


@pytest.fixture(scope="module")
def prompts():
    random = np.random.default_rng(1)
    points = random.uniform(0, CFG.image_size, (PROMPTS, POINTS, 2)).astype(np.float32)
    labels = np.array([[1, 0], [0, 1], [1, NO_POINT]], np.int32)
    return points, labels


def test_the_embedded_picture(ours, theirs, pixels):
    with torch.inference_mode():
        expected = theirs.get_image_embeddings(torch.from_numpy(pixels).permute(0, 3, 1, 2))
    found = nnx.jit(lambda sam, x: sam.embed(x))(ours, jnp.asarray(pixels))
    assert relative_error(found, expected.permute(0, 2, 3, 1)) < TOLERANCE


def decoded(ours, theirs, pixels, prompts, *, boxes=None, masks=None):
    """(ours, theirs) of the first picture; all four masks."""
    points, labels = prompts
    with torch.inference_mode():
        picture = theirs.get_image_embeddings(torch.from_numpy(pixels[:1]).permute(0, 3, 1, 2))
        both = [
            theirs(
                image_embeddings=picture,
                input_points=torch.from_numpy(points)[None],
                input_labels=torch.from_numpy(labels).long()[None],
                input_boxes=None if boxes is None else torch.from_numpy(boxes)[None],
                input_masks=None if masks is None else torch.from_numpy(masks)[None],
                multimask_output=many,
            )
            for many in (False, True)
        ]
    logits = torch.cat([each.pred_masks[0] for each in both], dim=1)
    quality = torch.cat([each.iou_scores[0] for each in both], dim=1)
    if boxes is None:
        points = np.concatenate([points, np.zeros((PROMPTS, 1, 2), np.float32)], axis=1)
        labels = np.concatenate([labels, np.full((PROMPTS, 1), NO_POINT, np.int32)], axis=1)
    else:
        points = np.concatenate([points, boxes.reshape(PROMPTS, 2, 2)], axis=1)
        labels = np.concatenate([labels, np.tile(np.array([[2, 3]], np.int32), (PROMPTS, 1))], 1)
    own = jnp.asarray(picture[0].permute(1, 2, 0).numpy())
    prior = None if masks is None else jnp.broadcast_to(masks, (PROMPTS, *masks.shape[1:]))
    found = nnx.jit(lambda sam, *x: sam.decode(*x))(
        ours, own, jnp.asarray(points), jnp.asarray(labels), prior
    )
    return found, (logits, quality)


@pytest.mark.parametrize("kind", ["points", "boxes", "masks"])
def test_the_masks_of_prompts(ours, theirs, pixels, prompts, kind):
    random = np.random.default_rng(2)
    boxes = masks = None
    if kind == "boxes":
        boxes = np.sort(random.uniform(0, 80, (PROMPTS, 2, 2)), axis=1).reshape(PROMPTS, 4)
        boxes = boxes.astype(np.float32)
    if kind == "masks":
        masks = random.normal(0, 4, (1, CFG.mask_size, CFG.mask_size)).astype(np.float32)
    found, (logits, quality) = decoded(ours, theirs, pixels, prompts, boxes=boxes, masks=masks)
    assert found.logits.shape == (PROMPTS, 4, CFG.mask_size, CFG.mask_size)
    assert relative_error(found.logits, logits) < TOLERANCE
    assert relative_error(found.quality, quality) < TOLERANCE
