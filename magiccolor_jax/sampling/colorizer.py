"""The Python API: `Colorizer.from_pretrained(directory)(cases, seed=123)`.

Cases are read ahead on threads, grouped by page size into batches, and come back as they are done.
"""

import dataclasses
import functools
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from numbers import Integral
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Float, UInt8

from magiccolor_jax.checkpoint import ModelConfig, read_config
from magiccolor_jax.data.batches import Prepared, bucket_of, make_batch, pad_instances, stack
from magiccolor_jax.data.cases import read_case
from magiccolor_jax.data.transforms import restore_page
from magiccolor_jax.diffusion.samplers import MAX_STEPS, SAMPLERS, make_table
from magiccolor_jax.embedded import DEFAULT, model_folder
from magiccolor_jax.parallel.mesh import data_mesh
from magiccolor_jax.precision import Precision, for_inference
from magiccolor_jax.recipe import Finish, Recipe
from magiccolor_jax.sampling.finishing import Finished, finish
from magiccolor_jax.sampling.pipeline import threaded_map
from magiccolor_jax.sampling.pretrained import load_networks, load_null_contexts
from magiccolor_jax.sampling.sampler import Sampler
from magiccolor_jax.sampling.token_cache import TokenCache, launch_size
from magiccolor_jax.types import Batch, Case, TokenGrid

READ_AHEAD = 2
"""Batches of cases that are read while one is being coloured."""

WAITING = 4
"""Batches of cases that wait, over all page sizes, for their own batch to fill up."""

Report = Callable[[str, int, int], None]
"""Called with what is going on, how much of it is done, and of how much."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What a picture depends on besides the case and the model."""

    seed: int = 123
    """Every case starts from this seed's noise, whatever else is in its batch."""
    steps: int = 20
    """Denoising steps, 1..1000."""
    guidance: float = 3.5
    """Guidance scale, at least 0; 1 switches guidance off and halves the work."""
    sampler: str = "ddim"
    """`ddim` or `dpmpp_2m`."""

    def __post_init__(self):
        for name in ("seed", "steps"):
            _check_integer(name, getattr(self, name))
        if not 1 <= self.steps <= MAX_STEPS:
            raise ValueError(f"steps must be in 1..{MAX_STEPS}, got {self.steps}")
        if not 0 <= self.guidance < float("inf"):
            raise ValueError(f"guidance must be a number of at least 0, got {self.guidance}")
        if self.sampler not in SAMPLERS:
            raise ValueError(f"sampler must be one of {sorted(SAMPLERS)}, got {self.sampler!r}")
        if not 0 <= self.seed < 2**32:
            raise ValueError(f"seed must be in 0..2^32-1, got {self.seed}")


class Colored(NamedTuple):
    """One finished page."""

    index: int
    """Position of the case among those given."""
    picture: UInt8[np.ndarray, "H W 3"]
    """Coloured, at the sketch's own size."""
    notes: tuple[str, ...]
    """What was changed or left out on the way."""
    seconds: float
    """Time of its batch, shared out evenly."""
    finished: Finished | None = None
    """What the picture is laid from, where it was asked for and the recipe's `finish` lays it under
    the lines."""


class Failed(NamedTuple):
    """A case that could not be read, prepared or finished."""

    index: int
    error: Exception


class _Ready(NamedTuple):
    """A case that waits for its batch; pictures that it was read from are let go."""

    index: int
    prepared: Prepared
    page: Case | None = None
    """Its sketch and masks, where they are still needed."""


