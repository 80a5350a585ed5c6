"""The networks, batch and step of a training as shapes: nothing is allocated."""

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from magiccolor_jax.checkpoint import flat_parameters
from magiccolor_jax.conditioning.assemble import Encoders
from magiccolor_jax.data.batches import bucket_of
from magiccolor_jax.diffusion.schedule import Schedule
from magiccolor_jax.encoders.clip import CLIPVision
from magiccolor_jax.encoders.clip_config import CLIPVisionConfig
from magiccolor_jax.encoders.dinov2 import DINOv2
from magiccolor_jax.encoders.dinov2_config import DINOv2Config
from magiccolor_jax.encoders.vae import VAE, VAEConfig
from magiccolor_jax.encoders.vgg import VGG19, VGG19Config
from magiccolor_jax.losses.objective import Frozen, LossConfig, Objective
from magiccolor_jax.models.controlnet import ControlNetConfig
from magiccolor_jax.models.magiccolor import MagicColor, MagicColorConfig
from magiccolor_jax.models.unet import UNetConfig
from magiccolor_jax.nn.abstract import abstract
from magiccolor_jax.recipe import Recipe
from magiccolor_jax.training.optim import OptimConfig, make_optimizer
from magiccolor_jax.training.parameters import Layout
from magiccolor_jax.training.stages import Stage, stage1, stage2
from magiccolor_jax.training.step import StepContext, TrainState, first_state
from magiccolor_jax.types import Batch, NullContexts, Sizes, TrainingBatch

Size = Literal["full", "mid", "nano"]

OFF = {"edge": False, "perceptual": 0.0, "color": 0.0}
SETTINGS: dict[str, dict[str, Any]] = {
    "denoising only": OFF,
    "+ edge weight": OFF | {"edge": True},
    "+ perceptual": OFF | {"perceptual": 0.1},
    "+ colour matching": OFF | {"color": 0.1},
    "all": {},
}
"""Name of a choice of losses -> fields of `LossConfig`; `+` is on top of denoising alone."""

STEPS = 1000
"""Any will do: the work does not depend on it."""


@dataclass(frozen=True, kw_only=True)
class Networks:
    """Configs of every network, and the picture sizes that they suit."""

    trained: MagicColorConfig
    """Denoiser, reference UNet and both guiders."""
    vae: VAEConfig
    """Frozen, as all below."""
    clip: CLIPVisionConfig
    """Makes the context."""
    dinov2: DINOv2Config
    """Makes the instances' tokens."""
    vgg: VGG19Config
    """Of the perceptual loss."""
    sizes: Sizes
    """Of pages and references."""


class Training(NamedTuple):
    """Everything that `train_step` takes, but the key."""

    context: StepContext
    fixed: Any
    frozen: Frozen
    state: TrainState
    batch: TrainingBatch


def networks(size: Size) -> Networks:
    """The released sizes; a quarter of their widths and about half of their depth; the tests'."""
    if size == "full":
        return Networks(
            trained=MagicColorConfig.sd15(),
            vae=VAEConfig.sd15(),
            clip=CLIPVisionConfig.vit_l14(),
            dinov2=DINOv2Config.vitl14(),
            vgg=VGG19Config.vgg19(),
            sizes=Sizes(),
        )
    if size == "mid":
        return _mid()
    return Networks(
        trained=MagicColorConfig.nano(),
        vae=VAEConfig.nano(),
        clip=CLIPVisionConfig.nano(),
        dinov2=DINOv2Config.nano(),
        vgg=VGG19Config.nano(),
        sizes=Sizes(page=128, canvas=128, reference=56, clip=32),
    )


