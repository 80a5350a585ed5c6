"""A model's folder: config.json and one safetensors file per network.

config.json                format, recipe, sizes, schedule, and every network's sizes
denoiser.safetensors ...   parameters by our paths (`down_blocks/0/resnets/0/conv1/kernel`)
init/*.safetensors         what trainings start from, never loaded for inference
manifest.json              where everything came from (converters)
extra.safetensors          tensors of the source that no network uses (converters)
"""

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import nnx

from magiccolor_jax.diffusion.samplers import SAMPLERS
from magiccolor_jax.diffusion.schedule import Schedule
from magiccolor_jax.encoders.clip import CLIPText, CLIPVision
from magiccolor_jax.encoders.clip_config import CLIPTextConfig, CLIPVisionConfig
from magiccolor_jax.encoders.dinov2 import DINOv2
from magiccolor_jax.encoders.dinov2_config import DINOv2Config
from magiccolor_jax.encoders.inception import Inception, InceptionConfig
from magiccolor_jax.encoders.lpips import LPIPS, LPIPSConfig
from magiccolor_jax.encoders.vae import VAE, VAEConfig
from magiccolor_jax.encoders.vgg import VGG19, VGG19Config
from magiccolor_jax.files import atomic_file
from magiccolor_jax.lineart.anime2sketch import Anime2Sketch, Anime2SketchConfig
from magiccolor_jax.lineart.informative_drawings import (
    InformativeDrawings,
    InformativeDrawingsConfig,
)
from magiccolor_jax.lineart.sketch_keras import SketchKeras, SketchKerasConfig
from magiccolor_jax.models.context import ContextConfig, ContextEncoder
from magiccolor_jax.models.controlnet import ControlNet, ControlNetConfig
from magiccolor_jax.models.unet import UNet, UNetConfig
from magiccolor_jax.nn.abstract import abstract
from magiccolor_jax.recipe import Recipe
from magiccolor_jax.segment.sam import SAM
from magiccolor_jax.segment.sam_config import SAMConfig
from magiccolor_jax.tensorfile import TensorFile, TensorFileWriter, TensorSpec
from magiccolor_jax.types import Sizes

FORMAT, FORMAT_VERSION = "magiccolor_jax", 1
CONFIG_NAME = "config.json"
KINDS: dict[str, tuple[type, type[nnx.Module]]] = {
    "unet": (UNetConfig, UNet),
    "controlnet": (ControlNetConfig, ControlNet),
    "context": (ContextConfig, ContextEncoder),
    "vae": (VAEConfig, VAE),
    "clip_vision": (CLIPVisionConfig, CLIPVision),
    "clip_text": (CLIPTextConfig, CLIPText),
    "dinov2": (DINOv2Config, DINOv2),
    "vgg19": (VGG19Config, VGG19),
    "lpips": (LPIPSConfig, LPIPS),
    "inception": (InceptionConfig, Inception),
    "sam": (SAMConfig, SAM),
    "anime2sketch": (Anime2SketchConfig, Anime2Sketch),
    "sketch_keras": (SketchKerasConfig, SketchKeras),
    "informative_drawings": (InformativeDrawingsConfig, InformativeDrawings),
}
"""Name in config.json -> config and module of a network."""

RUNTIME_FIELDS = {"dtype", "param_dtype", "remat"}
"""Config fields that say how to run a network, not what it is: left out of config.json."""


class SamplingDefaults(NamedTuple):
    """How a model is sampled where nothing else is asked for."""

    steps: int = 20
    """Denoising steps."""
    guidance: float = 3.5
    """Guidance scale."""
    sampler: str = "ddim"
    """`ddim` or `dpmpp_2m`."""


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Everything that config.json says."""

    networks: dict[str, Any]
    """File stem (`denoiser`, `init/unet`) -> the network's config."""
    recipe: Recipe = field(default_factory=Recipe.paper)
    """The recipe that the weights were trained for; `--recipe` overrides it."""
    sizes: Sizes = Sizes()
    """Picture sizes that the model works at."""
    schedule: Schedule = field(default_factory=Schedule.sd15)
    """Noise schedule."""
    sampling: SamplingDefaults = SamplingDefaults()
    """What suits the model; folders that were written without it have the defaults."""

    def to_json(self) -> dict[str, Any]:
        """The content of config.json."""
        return {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "recipe": self.recipe.to_json(),
            "sizes": self.sizes._asdict(),
            "schedule": dataclasses.asdict(self.schedule),
            "sampling": self.sampling._asdict(),
            "networks": {name: network_to_json(cfg) for name, cfg in self.networks.items()},
        }


