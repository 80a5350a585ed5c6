"""The gradients of one training step at nano size, ours and PyTorch's, under the same draws."""

import copy
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import torch
from flax import nnx
from oracles import nano, torch_objective
from oracles.loaded import loaded, nano_networks
from oracles.release import ReleaseModels
from oracles.torch_objective import Drawn, Pictures, Terms
from oracles.vgg import vgg_oracle
from torch import Tensor, nn

from converters import maps
from magiccolor_jax.conditioning.assemble import Encoders
from magiccolor_jax.data.transforms import IMAGENET_MEAN, IMAGENET_STD, mask_box
from magiccolor_jax.diffusion.schedule import Prediction, Schedule
from magiccolor_jax.encoders.vgg import VGG19, VGG19Config
from magiccolor_jax.losses.objective import Frozen, Keys, LossConfig, Objective, random_crop
from magiccolor_jax.nn.abstract import abstract
from magiccolor_jax.recipe import Recipe
from magiccolor_jax.training.parameters import Layout
from magiccolor_jax.training.stages import stage2
from magiccolor_jax.training.step import StepContext, first_state, train_step
from magiccolor_jax.types import Batch, TrainingBatch

PAGE = (128, 192)
CASES, INSTANCES, GRID = 3, 3, nano.DINO_PIXELS // 14
STEP, STEPS = 7, 10
"""The edge weight is on its way at this step."""

NOTHING = 1e-12
"""PyTorch's float64 gradient is zero below this share of the largest one of its network."""

WEIGHT_MAPS = {
    "denoiser": maps.UNET,
    "reference": maps.UNET,
    "sketch_guider": maps.CONTROLNET,
    "instance_guider": maps.CONTROLNET,
}


class Setting(NamedTuple):
    """One step."""

    losses: LossConfig
    prediction: Prediction
    key: int
    """Seed of the training's key; one where weights that change by 1e-6 of themselves change no
    gradient by more than 1.3e-4. Many others lie at a kink (a sign of colour matching, a rectifier
    of VGG-19): the last bit decides which of two gradients is computed."""


SETTINGS = {
    "epsilon": Setting(LossConfig(picture_crop=96), "epsilon", 3),
    "dropped rows": Setting(LossConfig(picture_crop=96), "epsilon", 36),
    "min-SNR, velocity": Setting(
        LossConfig(min_snr_gamma=5.0, picture_crop=160, drop=0.5), "v_prediction", 5
    ),
}


class Gradients(NamedTuple):
    """What one side found."""

    terms: dict[str, float]
    """`loss`, `denoise`, `perceptual`, `color`."""
    slopes: dict[str, np.ndarray]
    """Our path -> gradient in our layout; every trained parameter."""


def pictures(seed: int = 0) -> Pictures:
    """Three cases: one flipped, one in which the last instance owns no pixel."""
    inputs, _ = zip(*(nano.nano_release_case(seed + i, PAGE) for i in range(CASES)), strict=True)
    targets = [nano.nano_release_case(seed + CASES + i, PAGE)[0].sketch for i in range(CASES)]
    id_map = torch.stack([each.id_map for each in inputs])
    id_map[1] = id_map[1].flip(1)
    id_map[2][id_map[2] == INSTANCES] = 0
    random = np.random.default_rng(seed)
    ends = np.sort(random.uniform(0, GRID - 1, (CASES, INSTANCES, 2, 2)), axis=2)
    counts = random.random((CASES, INSTANCES, GRID, GRID)) < 0.7
    counts[2, INSTANCES - 1] = False
    return Pictures(
        *(
            torch.cat([getattr(each, name) for each in inputs])
            for name in ("sketch", "canvas", "clip_pixels")
        ),
        torch.stack([each.reference_pixels for each in inputs]),
        id_map,
        torch.from_numpy(np.float32(ends.reshape(CASES, INSTANCES, 4))),
        torch.from_numpy(counts),
        torch.cat(targets),
    )