def _mid() -> Networks:
    unet: dict[str, Any] = {
        "channels": (80, 160, 320),
        "attention": (True, True, False),
        "layers": 1,
        "groups": 8,
        "context": 192,
    }
    guider: dict[str, Any] = unet | {"embedding_channels": (8, 8, 24, 64)}
    dinov2 = DINOv2Config.vitl14(hidden_size=256, num_attention_heads=4, num_hidden_layers=12)
    multi: dict[str, Any] = guider | {"conditioning_channels": dinov2.hidden_size, "adapter": True}
    return Networks(
        trained=MagicColorConfig(
            denoiser=UNetConfig(**unet),
            reference=UNetConfig(**unet, head=False),
            sketch_guider=ControlNetConfig(**guider),
            instance_guider=ControlNetConfig(**multi),
        ),
        vae=VAEConfig(channels=(32, 64, 128, 128), layers=1, groups=8),
        clip=CLIPVisionConfig.vit_l14(
            hidden_size=256,
            intermediate_size=1024,
            num_attention_heads=4,
            num_hidden_layers=12,
            projection_dim=192,
        ),
        dinov2=dinov2,
        vgg=VGG19Config(widths=(16, 32, 64, 128, 128)),
        sizes=Sizes(page=256, canvas=256, reference=252),
    )


def training(
    nets: Networks, stage: Stage, losses: LossConfig, *, instances: int, cases: int = 1
) -> Training:
    """A stage's training with AdamW.

    Args:
        instances: padded to their bucket, as batches are.
    """
    cfg = nets.trained
    if not stage.instance_guider:
        cfg = MagicColorConfig(
            denoiser=cfg.denoiser,
            reference=cfg.reference,
            sketch_guider=cfg.sketch_guider,
            instance_guider=None,
        )
    model = abstract(MagicColor, cfg)
    parameters = {path: leaf.get_value() for path, leaf in flat_parameters(model).items()}
    trainable, fixed = stage.split(parameters)
    context = StepContext(
        layout=Layout(model),
        loss=Objective(losses, Recipe.paper(), Schedule.sd15()),
        optimizer=make_optimizer(OptimConfig(), trainable, STEPS),
        steps=STEPS,
    )
    state = jax.eval_shape(lambda values: first_state(context, values), trainable)
    return Training(context, fixed, frozen(nets), state, batch(nets, cases, bucket_of(instances)))


def stage_of(number: int) -> Stage:
    """Stage 1 or 2."""
    return {1: stage1, 2: stage2}[number]()


def frozen(nets: Networks) -> Frozen:
    """The networks that are only read."""
    null = floats(1, 1, nets.trained.denoiser.context)
    modules: list[Any] = [
        abstract(module, cfg)
        for module, cfg in (
            (VAE, nets.vae),
            (CLIPVision, nets.clip),
            (DINOv2, nets.dinov2),
            (VGG19, nets.vgg),
        )
    ]
    vae, clip, dinov2, vgg = modules
    return Frozen(Encoders(vae, clip), dinov2, NullContexts(null, null), vgg)


def batch(nets: Networks, cases: int, bucket: int) -> TrainingBatch:
    """Square pages of the model's own size."""
    sizes = nets.sizes

    def pictures(*shape: int) -> Any:
        return floats(cases, *shape, 3)

    def kind(dtype: Any, *shape: int) -> Any:
        return jax.ShapeDtypeStruct((cases, *shape), dtype)

    page, grid = (sizes.page, sizes.page), (sizes.grid, sizes.grid)
    case = Batch(
        sketch=pictures(*page),
        canvas=pictures(sizes.canvas, sizes.canvas),
        clip_pixels=pictures(sizes.clip, sizes.clip),
        reference_pixels=pictures(bucket, sizes.reference, sizes.reference),
        instance_map=kind(jnp.int32, *page),
        boxes=kind(jnp.int32, bucket, 4),
        roi=floats(cases, bucket, 4),
        valid=kind(bool, bucket),
    )
    colors = floats(cases, bucket, *grid, 3)
    return TrainingBatch(case, pictures(*page), kind(bool, bucket, *grid), colors)


def floats(*shape: int) -> Any:
    """The shape of an f32 array."""
    return jax.ShapeDtypeStruct(shape, jnp.float32)
