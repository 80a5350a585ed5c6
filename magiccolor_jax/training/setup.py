"""Everything between a config and the first step: folder, sizes, data, parameters, state."""

import dataclasses
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NamedTuple

from jax.sharding import Mesh

from magiccolor_jax.checkpoint import ModelConfig
from magiccolor_jax.data.listing import digest
from magiccolor_jax.data.loader import Sampling
from magiccolor_jax.data.plan import Plan
from magiccolor_jax.data.samples import Maker, Play
from magiccolor_jax.data.sources import Concatenation, open_source
from magiccolor_jax.losses.objective import Frozen
from magiccolor_jax.parallel.sharding import imagined_mesh, train_mesh
from magiccolor_jax.precision import for_inference
from magiccolor_jax.recipe import AFTERWARDS
from magiccolor_jax.sampling.pretrained import TRAINABLE
from magiccolor_jax.training.checkpoints import Checkpoints, Position
from magiccolor_jax.training.config import TrainConfig
from magiccolor_jax.training.export import is_run, source_config, start_folder, stored_fixed
from magiccolor_jax.training.initial import (
    check_frozen,
    chosen_origins,
    find_origins,
    first_parameters,
    load_frozen,
    model_config,
    network_names,
)
from magiccolor_jax.training.program import Design, Program, begin
from magiccolor_jax.training.step import TrainState

Doing = Callable[[str], AbstractContextManager[Any]]
"""Says what is going on while the block runs."""


class Start(NamedTuple):
    """A training that has not allocated anything yet."""

    source: ModelConfig
    """What the folder that it starts from says."""
    design: Design


def plan_training(config: TrainConfig, *, imagined: bool = False) -> Start:
    """Reads what the starting folder says and lays out the training; reads no weights.

    Args:
        imagined: the mesh is of devices that may not be here.

    Raises:
        FileNotFoundError, ValueError: the folder, the mesh or the stage does not fit.
    """
    mesh = imagined_mesh(config.mesh) if imagined else train_mesh(config.mesh)
    source = source_config(config.init)
    if config.page is not None:
        sizes = source.sizes._replace(page=config.page, canvas=config.page)
        source = dataclasses.replace(source, sizes=sizes)
    check_frozen(config.init, source, config.recipe, config.stage)
    sizes = model_config(config.init, source, config.recipe, config.stage)
    return Start(source, Design(config, sizes, source.schedule, mesh))


def trained_model(start: Start) -> ModelConfig:
    """What the trained model's config.json says: its own networks, and the frozen ones."""
    sizes = start.design.sizes
    networks = {
        field.name: getattr(sizes, field.name)
        for field in dataclasses.fields(sizes)
        if getattr(sizes, field.name) is not None
    }
    others = {
        name: cfg
        for name, cfg in start.source.networks.items()
        if name not in (*TRAINABLE, *networks) and not name.startswith("init/")
    }
    recipe = start.design.config.recipe
    return dataclasses.replace(start.source, networks=networks | others, recipe=recipe)


def training_data(start: Start) -> Sampling:
    """The training's own samples.

    Raises:
        ValueError: no source, or one that holds nothing.
    """
    config = start.design.config
    if not config.data.sources:
        raise ValueError(
            "training: data.sources must name at least one folder, such as "
            "--data.sources cases:FOLDER"
        )
    return _sampling(start, config.data.sources, config.data.play, config.seed)


def data_fingerprint(data: Sampling) -> str:
    """Tells trainings apart that see other samples: by scenes and their order, what happens to
    them, and the plan."""
    maker = data.maker
    words = maker.play, maker.recipe.of_training(), maker.sizes, maker.instances
    return digest([data.plan.fingerprint(), data.source.fingerprint(), *words])


def held_out_data(start: Start, training: Sampling) -> Sampling:
    """Samples to measure and to look at: of the validation sources, else of the training's; never
    recoloured, always the same.

    Args:
        training: the training's own.
    """
    data = start.design.config.data
    if data.validation:
        return _sampling(start, data.validation, data.play.calm(), 0)
    plan = Plan(training.plan.scene_shapes, training.plan.batch, 0)
    return Sampling(training.source, plan, _maker(start, data.play.calm()), 0)


