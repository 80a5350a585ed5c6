"""Trains the KL autoencoder from nothing, where no pretrained one is at hand.

It learns from crops of the scenes' pages and of their references. The run's folder holds
checkpoints, metrics, previews and settings.json; at its end also `model/`, a model folder with the
autoencoder alone, whose scaling factor gives latents of deviation 1.
"""

import dataclasses
import json
import re
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grain
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax.sharding import SingleDeviceSharding
from jaxtyping import Array, Float, UInt8
from rich.console import Console

from magiccolor_jax.checkpoint import (
    ModelConfig,
    load_network,
    read_config,
    save_network,
    write_config,
)
from magiccolor_jax.data.listing import digest
from magiccolor_jax.data.pictures import write_png
from magiccolor_jax.data.scenes import Source
from magiccolor_jax.data.sources import Concatenation, open_source
from magiccolor_jax.encoders.vae import VAE, VAEConfig
from magiccolor_jax.files import atomic_directory, atomic_file, code_version
from magiccolor_jax.nn.abstract import abstract
from magiccolor_jax.training.checkpoints import Checkpoints, Position
from magiccolor_jax.training.config import SaveConfig
from magiccolor_jax.training.crops import Crops
from magiccolor_jax.training.folder import claimed
from magiccolor_jax.training.optim import OptimConfig, make_optimizer
from magiccolor_jax.training.parameters import Layout, Parameters
from magiccolor_jax.training.preview import tile
from magiccolor_jax.training.record import plain
from magiccolor_jax.training.reports import Averages, Clock, Reporter, memory_gb
from magiccolor_jax.training.step import TrainState
from magiccolor_jax.training.stopping import PreemptedError, Stop
from magiccolor_jax.types import Sizes

DONE, PREEMPTED = 0, 75

AREA = 4
"""Side of the areas whose colours count by themselves, in pixels; divides every crop."""

DECODER = re.compile(r"(decoder|post_quant_conv)/.*")
"""Parameters of the decoder."""

PREVIEWED = 6
"""Crops on a preview."""


@dataclass(frozen=True, kw_only=True)
class AutoencoderConfig:
    """Train the autoencoder."""

    out: Path
    """Folder of this run."""
    sources: tuple[str, ...]
    """KIND:FOLDER each, or art:FILE, as a training's `data.sources`."""
    network: VAEConfig
    """Its sizes; the scaling factor is measured."""
    init: Path | None = None
    """Model folder whose autoencoder of these sizes is gone on from; None: from nothing."""
    decoder_only: bool = False
    """Leave the encoder as `init` has it, and so the latents that other networks learnt."""
    noise: float = 0.0
    """Deviation of what is added to latents before they are decoded, beside the posterior's own:
    what a sampler makes is not exact either."""
    crop: int = 64
    """Side in pixels of what a step sees; a multiple of the network's reduction."""
    page: int = 256
    """Largest longest side at which pages are shown."""
    batch: int = 16
    """Crops per step."""
    steps: int = 20_000
    """Length of the training."""
    seed: int = 0
    """Of everything random."""
    kl: float = 1e-4
    """Weight of the latents' divergence from standard noise."""
    coarse: float = 1.0
    """Weight of the error of areas' mean colours, which is what lines are laid over."""
    slope: float = 0.5
    """Weight of the error of neighbours' differences: edges stay where they are."""
    optim: OptimConfig = field(
        default_factory=lambda: OptimConfig(
            lr=2e-3, warmup=100, schedule="cosine", weight_decay=0.0
        )
    )
    """The optimiser."""
    average: float = 0.999
    """Decay of the moving average, which is what is kept."""
    save: SaveConfig = field(default_factory=SaveConfig)
    """Checkpoints."""
    every: int = 100
    """Steps between lines of progress."""
    preview_every: int = 2000
    """Steps between preview pictures; 0: none."""
    threads: int = 2
    """Threads that cut crops."""

    def __post_init__(self):
        names = ("crop", "page", "batch", "steps", "every", "threads")
        if bad := {name: getattr(self, name) for name in names if getattr(self, name) < 1}:
            raise ValueError(f"AutoencoderConfig: expected at least 1, got {bad}")
        if self.decoder_only and self.init is None:
            raise ValueError(
                "AutoencoderConfig: decoder_only needs init, the folder of the encoder that stays"
            )
        if self.crop % self.network.reduction:
            raise ValueError(
                f"AutoencoderConfig: crop must be a multiple of {self.network.reduction}, "
                f"got {self.crop}"
            )


def crops_of(source: Source, config: AutoencoderConfig) -> Crops:
    """What the training sees."""
    return Crops(source, config.seed, config.batch, config.page, config.crop)