class Colorizer:
    """A loaded model."""

    def __init__(self, sampler: Sampler, config: ModelConfig, recipe: Recipe, precision: Precision):
        """Use `from_pretrained`."""
        self.sampler, self.config, self.recipe = sampler, config, recipe
        self.precision = precision
        self._tokens = TokenCache(sampler.encode_references, devices=sampler.devices)
        self._compiled: set[tuple] = set()

    @classmethod
    def from_pretrained(
        cls,
        directory: str | Path = DEFAULT,
        *,
        recipe: Recipe | str | dict[str, Any] | None = None,
        precision: str | None = None,
        finish: Finish | None = None,
        finish_reach: int | None = None,
        mesh: Mesh | None = None,
    ) -> "Colorizer":
        """Loads a model folder (made by `magiccolor convert`).

        Args:
            directory: or the name of an embedded model.
            recipe: overrides the one in config.json; a preset's name, or fields of it.
            precision: `float32` or `bfloat16`; default f32 on CPU, bf16 on accelerators.
            finish, finish_reach: override the recipe's.
            mesh: devices to use; default all of this process'.

        Raises:
            FileNotFoundError, ValueError: the folder is not a whole model, or does not suit the
                recipe.
        """
        directory, mesh = model_folder(directory), mesh or data_mesh()
        config = read_config(directory)
        recipe = config.recipe if recipe is None else recipe
        recipe = recipe if isinstance(recipe, Recipe) else Recipe.from_json(recipe)
        given = {"finish": finish, "finish_reach": finish_reach}
        given = {name: value for name, value in given.items() if value is not None}
        recipe = dataclasses.replace(recipe, **given)
        chosen = for_inference(precision)
        networks = load_networks(directory, config, recipe, chosen, mesh)
        nulls = load_null_contexts(directory, config, recipe)
        return cls(Sampler(networks, nulls, recipe, mesh), config, recipe, chosen)

    def settings(self, **given: Any) -> Settings:
        """Settings that suit the model, but for those that are given (None: not given).

        Raises:
            ValueError: one of them cannot be.
        """
        chosen = {name: value for name, value in given.items() if value is not None}
        return Settings(**(self.config.sampling._asdict() | chosen))

    def __call__(
        self,
        cases: Case | str | Path | Sequence[Case | str | Path],
        *,
        batch_size: int | None = None,
        report: Report | None = None,
        **settings,
    ) -> list[UInt8[np.ndarray, "H W 3"]]:
        """Colours cases and returns their pictures in order, each at its sketch's own size.

        Args:
            cases: one or several case folders, or cases from `read_case`.
            batch_size: cases per launch and device at most; default `default_batch_size()`.
            report: told what is going on, step by step.
            settings: fields of `Settings`: seed, steps, guidance, sampler; default what suits the
                model.

        Returns:
            A list, of one picture for one case.

        Raises:
            ValueError, OSError: a case is bad (`stream` goes on instead), or a setting is.
        """
        several = [cases] if isinstance(cases, (Case, str, Path)) else list(cases)
        pictures: dict[int, np.ndarray] = {}
        chosen = self.settings(**settings)
        for result in self.stream(several, chosen, batch_size=batch_size, report=report):
            if isinstance(result, Failed):
                raise result.error
            pictures[result.index] = result.picture
        return [pictures[index] for index in range(len(several))]

    def stream(
        self,
        cases: Iterable[Case | str | Path],
        settings: Settings,
        *,
        batch_size: int | None = None,
        report: Report | None = None,
        layers: bool = False,
    ) -> Iterator[Colored | Failed]:
        """Colours cases as they come; results in order of completion, bad cases as `Failed`.

        `cases` is read lazily, and memory holds a bounded number of them.

        Args:
            batch_size: cases per launch and device at most; default `default_batch_size()`.
            report: told what is going on, step by step; without it the device never waits.
            layers: results keep what their pictures are laid from (`Colored.finished`).

        Raises:
            ValueError: a setting does not suit the model; at once, before any case is read.
        """
        batch_size = default_batch_size() if batch_size is None else batch_size
        _check_integer("batch_size", batch_size)
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        if layers and self.recipe.finish == "network":
            raise ValueError(
                "layers are parts of a page that is laid under its lines: expected the recipe's "
                "finish 'lines' or 'lines_everywhere', got 'network' (--finish lines)"
            )
        make_table(settings.sampler, self.config.schedule, settings.steps)
        finished = self._stream(cases, settings, batch_size * self.sampler.devices, report)
        return finished if layers else map(_without_layers, finished)

    def _stream(
        self,
        cases: Iterable[Case | str | Path],
        settings: Settings,
        full: int,
        report: Report | None,
    ) -> Iterator[Colored | Failed]:
        """`stream` with its arguments checked; launches of `full` cases."""
        groups: dict[tuple[int, int], list[_Ready]] = defaultdict(list)
        prepare = functools.partial(self._prepare, seed=settings.seed)
        for ready in threaded_map(prepare, enumerate(cases), ahead=READ_AHEAD * full):
            if isinstance(ready, Failed):
                yield ready
                continue
            bucket = ready.prepared.fit.bucket
            groups[bucket].append(ready)
            if len(groups[bucket]) == full:
                yield from self._color(groups.pop(bucket), settings, report)
            elif sum(map(len, groups.values())) == WAITING * full:
                largest = max(groups, key=lambda key: len(groups[key]))
                yield from self._color(groups.pop(largest), settings, report)
        for group in groups.values():
            yield from self._color(group, settings, report)

    def _prepare(self, numbered: tuple[int, Case | str | Path], *, seed: int) -> _Ready | Failed:
        index, case = numbered
        try:
            read = case if isinstance(case, Case) else read_case(case)
            bucket = bucket_of(len(read.references))
            prepared = make_batch(read, self.recipe, self.config.sizes, bucket=bucket, seed=seed)
        except (ValueError, OSError, MemoryError, cv2.error) as error:
            return Failed(index, error)
        if self.recipe.finish == "network":
            return _Ready(index, prepared)
        page = read._replace(references=(), reference_masks=(), target=None)
        return _Ready(index, prepared, page)

    def _color(
        self, group: list[_Ready], settings: Settings, report: Report | None
    ) -> Iterator[Colored | Failed]:
        """One launch: cases of one page size, padded to a power of two per device."""
        started = time.perf_counter()
        count = launch_size(len(group), self.sampler.devices)
        padded = group + [group[-1]] * (count - len(group))
        bucket = max(len(ready.prepared.batch.valid[0]) for ready in group)
        batch = stack([pad_instances(ready.prepared.batch, bucket) for ready in padded])
        pixels = self._sample(batch, settings, report)
        seconds = (time.perf_counter() - started) / len(group)
        for ready, page in zip(group, pixels, strict=False):
            try:
                picture, finished = self._finished(_to_255(page), ready)
            except (MemoryError, cv2.error) as error:
                yield Failed(ready.index, error)
                continue
            yield Colored(ready.index, picture, ready.prepared.notes, seconds, finished)

    def _sample(
        self, batch: Batch, settings: Settings, report: Report | None
    ) -> Float[np.ndarray, "B H W 3"]:
        """Pictures in [-1, 1]."""
        (height, width), shape, steps = batch.sketch.shape[1:3], batch.valid.shape, settings.steps
        page = (height, width)
        guided = self.sampler.needs_guidance(settings.guidance)

        def tell(stage: str, shape: tuple, done: int) -> None:
            if report is not None:
                report(self._first(stage, shape), done, steps)

        tell("looking at the references", (), 0)
        tokens = self._token_grid(batch)
        draws = self.sampler.draw(
            np.full(shape[0], settings.seed, np.uint32), page, batch.canvas.shape[1]
        )
        tell("conditions", (page, shape, guided), 0)
        conditioning = self.sampler.condition(batch, tokens, draws, guided=guided)
        if report is not None:
            jax.block_until_ready(conditioning)
        tell("denoising", (page, shape[0], guided), 0)
        latents = self.sampler.denoise(
            conditioning,
            draws.noise,
            make_table(settings.sampler, self.config.schedule, steps),
            settings.guidance,
            on_step=None if report is None else lambda done: report("denoising", done, steps),
        )
        tell("decoding", (page, shape[0]), steps)
        return np.asarray(self.sampler.decode(latents))

    def _first(self, stage: str, shape: tuple) -> str:
        """The stage's name, with a word of warning where a program is compiled for it first."""
        if (stage, shape) in self._compiled:
            return stage
        self._compiled.add((stage, shape))
        return f"compiling: {stage}"

    def _token_grid(self, batch: Batch) -> TokenGrid:
        """DINOv2 features of the references that count; zeros elsewhere."""
        cases, instances = batch.valid.shape
        where = [(b, k) for b in range(cases) for k in range(instances) if batch.valid[b, k]]
        pixels = np.asarray(batch.reference_pixels)
        found = self._tokens.features([pixels[at] for at in where])
        width, grid = self.sampler.token_shape(pixels.shape[2])
        cls = np.zeros((cases, instances, width), np.float32)
        patches = np.zeros((cases, instances, grid, grid, width), np.float32)
        for at, (one, many) in zip(where, found, strict=True):
            cls[at], patches[at] = one, many
        return TokenGrid(cls, patches)

    def _finished(
        self, page: Float[np.ndarray, "h w 3"], ready: _Ready
    ) -> tuple[np.ndarray, Finished | None]:
        """A page at its sketch's size (recipe `finish`): [H W 3], 8 bits."""
        fit, case = ready.prepared.fit, ready.page
        if case is None:
            return self._quantise(restore_page(page, fit)), None
        whole = self.recipe.finish == "lines_everywhere"
        done = finish(page, case.sketch, case.sketch_masks, fit, self.recipe, whole=whole)
        return done.picture, done

    def _quantise(self, picture: Float[np.ndarray, "H W 3"]) -> UInt8[np.ndarray, "H W 3"]:
        """0..255 floats -> bytes (recipe `quantise`)."""
        if self.recipe.quantise == "round":
            picture = np.rint(picture)
        return np.clip(picture, 0, 255).astype(np.uint8)


def _without_layers(result: Colored | Failed) -> Colored | Failed:
    """Finished pages wait to be written: their parts take four times as much memory."""
    return result if isinstance(result, Failed) else result._replace(finished=None)


def _check_integer(name: str, value: Any) -> None:
    """Raises ValueError for what only looks like a whole number."""
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise ValueError(f"{name} must be a whole number, got {value!r}")


def default_batch_size() -> int:
    """1 on CPU, where a batch only delays its first picture; else 4."""
    return 1 if jax.default_backend() == "cpu" else 4


def _to_255(pixels: Float[np.ndarray, "H W 3"]) -> Float[np.ndarray, "H W 3"]:
    """[-1, 1] -> [0, 255]."""
    return (pixels.astype(np.float32) + 1) * 127.5