def as_batch(shown: Pictures) -> TrainingBatch:
    """The same as our networks take it."""
    owner = shown.id_map.numpy().astype(np.int32)
    found = [[mask_box(each == index + 1) for index in range(INSTANCES)] for each in owner]
    case = Batch(
        sketch=channels_last(shown.sketch),
        canvas=channels_last(shown.canvas),
        clip_pixels=channels_last(shown.clip_pixels),
        reference_pixels=channels_last(shown.references),
        instance_map=owner,
        boxes=np.array([[box or (0, 0, 0, 0) for box in boxes] for boxes in found], np.int32),
        roi=shown.roi.numpy(),
        valid=np.array([[box is not None for box in boxes] for boxes in found]),
    )
    return TrainingBatch(
        case, channels_last(shown.target), shown.counts.numpy(), patch_colors(case.reference_pixels)
    )


def patch_colors(references: np.ndarray) -> np.ndarray:
    """Mean colour, [-1, 1], of each patch of normalised references [B K R R 3]."""
    unit = references * np.float32(IMAGENET_STD) + np.float32(IMAGENET_MEAN)
    side = unit.shape[2] // GRID
    cut = unit.reshape(*unit.shape[:2], GRID, side, GRID, side, 3)
    return 2 * cut.mean(axis=(3, 5)) - 1


def channels_last(tensor: Tensor) -> np.ndarray:
    """[*n C H W] -> [*n H W C]."""
    return np.ascontiguousarray(tensor.movedim(-3, -1).numpy())