def objective(
    cfg: AutoencoderConfig, model: VAE, pixels: Float[Array, "B S S 3"], key: Array
) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
    """Errors of colours, also of whole areas, and of edges, and a little of the divergence
    (arXiv:1312.6114)."""
    posterior = model.encode(pixels)
    keys = jax.random.split(key)
    own, more = (jax.random.normal(key, posterior.mean.shape) for key in keys)
    latents = posterior.sample(own) + cfg.noise * more
    gap = model.decode(latents) - pixels
    error = jnp.mean(jnp.square(gap))
    count, side = gap.shape[0], gap.shape[1] // AREA
    areas = gap.reshape(count, side, AREA, side, AREA, -1).mean(axis=(2, 4))
    coarse = jnp.mean(jnp.square(areas)) + jnp.mean(jnp.abs(areas))
    slopes = [jnp.mean(jnp.abs(jnp.diff(gap, axis=axis))) for axis in (1, 2)]
    variance = jnp.square(posterior.std)
    divergence = 0.5 * jnp.mean(jnp.square(posterior.mean) + variance - 1 - jnp.log(variance))
    loss = error + jnp.mean(jnp.abs(gap)) + cfg.coarse * coarse
    loss += cfg.slope * sum(slopes) + cfg.kl * divergence
    return loss, {
        "loss": loss,
        "psnr": 10 * jnp.log10(4 / error),  # pixels span 2
        "coarse": coarse,
        "divergence": divergence,
        "spread": jnp.std(latents),
    }


class AutoencoderTraining:
    """One run, from its start or its last checkpoint to its end."""

    def __init__(self, config: AutoencoderConfig, console: Console):
        """Raises ValueError or CaseError where a source cannot be opened."""
        self.config, self.console = config, console
        self.source = Concatenation([open_source(text) for text in config.sources])
        self.sizes = _sizes(config)
        self.layout = Layout(abstract(VAE, self.sizes))
        values = _first_parameters(config, self.sizes, self.layout)
        stays = {path for path in values if config.decoder_only and not DECODER.fullmatch(path)}
        self.fixed = {path: value for path, value in values.items() if path in stays}
        self.first = {path: value for path, value in values.items() if path not in stays}
        self.optimizer = make_optimizer(config.optim, self.first, config.steps)
        self.step = jax.jit(self._step, donate_argnums=1)
        self.rebuild = jax.jit(self._rebuild)
        fields = (config.seed, config.crop, config.page, config.batch)
        self.plan = digest([self.source.fingerprint(), *fields])

    def run(self) -> int:
        """Trains to the end; returns the exit code.

        Raises:
            ValueError, OSError: a checkpoint does not fit, or the disk is full.
        """
        self.config.out.mkdir(parents=True, exist_ok=True)
        with ExitStack() as held, Stop().listening() as stop:
            held.enter_context(claimed(self.config.out))
            with atomic_file(self.config.out / "settings.json") as temporary:
                settings = {"code": code_version(), "config": plain(self.config)}
                temporary.write_text(json.dumps(settings, indent=2, default=str) + "\n")
            try:
                self.checkpoints = Checkpoints(self.config.out / "checkpoints", self.config.save)
                state, position = self._begin()
                stop.saves = True
            except PreemptedError:
                return PREEMPTED
            try:
                return self._train(state, position, stop)
            finally:
                self.checkpoints.close()

    def _begin(self) -> tuple[TrainState, Position]:
        shapes = jax.eval_shape(self._first_state, self.first)
        newest = self.checkpoints.latest()
        if newest is None:
            return jax.jit(self._first_state)(self.first), Position(0, self.plan)
        here = SingleDeviceSharding(jax.devices()[0])
        places = jax.tree.map(lambda _: here, shapes)
        state, position = self.checkpoints.restore(newest, shapes, places)
        if position.plan != self.plan:
            raise ValueError(
                f"{self.config.out}: a run goes on with the data that it began with; restore the "
                "sources, seed, crop, page and batch, or choose another --out"
            )
        return state, position

    def _first_state(self, values: Parameters) -> TrainState:
        return TrainState(jnp.zeros((), jnp.int32), values, self.optimizer.init(values), values)

    def _train(self, state: TrainState, position: Position, stop: Stop) -> int:
        config, begun = self.config, position.step
        averages, clock = Averages(), Clock()
        with Reporter(config.out, self.console, begun, config.steps) as reporter:
            for finished, pixels in enumerate(self._batches(begun), begun + 1):
                if finished == begun + 1:
                    with reporter.doing("compiling"), clock.pause():
                        state, metrics = self.step(self.fixed, state, pixels)
                        jax.block_until_ready(metrics)
                else:
                    state, metrics = self.step(self.fixed, state, pixels)
                    clock.tick()
                averages.add(finished, metrics)
                reporter.advance(finished)
                if finished % config.every == 0 or finished == config.steps:
                    self._report(reporter, finished, averages, clock)
                last = stop.asked or finished == config.steps
                with clock.pause():
                    if config.preview_every and (
                        finished % config.preview_every == 0 or finished == config.steps
                    ):
                        self._preview(finished, state, pixels)
                    if last or finished % config.save.every == 0:
                        self.checkpoints.save(
                            state, Position(finished, self.plan), averages.take_loss()
                        )
                if stop.asked and finished < config.steps:
                    reporter.say(f"stopped after step {finished}; the same command goes on")
                    return PREEMPTED
        self.checkpoints.wait()
        self._export(state)
        return DONE

    def _report(self, reporter: Reporter, finished: int, averages: Averages, clock: Clock) -> None:
        values = averages.take()
        if lap := clock.lap():
            left = lap.seconds * (self.config.steps - finished)
            values |= {"step_seconds": lap.seconds, "seconds_left": left}
        reporter.scalars(finished, values | {"memory_gb": memory_gb()})

    def _batches(self, begun: int) -> Iterator[UInt8[np.ndarray, "B S S 3"]]:
        """The crops of each step that is left, cut ahead."""
        data = grain.MapDataset.range(begun, self.config.steps)
        data = data.map(crops_of(self.source, self.config))
        return iter(data.to_iter_dataset(grain.ReadOptions(num_threads=self.config.threads)))

    def _step(
        self, fixed: Parameters, state: TrainState, pixels: UInt8[Array | np.ndarray, "B S S 3"]
    ):
        key = jax.random.fold_in(jax.random.key(self.config.seed), state.step)
        shown = signed(pixels)

        def loss(values: Parameters):
            return objective(self.config, self.layout.build(fixed | values), shown, key)

        slope, metrics = jax.grad(loss, has_aux=True)(state.trainable)
        updates, moments = self.optimizer.update(slope, state.optimizer, state.trainable)
        values: Any = optax.apply_updates(state.trainable, updates)
        decay = jnp.minimum(self.config.average, (1 + state.step) / (10 + state.step))
        average = jax.tree.map(lambda x, y: decay * x + (1 - decay) * y, state.average, values)
        metrics |= {"grad_norm": optax.tree.norm(slope)}
        return TrainState(state.step + 1, values, moments, average), metrics

    def _rebuild(self, values: Parameters, pixels: UInt8[Array | np.ndarray, "B S S 3"]):
        """Crops after the latents' means, and the deviation of these."""
        model = self.layout.build(values)
        latents = model.encode(signed(pixels)).mean
        return model.decode(latents), jnp.std(latents)

    def _preview(
        self, finished: int, state: TrainState, pixels: UInt8[np.ndarray, "B S S 3"]
    ) -> None:
        """Crops, and what becomes of them."""
        shown = pixels[:PREVIEWED]
        made, _ = self.rebuild(self.fixed | _kept(state), shown)
        rows = [list(np.asarray(signed(shown))), list(np.asarray(made))]
        write_png(self.config.out / "previews" / f"{finished:07}.png", tile(rows))

    def _export(self, state: TrainState) -> None:
        """Writes the averaged network as a model folder, in place of an earlier part's."""
        folder, config = self.config.out / "model", self.config
        crops = crops_of(self.source, config)
        pixels = np.concatenate([crops(config.steps + number) for number in range(8)])
        values, sizes = self.fixed | _kept(state), self.sizes
        _, spread = self.rebuild(values, pixels)
        if not config.decoder_only:
            scale = self.sizes.scaling_factor / float(spread)
            sizes = dataclasses.replace(sizes, scaling_factor=scale)
        shutil.rmtree(folder, ignore_errors=True)
        with atomic_directory(folder) as new:
            save_network(new / "vae.safetensors", self.layout.build(values))
            write_config(new, ModelConfig(networks={"vae": sizes}, sizes=Sizes(page=config.page)))
        self.console.print(f"-> {folder}", markup=False, soft_wrap=True)


