"""What a training starts from: sizes, first parameters, and the networks that stay as they are."""

import dataclasses
import functools
import re
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, Sharding
from jaxtyping import Array

from magiccolor_jax.checkpoint import ModelConfig, load_network, parameter_shapes
from magiccolor_jax.conditioning.assemble import Encoders, uses_clip, uses_reference
from magiccolor_jax.losses.objective import Frozen
from magiccolor_jax.models.blocks import BlocksConfig
from magiccolor_jax.models.context import ContextConfig
from magiccolor_jax.models.controlnet import ControlNetConfig
from magiccolor_jax.models.magiccolor import MagicColorConfig
from magiccolor_jax.models.unet import UNetConfig
from magiccolor_jax.nn.remat import Remat
from magiccolor_jax.parallel.mesh import replicated
from magiccolor_jax.precision import Precision
from magiccolor_jax.recipe import Recipe
from magiccolor_jax.sampling.pretrained import load_dinov2, load_null_contexts, with_precision
from magiccolor_jax.tensorfile import TensorFile
from magiccolor_jax.training.parameters import Parameters
from magiccolor_jax.training.stages import Stage
from magiccolor_jax.trees import decide

RANDOM = "random"

LACKED = {
    UNetConfig: re.compile(
        r"(controlnet_cond_embedding|controlnet_down_blocks|controlnet_mid_block|dino_adapter)/.*"
    ),
    ControlNetConfig: re.compile(r"dino_adapter/.*"),
}
"""What a guider has and its origin does not: drawn."""

INITIALISERS = (
    (r".*_guider/(controlnet_down_blocks|controlnet_mid_block)/.*", "zeros"),
    (r".*_guider/controlnet_cond_embedding/conv_out/.*", "zeros"),
    (r".*/kernel", "lecun_normal"),
    (r".*/scale", "ones"),
    (r".*/bias", "zeros"),
)
"""Regex over a path -> how a drawn parameter begins; the first full match counts. Guiders begin
with no effect (arXiv:2302.05543), all else as Flax's own layers do."""


class Stored(NamedTuple):
    """Where a parameter's first value lies."""

    file: Path
    key: str


def network_names(recipe: Recipe, stage: Stage) -> list[str]:
    """The networks of the model that a stage works with."""
    wanted = {
        "denoiser": True,
        "reference": uses_reference(recipe),
        "sketch_guider": True,
        "instance_guider": stage.instance_guider,
        "context": not uses_clip(recipe),
        "dinov2": stage.encoder,
    }
    return [name for name, yes in wanted.items() if yes]


def chosen_origins(stage: Stage, names: Iterable[str], source: ModelConfig) -> dict[str, str]:
    """Network -> what it starts from: of several, the first that the folder has.

    Args:
        source: what the folder's config.json says.

    Raises:
        ValueError: the stage says nothing about a network.
    """
    found = {}
    for name, text in decide(stage.origins, list(names), f"{stage.name}: origins").items():
        several = text.split("|")
        found[name] = next((each for each in several if each in source.networks), several[0])
    return found


def model_config(
    folder: Path, source: ModelConfig, recipe: Recipe, stage: Stage
) -> MagicColorConfig:
    """Sizes of the model: the folder's own of that name, else those of its origin.

    Raises:
        ValueError: the folder says nothing about a network's size.
    """
    names = network_names(recipe, stage)
    origins = chosen_origins(stage, names, source)
    sizes: dict[str, Any] = dict.fromkeys(("reference", "instance_guider", "context", "dinov2"))
    dino = source.networks["dinov2"].hidden_size
    for name in names:
        given = source.networks.get(name) or source.networks.get(origins[name])
        if name == "context":
            width = sizes["denoiser"].context
            given = given or ContextConfig(inputs=dino, hidden=dino, outputs=width)
        if given is None:
            raise ValueError(
                f"{folder}: {stage.name} starts {name} from {origins[name]!r}: expected "
                f"config.json to name it, got {sorted(source.networks)}; convert a folder that has "
                "it, or choose another origin (--stage.origins)"
            )
        sizes[name] = _as_role(name, given, dino, sizes.get("sketch_guider"))
    return MagicColorConfig(**sizes)


def _as_role(name: str, given: Any, dino: int, sketch: ControlNetConfig | None) -> Any:
    """A network's sizes in the role called `name`.

    Args:
        sketch: the other guider, whose hint embedding gives the widths of one made from a UNet.
    """
    if name == "reference":
        return dataclasses.replace(given, head=False)
    if not name.endswith("_guider"):
        return given
    if isinstance(given, UNetConfig):
        shared = {f.name for f in dataclasses.fields(BlocksConfig)}
        values = {key: getattr(given, key) for key in shared}
        if sketch is not None:
            values["embedding_channels"] = sketch.embedding_channels
        given = ControlNetConfig(**values)
    if name == "instance_guider":
        return dataclasses.replace(given, conditioning_channels=dino, adapter=True)
    return given