def network_to_json(cfg: Any) -> dict[str, Any]:
    """A network's config as JSON: its kind and every field that says what it is."""
    kind = next(name for name, (config, _) in KINDS.items() if type(cfg) is config)
    fields = {k: v for k, v in dataclasses.asdict(cfg).items() if k not in RUNTIME_FIELDS}
    return {"kind": kind, **fields}


def network_from_json(value: dict[str, Any], where: str) -> Any:
    """The inverse of `network_to_json`.

    Raises:
        ValueError: an unknown kind, or fields that are not exactly the config's.
    """
    kind = value.get("kind")
    if kind not in KINDS:
        raise ValueError(f"{where}: network kind must be one of {sorted(KINDS)}, got {kind!r}")
    config = KINDS[kind][0]
    known = {f.name for f in dataclasses.fields(config)} - RUNTIME_FIELDS
    given = set(value) - {"kind"}
    if given != known:
        raise ValueError(
            f"{where}: fields of a {kind} must be exactly {sorted(known)}; missing "
            f"{sorted(known - given)}, unknown {sorted(given - known)}: the folder was written by "
            "another version, convert the source again"
        )
    return config(**{k: _as_tuple(value[k]) for k in known})


def _as_tuple(value: Any) -> Any:
    """JSON's lists are the configs' tuples."""
    return tuple(map(_as_tuple, value)) if isinstance(value, list) else value


def write_config(directory: Path, config: ModelConfig) -> None:
    """Writes config.json atomically."""
    with atomic_file(directory / CONFIG_NAME) as temporary:
        temporary.write_text(json.dumps(config.to_json(), indent=2) + "\n")


def read_config(directory: Path) -> ModelConfig:
    """Reads config.json.

    Raises:
        FileNotFoundError: the folder or its config.json does not exist.
        ValueError: it is not a model's, or of another version, or a field does not fit.
    """
    path = directory / CONFIG_NAME
    if not path.is_file():
        raise FileNotFoundError(
            f"{path}: a model folder must hold {CONFIG_NAME}; make one with "
            "`magiccolor convert RELEASE_FOLDER MODEL_FOLDER`"
        )
    try:
        content = json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(f"{path}: must be JSON: {error}") from None
    return config_from_json(content, path)


def config_from_json(content: Any, path: Path) -> ModelConfig:
    """The inverse of `ModelConfig.to_json`.

    Args:
        path: where it was found, for messages.

    Raises:
        ValueError: it is not a model's, or of another version, or a field does not fit.
    """
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise ValueError(
            f"{path}: expected a {FORMAT} model, got another config (a PyTorch folder?): run "
            "`magiccolor convert` on it first"
        )
    if content.get("format_version") != FORMAT_VERSION:
        raise ValueError(
            f"{path}: format_version must be {FORMAT_VERSION}, got "
            f"{content.get('format_version')}: convert the source again"
        )
    try:
        networks = content["networks"].items()
        recipe, schedule = _choices(content, path)
        return ModelConfig(
            networks={name: network_from_json(v, f"{path}: {name}") for name, v in networks},
            recipe=recipe,
            sizes=_sizes(content["sizes"], path),
            schedule=schedule,
            sampling=_sampling(content.get("sampling", {}), path),
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{path}: expected networks, recipe, sizes and schedule as `magiccolor convert` writes "
            f"them, got {type(error).__name__}: {error}; undo the edit or convert the source again"
        ) from None


def _choices(content: dict[str, Any], path: Path) -> tuple[Recipe, Schedule]:
    try:
        return Recipe.from_json(content["recipe"]), Schedule(**content["schedule"])
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def _sizes(content: dict[str, Any], path: Path) -> Sizes:
    sizes = Sizes(**content)
    if wrong := {k: v for k, v in content.items() if type(v) is not int or v < 1}:
        raise ValueError(f"{path}: sizes must be whole numbers of pixels, at least 1: got {wrong}")
    return sizes


