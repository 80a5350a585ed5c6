"""Pictures of what a model in training makes of some pages."""

import cv2
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Float, UInt8

from magiccolor_jax.diffusion.samplers import SamplerState, make_table
from magiccolor_jax.diffusion.schedule import Schedule
from magiccolor_jax.losses.objective import reference_encoder
from magiccolor_jax.sampling.sampler import Networks, Programs, draw_cases
from magiccolor_jax.training.parameters import Parameters
from magiccolor_jax.training.program import Program
from magiccolor_jax.types import LATENT_FACTOR, TokenGrid, TrainingBatch

SAMPLER = "ddim"

GAP = 4
"""Pixels of white between pictures."""


class Previewer:
    """Colours the same batch again and again; compiled once for its shape."""

    def __init__(self, program: Program, schedule: Schedule, batch: TrainingBatch):
        """Args:
        batch: of all processes, on the devices.
        """
        self.program, self.batch = program, batch
        report = program.design.config.report
        self._table = make_table(SAMPLER, schedule, report.preview_steps)
        self._guidance = np.float32(report.guidance)
        self._run = jax.jit(self._color, out_shardings=program.design.whole)
        seen = batch.case.sketch, batch.case.canvas, batch.target
        gather = jax.jit(lambda x: x, out_shardings=program.design.whole)
        self._seen: tuple[np.ndarray, ...] = jax.device_get(gather(seen))

    def __call__(self, values: Parameters) -> UInt8[np.ndarray, "H W 3"]:
        """One row a page: sketch, canvas of references, result, truth.

        Args:
            values: of the trained parameters.
        """
        case = self.batch.case
        made = self._run(self.program.constants, values, case, self._table, self._guidance)
        sketch, canvas, target = self._seen
        rows = zip(sketch, canvas, np.asarray(made), target, strict=True)
        shown = self.program.design.config.report.previews
        return tile([list(row) for row in rows][:shown])

    def _color(self, constants, values, case, table, guidance):
        design = self.program.design
        frozen = self.program.frozen(constants.frozen)
        model = design.layout.build(constants.fixed | values)
        networks = Networks(model, frozen.encoders, reference_encoder(model, frozen))
        graph, state = nnx.split(dict(networks._asdict()))
        programs, parameters = Programs(graph, design.config.recipe), (state, frozen.nulls)
        pixels = case.reference_pixels
        found = networks.dinov2(pixels.reshape(-1, *pixels.shape[2:]))
        tokens = TokenGrid(*(x.reshape(*pixels.shape[:2], *x.shape[1:]) for x in found))
        draws = self._draws(frozen, case)
        conditions = programs.condition(parameters, case, tokens, draws, guided=True)
        state = SamplerState(draws.noise, jnp.zeros_like(draws.noise))
        bounds = np.int32(0), table.steps
        made = programs.denoise(
            parameters, conditions, state, table, guidance, *bounds, guided=True
        )
        return programs.decode(parameters, made.latents)

    def _draws(self, frozen, case):
        count, height, width = case.sketch.shape[:3]
        channels, side = frozen.encoders.vae.cfg.latent_channels, case.canvas.shape[1]
        page, square = (height, width), (side, side)
        shapes = [tuple(x // LATENT_FACTOR for x in s) + (channels,) for s in (page, square)]
        seeds = jnp.arange(count, dtype=jnp.uint32)
        return draw_cases(seeds, noise=shapes[0], canvas=shapes[1], positions=0)


def tile(rows: list[list[Float[np.ndarray, "_ _ 3"]]]) -> UInt8[np.ndarray, "H W 3"]:
    """Pictures, [-1, 1], side by side in rows, all as high as the first of their row."""
    strips = []
    for row in rows:
        height = row[0].shape[0]
        strips.append(np.concatenate([_framed(x, height) for x in row], axis=1))
    width = max(strip.shape[1] for strip in strips)
    padded = [
        np.pad(s, ((0, 0), (0, width - s.shape[1]), (0, 0)), constant_values=1) for s in strips
    ]
    pixels = np.clip((np.concatenate(padded) + 1) / 2 * 255, 0, 255)
    return np.rint(pixels).astype(np.uint8)


def _framed(picture: Float[np.ndarray, "h w 3"], height: int) -> Float[np.ndarray, "H W 3"]:
    """A picture at this height, with white below and at the right."""
    size = round(picture.shape[1] * height / picture.shape[0]), height
    scaled = cv2.resize(picture.astype(np.float32), size, interpolation=cv2.INTER_AREA)
    return np.pad(scaled, ((0, GAP), (0, GAP), (0, 0)), constant_values=1)
