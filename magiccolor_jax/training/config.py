"""Everything that a training is told: presets are values of it (configs/), flags override them."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from magiccolor_jax.data.loader import DataConfig
from magiccolor_jax.nn.remat import Remat
from magiccolor_jax.recipe import Recipe
from magiccolor_jax.training.optim import OptimConfig
from magiccolor_jax.training.stages import Stage, stage1
from magiccolor_jax.types import PAGE_MULTIPLE


@dataclass(frozen=True, kw_only=True)
class SaveConfig:
    """When the train state is saved, and what is kept."""

    every: int = 1000
    """Steps between checkpoints; one more is made at the end and on SIGTERM."""
    keep: int = 3
    """Newest checkpoints that are kept; the best one is kept beside them."""

    def __post_init__(self):
        _positive(self, "every", "keep")


@dataclass(frozen=True, kw_only=True)
class ReportConfig:
    """What a training says of itself."""

    every: int = 50
    """Steps between lines in the terminal, metrics.jsonl and TensorBoard."""
    preview_every: int = 1000
    """Steps between preview pictures, from before the first step on; 0: none."""
    previews: int = 4
    """Pages on a preview: of the validation sources, else of the training's."""
    preview_steps: int = 20
    """Denoising steps of a preview."""
    guidance: float = 3.5
    """Guidance scale of a preview."""
    validate_every: int = 1000
    """Steps between validations, beside those that go before a checkpoint; only with validation
    sources."""
    validation_batches: int = 8
    """Batches of a validation; always the same, with the same noise."""
    profile: tuple[int, int] | None = None
    """First and last step of a profiler trace, written to RUN/profile for TensorBoard."""

    def __post_init__(self):
        _positive(self, "every", "previews", "preview_steps", "validate_every")
        _positive(self, "validation_batches")
        if self.preview_every < 0:
            raise ValueError(
                f"ReportConfig: preview_every must be at least 0, got {self.preview_every}"
            )
        if self.profile is not None and not 1 <= self.profile[0] <= self.profile[1]:
            raise ValueError(
                f"ReportConfig: profile must be two steps, 1 <= first <= last, got {self.profile}"
            )


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Train one stage.

    The run's folder gets checkpoints/, metrics.jsonl, TensorBoard events, previews/ and run.json.
    The same command goes on where an earlier one ended, wherever that was. Exit code 0: done,
    1: failed, 75: preempted, run it again.
    """

    out: Path
    """Folder of this run; all processes must see the same one, mounted."""
    init: Path
    """Model folder to start from (made by `magiccolor convert`), or `tiny`, the embedded one, or
    the folder of another run, whose last checkpoint is taken: stage 2 goes on from stage 1's."""
    stage: Stage = field(default_factory=stage1)
    """What is trained, and against which losses."""
    recipe: Recipe = field(default_factory=Recipe.paper)
    """What the networks are shown; written into the trained model."""
    page: int | None = None
    """Side of the square whose area a page may fill, in pixels, and side of the canvas; a multiple
    of 64; None: the model's own. A training may begin on small pages and go on on larger ones."""
    data: DataConfig = field(default_factory=DataConfig)
    """What is trained on."""
    batch: int = 2
    """Samples per step, over all devices."""
    accumulate: int = 1
    """Parts that a batch is cut into, one after another, to save memory."""
    steps: int = 100_000
    """Length of the training."""
    seed: int = 0
    """Of everything random."""
    optim: OptimConfig = field(default_factory=OptimConfig)
    """The optimiser."""
    average: float | None = 0.9999
    """Decay of the moving average that is previewed, validated and exported; None: none is kept."""
    mesh: tuple[int, int, int] = (-1, 1, 1)
    """Devices along data, fsdp and tensor; -1: what is left."""
    parameters: Literal["float32", "bfloat16"] = "float32"
    """Type of the trained parameters; bfloat16 halves their memory and loses small updates."""
    precision: Literal["float32", "bfloat16"] | None = None
    """Type that is computed in; default float32 on CPU, bfloat16 on accelerators."""
    remat: Remat = "full"
    """What the backward pass computes again: `full`, everything inside of a block, a third more
    work for a fraction of the memory; `dots`, all but products of matrices; `off`, nothing."""
    save: SaveConfig = field(default_factory=SaveConfig)
    """Checkpoints."""
    report: ReportConfig = field(default_factory=ReportConfig)
    """Metrics, previews, profiles."""

    def __post_init__(self):
        _positive(self, "batch", "accumulate", "steps")
        if address := next((p for p in (self.out, self.init) if ":/" in str(p)), None):
            raise ValueError(
                "TrainConfig: out and init must be folders that are mounted, got the address "
                f"{address}"
            )
        if self.page is not None and (self.page < 1 or self.page % PAGE_MULTIPLE):
            raise ValueError(
                f"TrainConfig: page must be a multiple of {PAGE_MULTIPLE}, got {self.page}"
            )
        if self.batch % self.accumulate:
            raise ValueError(
                "TrainConfig: accumulate must divide batch, "
                f"got batch {self.batch} and accumulate {self.accumulate}"
            )
        if self.average is not None and not 0 < self.average < 1:
            raise ValueError(f"TrainConfig: average lies in (0, 1), got {self.average}")


def _positive(config: object, *names: str) -> None:
    """Raises ValueError where a count is not at least 1."""
    if bad := {name: getattr(config, name) for name in names if getattr(config, name) < 1}:
        raise ValueError(f"{type(config).__name__}: expected at least 1, got {bad}")