def _sampling(content: dict[str, Any], path: Path) -> SamplingDefaults:
    sampling = SamplingDefaults(**content)
    steps, guidance, sampler = sampling
    if (
        type(steps) is not int
        or steps < 1
        or type(guidance) not in (int, float)
        or sampler not in SAMPLERS
    ):
        raise ValueError(
            f"{path}: sampling must have steps of at least 1, a number as guidance, and a sampler "
            f"of {', '.join(SAMPLERS)}: got {content}"
        )
    return sampling


def parameter_shapes(cfg: Any) -> dict[str, tuple[int, ...]]:
    """Path -> shape of every parameter of a network, from its config; allocates nothing."""
    return {path: leaf.shape for path, leaf in flat_parameters(_abstract(cfg)).items()}


def _abstract(cfg: Any) -> nnx.Module:
    module = next(module for config, module in KINDS.values() if type(cfg) is config)
    return abstract(module, cfg)


def flat_parameters(module: nnx.Module) -> dict[str, nnx.Param]:
    """Path -> parameter of a network."""
    state = nnx.to_flat_state(nnx.state(module, nnx.Param))
    return {"/".join(map(str, path)): leaf for path, leaf in state}


def save_network(path: Path, module: nnx.Module) -> None:
    """Writes a network's parameters atomically, one tensor at a time."""
    flat = flat_parameters(module)
    specs = {k: TensorSpec(np.dtype(v.dtype), v.shape) for k, v in flat.items()}
    with atomic_file(path) as temporary, TensorFileWriter(temporary, specs) as writer:
        for key, leaf in flat.items():
            writer.write(key, np.asarray(leaf.get_value()))


def load_network(
    directory: Path, name: str, cfg: Any, *, sharding: jax.sharding.Sharding | None = None
) -> nnx.Module:
    """Builds a network with the parameters of `directory/name.safetensors`.

    Args:
        cfg: the network's config; parameters are cast to its `param_dtype`.
        sharding: where every parameter goes; default the first device.

    Raises:
        FileNotFoundError, ValueError: as `fill_network`.
    """
    module = _abstract(cfg)
    fill_network(module, directory / f"{name}.safetensors", sharding=sharding)
    return module


def fill_network(
    module: nnx.Module, path: Path, *, sharding: jax.sharding.Sharding | None = None
) -> None:
    """Gives an abstract network its parameters, in place.

    Nothing is initialised, and each device reads only its own part of each tensor.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: one report of every missing, misshapen and unexpected tensor.
    """
    if not path.is_file():
        raise FileNotFoundError(
            f"{path}: config.json names this network, but its file is missing: convert the source "
            "again"
        )
    file = TensorFile(path)
    sharding = sharding or jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    state = nnx.state(module, nnx.Param)
    leaves = {"/".join(map(str, p)): leaf for p, leaf in nnx.to_flat_state(state)}
    _check_fit(path, {k: v.shape for k, v in leaves.items()}, file.specs)
    for key, leaf in leaves.items():
        tensor, dtype = file.mapped(key), leaf.dtype
        value = jax.make_array_from_callback(
            leaf.shape, sharding, lambda part, t=tensor, d=dtype: np.array(t[part], d)
        )
        leaf.set_value(value)
    nnx.update(module, state)


def check_weights(directory: Path, config: ModelConfig) -> None:
    """Compares every file of weights with config.json; reads headers only.

    Raises:
        ValueError: one report of every missing, misshapen and unexpected tensor of all files.
    """
    problems = []
    for name, cfg in config.networks.items():
        try:
            path = directory / f"{name}.safetensors"
            _check_fit(path, parameter_shapes(cfg), TensorFile(path).specs)
        except ValueError as error:
            problems.append(str(error))
    if problems:
        raise ValueError("\n".join(problems))


def _check_fit(
    path: Path, wanted: dict[str, tuple[int, ...]], found: dict[str, TensorSpec]
) -> None:
    """Raises ValueError with every difference between the parameters and the file."""
    report = [f"  missing     {key} {wanted[key]}" for key in wanted if key not in found]
    report += [
        f"  shape       {key}: expected {wanted[key]}, got {spec.shape}"
        if key in wanted
        else f"  unexpected  {key} {spec.shape}"
        for key, spec in found.items()
        if key not in wanted or wanted[key] != spec.shape
    ]
    if report:
        raise ValueError(f"{path}: does not fit config.json:\n" + "\n".join(report))
