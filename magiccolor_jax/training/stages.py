"""The two stages as tables: what is trained, on how many instances, against which losses."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TypeVar

from magiccolor_jax.data.cases import MAX_REFERENCES
from magiccolor_jax.losses.objective import LossConfig
from magiccolor_jax.trees import decide

Leaf = TypeVar("Leaf")

Table = tuple[tuple[str, bool], ...]
"""(regex over parameter paths, whether it is trained); the first full match counts."""

Origins = tuple[tuple[str, str], ...]
"""(regex over names of networks, whose weights it starts from); the first full match counts.

A file of the model folder without its suffix, `init/unet` or `denoiser`, or several with `|`
between them, of which the first that the folder has counts. What the file lacks is drawn, but only
a guider may lack anything: one that starts from a UNet takes its encoder, as diffusers'
`ControlNetModel.from_unet` does. Or `random`.
"""

SD15: Origins = (
    (r"denoiser", "init/unet|denoiser"),
    (r"reference", "init/unet|reference"),
    (r"sketch_guider", "init/controlnet_lineart|sketch_guider"),
    (r"instance_guider", "init/unet|instance_guider"),
    (r"context", "random"),
    (r"dinov2", "dinov2"),
)
"""Stable Diffusion 1.5 and a line-art ControlNet, as the release's training; or, where the folder
has neither, as a run of stage 1 has not, its own networks.

differs: the release draws the instance guider's encoder at random; ours starts from the UNet's.
"""

STAGE1: Origins = (
    (r"instance_guider", "instance_guider|denoiser"),
    (r"denoiser", "denoiser"),
    (r"reference", "reference"),
    (r"sketch_guider", "sketch_guider"),
    (r"context", "context"),
    (r"dinov2", "dinov2"),
)
"""Stage 1's own networks; an instance guider that is not there takes the denoiser's encoder."""

RANDOM: Origins = ((r"dinov2", "dinov2"), (r".*", "random"))
"""From scratch: the model folder gives sizes and encoders alone."""


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
    encoder: bool = False
    """Whether DINOv2 is trained along, for models that have no pretrained one."""
    losses: LossConfig = field(default_factory=LossConfig)
    """What is minimised."""
    origins: Origins = SD15
    """Where the weights come from."""

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
"""The last up-block's features are read, but the release's training leaves it as it is."""


def stage1() -> Stage:
    """Single reference: denoiser, reference UNet, sketch guider."""
    return Stage(
        name="stage1",
        trainable=(
            *REFERENCE,
            (r"(denoiser|sketch_guider|context|dinov2)/.*", True),
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
        origins=STAGE1,
    )