def _sampling(start: Start, sources: tuple[str, ...], play: Play, seed: int) -> Sampling:
    source = Concatenation([open_source(text) for text in sources])
    return Sampling.of(source, _maker(start, play), start.design.config.batch, seed)


def _maker(start: Start, play: Play) -> Maker:
    config = start.design.config
    return Maker(play, config.recipe, start.source.sizes, instances=config.stage.instances)


def origins_text(start: Start) -> str:
    """Which weights each network starts from."""
    config = start.design.config
    names = network_names(config.recipe, config.stage)
    found = chosen_origins(config.stage, names, start.source)
    return ", ".join(f"{name} from {origin}" for name, origin in found.items())


def recipe_changes(start: Start) -> list[str]:
    """The recipe's fields that differ from those of the run that this one goes on from."""
    config = start.design.config
    if not is_run(config.init):
        return []
    before, now = start.source.recipe, config.recipe
    return [
        f"{field.name} {getattr(before, field.name)} -> {getattr(now, field.name)}"
        for field in dataclasses.fields(now)
        if field.name not in AFTERWARDS and getattr(before, field.name) != getattr(now, field.name)
    ]


class Ready(NamedTuple):
    """A training that can step."""

    folder: Path
    """Model folder that it started from."""
    program: Program
    state: TrainState
    position: Position


def make_ready(
    start: Start, checkpoints: Checkpoints, fingerprint: str, began: str | None, doing: Doing
) -> Ready:
    """Loads or draws parameters, loads the frozen networks, restores the newest checkpoint.

    Args:
        fingerprint: of the data's plan.
        began: model folder that an earlier part of the run began with.

    Raises:
        FileNotFoundError, ValueError: something does not fit.
    """
    design = start.design
    config = design.config
    newest = checkpoints.latest()
    if newest is not None and newest > config.steps:
        raise ValueError(
            f"{checkpoints.folder}/{newest}: expected at most --steps {config.steps}, got a "
            "checkpoint beyond them; give as many steps, or begin another run with --init this one"
        )
    with doing("looking at the start"):
        goes_on = newest is not None and began is not None and Path(began).is_dir()
        folder = Path(str(began)) if goes_on else start_folder(config.init)
    shapes = {path: leaf.shape for path, leaf in design.parameters.items()}
    wanted = design.parameter_shardings()
    if newest is None:
        stored = find_origins(folder, start.source, config.stage, shapes)
    else:  # what is trained comes from the checkpoint, all else as its first part found it
        wanted = {path: place for path, place in wanted.items() if path in design.fixed}
        stored = stored_fixed(config.out, wanted)
    with doing("loading parameters"):
        dtype = design.precision.param_dtype
        values = first_parameters(
            {path: shapes[path] for path in wanted}, stored, wanted, dtype, config.seed
        )
    with doing("loading frozen networks"):
        frozen = _load_frozen(start, folder)
    program = Program(design, {path: values[path] for path in design.fixed}, frozen)
    if newest is None:
        state = begin(design, {path: values[path] for path in design.trainable})
        return Ready(folder, program, state, Position(0, fingerprint))
    with doing(f"restoring checkpoint {newest}"):
        state, position = checkpoints.restore(newest, design.state, design.shardings)
    if position.plan != fingerprint:
        raise ValueError(
            f"{checkpoints.folder}/{newest}: a run goes on with the data that it began with: "
            f"expected plan {position.plan}, got {fingerprint} (other scenes, play, recipe, batch, "
            "seed or sizes); restore them, or begin another run with --init this one"
        )
    return Ready(folder, program, state, position)


def _load_frozen(start: Start, folder: Path) -> Frozen:
    config, mesh = start.design.config, start.design.mesh
    assert isinstance(mesh, Mesh), "an imagined mesh trains nothing"
    compute, model = for_inference(config.precision), trained_model(start)
    return load_frozen(folder, model, config.recipe, config.stage, compute, config.remat, mesh)