def draw(setting: Setting) -> Drawn:
    """What our step draws from its key."""
    losses, recipe = setting.losses, Recipe.paper()
    keys = Keys.split(jax.random.fold_in(jax.random.key(setting.key), STEP))
    latent = (CASES, PAGE[0] // 8, PAGE[1] // 8, 4)
    crop = random_crop(keys.crop, PAGE, losses.picture_crop, CASES)
    tokens = (CASES, INSTANCES, GRID, GRID)

    def tensor(array: jax.Array) -> Tensor:
        return torch.from_numpy(np.array(array))

    noise, posterior = (
        tensor(jax.random.normal(each, latent)).movedim(-1, 1)
        for each in (keys.noise, keys.posterior)
    )
    return Drawn(
        tensor(jax.random.randint(keys.timesteps, (CASES,), 0, 1000)).long(),
        noise,
        posterior,
        jax.random.bernoulli(keys.drop, losses.drop, (CASES,)).tolist(),
        tensor(jax.random.bernoulli(keys.tokens, recipe.token_drop, tokens)),
        bool(jax.random.bernoulli(keys.pictures, losses.picture_share)),
        [(16 * int(y), 16 * int(x)) for y, x in zip(crop.top, crop.left, strict=True)],
    )


class Both:
    """Both sides' networks under the same perturbed weights."""

    def __init__(self, seed: int = 0):
        self.models = nano.nano_release_models(seed)
        self.vgg = vgg_oracle(VGG19Config.nano().widths)
        self._steps: dict[tuple[LossConfig, Prediction], Any] = {}
        networks, self.nulls = nano_networks(self.models)
        self.layout = Layout(networks.model)
        self.trainable, self.fixed = stage2().split(self.layout.take(networks.model))
        self.frozen = nnx.Dict(
            vae=networks.encoders.vae,
            clip=networks.encoders.clip,
            dinov2=networks.dinov2,
            vgg=loaded(abstract(VGG19, VGG19Config.nano()), maps.VGG19, self.vgg.state_dict()),
        )

    def _compile(self, losses: LossConfig, prediction: Prediction) -> Any:
        """The training step with an optimiser that keeps the gradient as its state."""
        keeps = optax.GradientTransformation(
            lambda parameters: parameters, lambda slopes, *_: (slopes, slopes)
        )
        loss = Objective(losses, Recipe.paper(), Schedule(prediction_type=prediction))
        context = StepContext(layout=self.layout, loss=loss, optimizer=keeps, steps=STEPS)

        @nnx.jit
        def step(networks, nulls, trainable, fixed, batch, key):
            encoders = Encoders(networks["vae"], networks["clip"])
            frozen = Frozen(encoders, networks["dinov2"], nulls, networks["vgg"])
            state = first_state(context, trainable)._replace(step=jnp.int32(STEP))
            state, metrics = train_step(context, fixed, frozen, state, batch, key)
            return state.optimizer, metrics

        return step

    def our_gradients(self, setting: Setting, shown: Pictures) -> Gradients:
        """Of the training step itself."""
        what, key = (setting.losses, setting.prediction), jax.random.key(setting.key)
        step = self._steps.setdefault(what, self._compile(*what))
        batch = jax.tree.map(jnp.asarray, as_batch(shown))
        slopes, metrics = step(self.frozen, self.nulls, self.trainable, self.fixed, batch, key)
        terms = {name.removeprefix("loss/"): float(value) for name, value in metrics.items()}
        terms.pop("grad_norm")
        return Gradients(terms, {path: np.asarray(slope) for path, slope in slopes.items()})

    def their_gradients(
        self, setting: Setting, shown: Pictures, dtype: torch.dtype = torch.float64
    ) -> Gradients:
        """Of PyTorch's autograd."""
        # Not diffusers' own `to`, which has advice to give.
        *models, vgg = (nn.Module.to(copy.deepcopy(x), dtype) for x in (*self.models, self.vgg))
        terms = Terms.of(setting.losses, setting.prediction, STEP / STEPS)
        inputs = in_type(shown, dtype), in_type(draw(setting), dtype), terms
        found, slopes = torch_objective.gradients(ReleaseModels(*models), vgg, *inputs)
        return Gradients(found, {path: self._turned(path, slopes) for path in self.trainable})

    def _turned(self, path: str, slopes: Mapping[str, Mapping[str, Tensor]]) -> np.ndarray:
        """PyTorch's gradient in our layout; zeros where it has none."""
        network, _, inner = path.partition("/")
        weight_map, shape = WEIGHT_MAPS[network], self.trainable[path].shape
        slope = slopes[network].get(weight_map.key(inner))
        if slope is None:
            return np.zeros(shape)
        return weight_map.to_jax(inner, slope.contiguous().numpy(), shape)


def in_type(values: Any, dtype: torch.dtype) -> Any:
    """A named tuple whose float tensors have this type."""

    def cast(x: Any) -> Any:
        return x.to(dtype) if isinstance(x, Tensor) and x.is_floating_point() else x

    return type(values)(*map(cast, values))


def differences(found: Gradients, exact: Gradients) -> dict[str, float]:
    """Per parameter the largest difference relative to its gradient's largest value.

    Where that is zero, relative to the largest of its network.
    """
    assert found.slopes.keys() == exact.slopes.keys()
    idle, largest = vanishing(exact), _largest(exact)
    return {
        path: np.abs(found.slopes[path] - slope).max()
        / (largest[path.split("/")[0]] if path in idle else np.abs(slope).max())
        for path, slope in exact.slopes.items()
    }


def vanishing(exact: Gradients) -> set[str]:
    """Parameters that change nothing."""
    largest = _largest(exact)
    return {
        path
        for path, slope in exact.slopes.items()
        if np.abs(slope).max() <= NOTHING * largest[path.split("/")[0]]
    }


def _largest(exact: Gradients) -> dict[str, float]:
    """Network -> largest value of any of its gradients."""
    largest: dict[str, float] = {}
    for path, slope in exact.slopes.items():
        network = path.split("/")[0]
        largest[network] = max(largest.get(network, 0.0), float(np.abs(slope).max()))
    return largest