def find_origins(
    folder: Path, source: ModelConfig, stage: Stage, shapes: dict[str, tuple[int, ...]]
) -> dict[str, Stored]:
    """Path -> where its first value lies; paths that are left out are drawn.

    Args:
        source: what the folder's config.json says.
        shapes: of the model's parameters, by path.

    Raises:
        FileNotFoundError: an origin's file is missing.
        ValueError: one report of what the files lack or have in another shape.
    """
    names = sorted({path.split("/", 1)[0] for path in shapes})
    origins = chosen_origins(stage, names, source)
    found, report = {}, []
    for name in names:
        if origins[name] == RANDOM:
            continue
        file = folder / f"{origins[name]}.safetensors"
        if not file.is_file():
            raise FileNotFoundError(
                f"{file}: {stage.name} starts {name} from it: convert a folder that has it, or "
                "choose another origin (--stage.origins)"
            )
        specs = TensorFile(file).specs
        lacked = LACKED.get(type(source.networks.get(origins[name])))
        for path in (p for p in shapes if p.startswith(f"{name}/")):
            key = path.split("/", 1)[1]
            got = specs[key].shape if key in specs else None
            if got == shapes[path]:
                found[path] = Stored(file, key)
            elif got is not None or lacked is None or not lacked.fullmatch(key):
                report.append(
                    f"  {path}: expected {shapes[path]} in {file}, got {got or 'nothing'}"
                )
    if report:
        raise ValueError(f"{stage.name}: origins do not fit the model:\n" + "\n".join(report))
    return found


def first_parameters(
    shapes: Mapping[str, tuple[int, ...]],
    stored: Mapping[str, Stored],
    shardings: Mapping[str, Sharding],
    dtype: Any,
    seed: int,
) -> Parameters:
    """Parameters, each born where it lies: read in parts, or drawn; the same on any devices.

    Args:
        shapes: of the parameters that are wanted, by path.
        dtype: of all of them.
    """
    files = {file: TensorFile(file) for file in {place.file for place in stored.values()}}
    kinds = decide(INITIALISERS, [path for path in shapes if path not in stored], "initialisers")

    def read(path: str) -> Array:
        tensor = files[stored[path].file].mapped(stored[path].key)
        return jax.make_array_from_callback(
            tensor.shape, shardings[path], lambda part: np.array(tensor[part]).astype(dtype)
        )

    def draw(path: str) -> Array:
        key = jax.random.fold_in(jax.random.key(seed), zlib.crc32(path.encode()))
        program = _drawing(kinds[path], shapes[path], jnp.dtype(dtype), shardings[path])
        return program(key)

    return {path: read(path) if path in stored else draw(path) for path in shapes}


@functools.cache
def _drawing(kind: str, shape: tuple[int, ...], dtype: Any, sharding: Sharding) -> Any:
    """The program that draws one parameter; many have the same shape."""

    made = {
        "zeros": jax.nn.initializers.zeros,
        "ones": jax.nn.initializers.ones,
        "lecun_normal": jax.nn.initializers.lecun_normal(),
    }[kind]
    return jax.jit(lambda key: made(key, shape, jnp.float32).astype(dtype), out_shardings=sharding)


FROZEN_NETWORKS = {"vae": "vae", "clip": "clip_vision", "dinov2": "dinov2", "vgg": "vgg19"}
"""Role in training -> file of the model folder."""


def frozen_names(recipe: Recipe, stage: Stage) -> dict[str, str]:
    """Which frozen networks a training reads: role -> file."""
    wanted = {
        "clip": uses_clip(recipe),
        "dinov2": not stage.encoder,
        "vgg": stage.losses.needs_vgg,
    }
    return {role: file for role, file in FROZEN_NETWORKS.items() if wanted.get(role, True)}


def check_frozen(folder: Path, source: ModelConfig, recipe: Recipe, stage: Stage) -> None:
    """Raises ValueError where config.json lacks a frozen network that a training reads."""
    names = frozen_names(recipe, stage)
    if missing := [file for file in names.values() if file not in source.networks]:
        raise ValueError(
            f"{folder}: this training reads {sorted(names.values())}, but config.json lacks "
            f"{missing}: convert a folder that has them (vgg19-*.pth lies beside the others), or "
            "switch off what needs them (--stage.losses.perceptual 0)"
        )


def load_frozen(
    folder: Path,
    source: ModelConfig,
    recipe: Recipe,
    stage: Stage,
    precision: Precision,
    remat: Remat,
    mesh: Mesh,
) -> Frozen:
    """The networks that training reads, a copy on every device.

    Raises:
        FileNotFoundError, ValueError: a file is missing, or does not fit.
    """
    check_frozen(folder, source, recipe, stage)
    names = frozen_names(recipe, stage)

    def load(role: str) -> Any:
        cfg = with_precision(source.networks[names[role]], precision)
        if role == "vae":
            cfg = dataclasses.replace(cfg, remat=remat)
        if role == "dinov2":
            return load_dinov2(folder, cfg, recipe, sharding=replicated(mesh))
        return load_network(folder, names[role], cfg, sharding=replicated(mesh))

    nets = {role: load(role) for role in names}
    nulls = load_null_contexts(folder, source, recipe)
    encoders = Encoders(nets["vae"], nets.get("clip"))
    return Frozen(encoders, nets.get("dinov2"), nulls, nets.get("vgg"))


def model_shapes(cfg: MagicColorConfig) -> dict[str, tuple[int, ...]]:
    """Path -> shape of every parameter of the model."""
    return {
        f"{field.name}/{path}": shape
        for field in dataclasses.fields(cfg)
        if getattr(cfg, field.name) is not None
        for path, shape in parameter_shapes(getattr(cfg, field.name)).items()
    }
