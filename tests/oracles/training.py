"""A whole training at the smallest size: networks, batches, the compiled step on a mesh."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from oracles.randomise import randomise

from magiccolor_jax.conditioning.assemble import Encoders
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
from magiccolor_jax.parallel.sharding import batch_sharding, state_shardings
from magiccolor_jax.recipe import Recipe
from magiccolor_jax.training.optim import OptimConfig, make_optimizer
from magiccolor_jax.training.parameters import Layout
from magiccolor_jax.training.stages import stage2
from magiccolor_jax.training.step import StepContext, first_state, train_step
from magiccolor_jax.types import Batch, NullContexts, Sizes, TrainingBatch

CONTEXT, DINO, STEPS = 24, 32, 3
SMALL = {
    "channels": (16, 32),
    "attention": (True, True),
    "layers": 1,
    "heads": 4,
    "groups": 8,
    "context": CONTEXT,
}


SMALL_SIZES = Sizes(page=64, canvas=64, reference=56, patch=14, clip=32)


def small_config() -> MagicColorConfig:
    """The four networks with two levels each."""
    guider = {**SMALL, "embedding_channels": (8, 8, 8, 16)}
    return MagicColorConfig(
        denoiser=UNetConfig(**SMALL),
        reference=UNetConfig(**SMALL, head=False),
        sketch_guider=ControlNetConfig(**guider),
        instance_guider=ControlNetConfig(**guider, conditioning_channels=DINO, adapter=True),
    )


def small_model() -> MagicColor:
    """Lively random weights."""
    return randomise(abstract(MagicColor, small_config()), seed=0)


def small_frozen() -> Frozen:
    """Frozen networks of test size."""
    networks = [
        (VAE, VAEConfig.nano()),
        (CLIPVision, CLIPVisionConfig.nano()),
        (DINOv2, DINOv2Config.nano()),
        (VGG19, VGG19Config.nano()),
    ]
    vae, clip, dinov2, vgg = (randomise(abstract(*n), seed=i) for i, n in enumerate(networks, 1))
    null = jnp.full((1, 1, CONTEXT), 0.1)
    return Frozen(Encoders(vae, clip), dinov2, NullContexts(null, -null), vgg)


def random_batch(seed: int, cases: int, page: int = 64, instances: int = 2) -> TrainingBatch:
    """Noise for pictures, halves of the page for instances."""
    random = np.random.default_rng(seed)

    def pictures(*shape):
        return np.float32(random.uniform(-1, 1, (cases, *shape, 3)))

    owner = np.ones((cases, page, page), np.int32)
    owner[:, :, page // 2 :] = 2
    half = page // 2
    boxes = np.array([[0, 0, page - 1, half - 1], [0, half, page - 1, page - 1]], np.int32)
    reference = 56
    grid = reference // 14
    case = Batch(
        sketch=pictures(page, page),
        canvas=pictures(page, page),
        clip_pixels=pictures(32, 32),
        reference_pixels=pictures(instances, reference, reference),
        instance_map=owner,
        boxes=np.tile(boxes, (cases, 1, 1)),
        roi=np.tile(np.float32([0, 0, grid - 1, grid - 1]), (cases, instances, 1)),
        valid=np.ones((cases, instances), bool),
    )
    counts = random.random((cases, instances, grid, grid)) < 0.8
    colors = pictures(instances, grid, grid)
    return TrainingBatch(case, pictures(page, page), counts, colors)


class SmallTraining:
    """Stage 2 on a mesh; the state is born with its shardings."""

    def __init__(self, mesh: Mesh, **options):
        model = small_model()
        layout = Layout(model)
        trainable, fixed = stage2().split(layout.take(model))
        optim = OptimConfig(lr=1e-3, warmup=0)
        context = StepContext(
            layout=layout,
            loss=Objective(
                LossConfig(picture_crop=32, picture_share=1.0), Recipe.paper(), Schedule.sd15()
            ),
            optimizer=make_optimizer(optim, trainable, STEPS),
            steps=STEPS,
            **options,
        )
        whole = NamedSharding(mesh, P())
        shapes = jax.eval_shape(lambda values: first_state(context, values), trainable)
        sizes = {path: leaf.shape for path, leaf in (trainable | fixed).items()}
        self.shardings = state_shardings(shapes, sizes, mesh)
        self.state = jax.jit(
            lambda values: first_state(context, values), out_shardings=self.shardings
        )(trainable)
        frozen = small_frozen()
        encoders = {
            "vae": frozen.encoders.vae,
            "clip": frozen.encoders.clip,
            "dinov2": frozen.dinov2,
            "vgg": frozen.vgg,
        }
        graph, values = nnx.split(encoders)
        self._constant = (
            jax.device_put(fixed, state_shardings(fixed, sizes, mesh)),
            *jax.device_put((values, frozen.nulls), whole),
        )
        self._batches = batch_sharding(mesh)

        def step(constant, state, batch, key):
            fixed, values, nulls = constant
            nets = nnx.merge(graph, values)
            frozen = Frozen(Encoders(nets["vae"], nets["clip"]), nets["dinov2"], nulls, nets["vgg"])
            return train_step(context, fixed, frozen, state, batch, key)

        self.step = jax.jit(step, out_shardings=(self.shardings, whole), donate_argnums=1)

    def run(self, batches: list[TrainingBatch]) -> list[dict[str, float]]:
        """Steps once on each batch; the metrics of each."""
        found = []
        for batch in batches:
            there = jax.device_put(batch, self._batches)
            self.state, metrics = self.step(self._constant, self.state, there, jax.random.key(3))
            found.append({name: float(value) for name, value in metrics.items()})
        return found