def _sizes(config: AutoencoderConfig) -> VAEConfig:
    """Sizes of the network, with the latents' scale as far as it is known.

    Raises:
        FileNotFoundError, ValueError: `init` is no model folder, or of other sizes.
    """
    plain_sizes = dataclasses.replace(config.network, scaling_factor=1.0)
    if config.init is None:
        return plain_sizes
    found = read_config(config.init).networks.get("vae")
    if found is None or dataclasses.replace(found, scaling_factor=1.0) != plain_sizes:
        raise ValueError(
            f"{config.init}: an autoencoder is gone on from at its own sizes: expected "
            f"{config.network}, got {found}; name another --init, or change --network"
        )
    return found


def _first_parameters(config: AutoencoderConfig, sizes: VAEConfig, layout: Layout) -> Parameters:
    """Drawn, or read from `init`."""
    if config.init is None:
        return layout.take(VAE(sizes, rngs=nnx.Rngs(config.seed)))
    return layout.take(load_network(config.init, "vae", sizes))


def _kept(state: TrainState) -> Parameters:
    """The moving average."""
    assert state.average is not None, "always kept"
    return state.average


def signed(pixels: UInt8[Array | np.ndarray, "*s 3"]) -> Float[Array, "*s 3"]:
    """0..255 -> [-1, 1]."""
    return jnp.asarray(pixels, jnp.float32) / 127.5 - 1
