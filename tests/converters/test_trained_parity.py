"""What was trained here, in the release's files, loaded by PyTorch: it predicts the same."""

import json

import jax.numpy as jnp
import numpy as np
import pytest

pytestmark = [pytest.mark.torch, pytest.mark.slow]
torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")

from diffusers import AutoencoderKL, ControlNetModel, UNet2DConditionModel  # noqa: E402
from flax import nnx  # noqa: E402
from oracles.dinov2_hub import DINOv2Hub  # noqa: E402
from oracles.parity import relative_error  # noqa: E402
from oracles.release import with_dino_adapter  # noqa: E402
from oracles.runs import cheap_run, write_pages, write_start  # noqa: E402
from oracles.trained import write_run  # noqa: E402
from safetensors.torch import load_file  # noqa: E402

from converters import ConvertArgs  # noqa: E402
from converters.run import convert  # noqa: E402
from magiccolor_jax.checkpoint import load_network, read_config  # noqa: E402
from magiccolor_jax.training.loop import DONE, Training  # noqa: E402
from magiccolor_jax.training.setup import plan_training  # noqa: E402
from magiccolor_jax.types import Residuals  # noqa: E402

TOLERANCE = 1e-4
"""Of the largest value."""

GUIDERS = {"sketch_guider": "controlnet_sketch", "instance_guider": "controlnet_multi"}
UNETS = {"denoiser": "denoising_unet", "reference": "reference_unet"}


class Both:
    """One training run as our model folder and as the release's files."""

    def __init__(self, run):
        self.model, self.release = run.with_name("model"), run.with_name("release")
        convert(ConvertArgs(source=run, output=self.model))
        convert(ConvertArgs(source=run, output=self.release, to="release"))
        self.networks = read_config(self.model).networks

    def ours(self, name):
        return load_network(self.model, name, self.networks[name])

    def theirs(self, name):
        """diffusers' model of the release's config and weights; nothing missing, nothing over."""
        if name in UNETS:
            config = self.release / "stable-diffusion-v1-5/unet/config.json"
            model = UNet2DConditionModel.from_config(json.loads(config.read_text()))
            path = self.release / f"MagicColor/{UNETS[name]}.pth"
            state = torch.load(path, weights_only=True)
        else:
            folder = self.release / "MagicColor" / GUIDERS[name]
            content = json.loads((folder / "config.json").read_text())
            model = ControlNetModel.from_config(content)
            if name == "instance_guider":
                model = with_dino_adapter(model)
            state = load_file(folder / "diffusion_pytorch_model.safetensors")
        model.load_state_dict(state, strict=True)
        return model.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def perturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("perturbed")
    write_start(folder / "start")
    write_run(cheap_run(folder), {3: 0.5})
    return Both(folder / "run")


def noise(seed, *shape):
    return np.random.default_rng(seed).standard_normal(shape, np.float32)


def first(array):
    """[B H W C] -> PyTorch's [B C H W]."""
    return torch.from_numpy(np.moveaxis(array, -1, 1).copy())


def last(tensor):
    return np.moveaxis(tensor.numpy(), 1, -1)


LATENTS, TIMES = noise(0, 2, 8, 4, 4), np.array([3, 741], np.int32)
CONTEXT = noise(1, 2, 3, 24)


def guided(both, name):
    """(ours, theirs): a guider's residuals."""
    hint = noise(2, 2, 64, 32, both.networks[name].conditioning_channels)

    @nnx.jit
    def run(guider, latents, times, hint, context):
        caches = guider.project(context, None)
        return guider(latents, times, guider.embed(hint), caches)

    ours = run(both.ours(name), *map(jnp.asarray, (LATENTS, TIMES, hint, CONTEXT)))
    theirs = both.theirs(name)(
        first(LATENTS), torch.from_numpy(TIMES), torch.from_numpy(CONTEXT), first(hint)
    )
    return [*ours.down, ours.mid], [*theirs.down_block_res_samples, theirs.mid_block_res_sample]


def assert_predictions_agree(both):
    total = None
    for name in GUIDERS:
        ours, theirs = guided(both, name)
        for one, other in zip(ours, theirs, strict=True):
            assert relative_error(one, last(other)) < TOLERANCE, name
        total = theirs if total is None else [a + b for a, b in zip(total, theirs, strict=True)]
    *down, mid = total

    @nnx.jit
    def run(denoiser, latents, times, context, residuals):
        caches = denoiser.project(context, None)
        return denoiser(latents, times, caches, residuals=residuals).sample

    residuals = Residuals(tuple(jnp.asarray(last(r)) for r in down), jnp.asarray(last(mid)))
    ours = run(both.ours("denoiser"), *map(jnp.asarray, (LATENTS, TIMES, CONTEXT)), residuals)
    theirs = both.theirs("denoiser")(
        first(LATENTS),
        torch.from_numpy(TIMES),
        torch.from_numpy(CONTEXT),
        down_block_additional_residuals=tuple(down),
        mid_block_additional_residual=mid,
    ).sample
    assert relative_error(ours, last(theirs)) < TOLERANCE


def test_a_trained_checkpoint_predicts_the_same_in_pytorch(perturbed):
    assert_predictions_agree(perturbed)


def test_the_reference_unet_and_the_frozen_networks_load_strictly(perturbed):
    model = perturbed.theirs("reference")
    assert not model.conv_out.weight.any() and bool((model.conv_norm_out.weight == 1).all())
    path = perturbed.release / "dinov2_vitl14_reg4_pretrain.pth"
    hub = DINOv2Hub(perturbed.networks["dinov2"])
    hub.load_state_dict(torch.load(path, weights_only=True), strict=True)
    _, info = AutoencoderKL.from_pretrained(
        perturbed.release / "sd-vae-ft-mse", output_loading_info=True
    )
    assert not info["missing_keys"] and not info["unexpected_keys"]


@pytest.mark.parametrize(
    ("folder", "name"),
    [
        ("clip-vit-large-patch14", "CLIPTextModel"),
        ("clip-vit-large-patch14", "CLIPVisionModelWithProjection"),
        ("stable-diffusion-v1-5/text_encoder", "CLIPTextModel"),
    ],
)
def test_transformers_loads_the_encoders(perturbed, folder, name):
    transformers = pytest.importorskip("transformers")
    kind, path = getattr(transformers, name), perturbed.release / folder
    _, info = kind.from_pretrained(path, output_loading_info=True)
    assert not info["missing_keys"]


@pytest.mark.slow
def test_a_real_training_predicts_the_same_in_pytorch(tmp_path):
    """Slow: compiles a step."""
    from rich.console import Console

    write_start(tmp_path / "start")
    write_pages(tmp_path / "pages", 2)
    config = cheap_run(tmp_path, steps=2)
    assert Training(plan_training(config), Console(quiet=True)).run() == DONE
    both = Both(config.out)
    moved = np.asarray(both.ours("denoiser").conv_in.kernel[...])
    began = load_network(tmp_path / "start", "denoiser", both.networks["denoiser"])
    assert 0 < np.abs(moved - np.asarray(began.conv_in.kernel[...])).max() < 0.1
    assert_predictions_agree(both)
