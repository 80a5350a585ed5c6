"""The two stages as tables: what is trained, on how many instances, against which losses."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, TypeVar

from magiccolor_jax.data.cases import MAX_REFERENCES
from magiccolor_jax.losses.objective import LossConfig
from magiccolor_jax.trees import decide

Leaf = TypeVar("Leaf")

Table = tuple[tuple[str, bool], ...]
"""(regex over parameter paths, whether it is trained); the first full match counts."""


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One stage of the training."""

    name: str
    """`stage1`, `stage2`, or an ablation's."""
    trainable: Table
    """Which parameters are trained."""
    instances: int
    """Most instances on a page."""
    instance_guider: bool
    """Whether the instance guider takes part."""
    losses: LossConfig = field(default_factory=LossConfig)
    """What is minimised."""
    init: Literal["sd15", "stage1"] = "sd15"
    """Where the weights come from: the `init/` folder of a converted release, or stage 1."""

    def __post_init__(self):
        if not 1 <= self.instances <= MAX_REFERENCES:
            raise ValueError(
                f"Stage: instances must be 1 to {MAX_REFERENCES}, got {self.instances}"
            )

    def split(self, parameters: Mapping[str, Leaf]) -> tuple[dict[str, Leaf], dict[str, Leaf]]:
        """(trainable, fixed) parts of a model's parameters (or of their shapes), by path.

        Raises:
            ValueError: a path that no row matches, or nothing is trained.
        """
        trained = decide(self.trainable, parameters, f"{self.name}: trainable")
        if not any(trained.values()):
            raise ValueError(f"{self.name}: at least one parameter must be trained, none is")
        parts = (
            {p: x for p, x in parameters.items() if trained[p] == yes} for yes in (True, False)
        )
        return next(parts), next(parts)


REFERENCE: Table = ((r"reference/up_blocks/3/.*", False), (r"reference/.*", True))
"""The last up-block's features are read, but the release leaves it as it is (release.md §6)."""


def stage1() -> Stage:
    """Single reference: denoiser, reference UNet, sketch guider."""
    return Stage(
        name="stage1",
        trainable=(
            *REFERENCE,
            (r"(denoiser|sketch_guider|context)/.*", True),
        ),
        instances=1,
        instance_guider=False,
    )


def stage2() -> Stage:
    """Many instances: adds the instance guider with its adapter, goes on from stage 1."""
    first = stage1()
    return replace(
        first,
        name="stage2",
        trainable=(*first.trainable, (r"instance_guider/.*", True)),
        instances=10,
        instance_guider=True,
        init="stage1",
    )
