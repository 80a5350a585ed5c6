"""What all methods share of a case: read once, computed when it is first asked for."""

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Bool, UInt8

from magiccolor_jax.data.cases import owned
from magiccolor_jax.data.transforms import Picture, resize
from magiccolor_jax.evaluation.difficulty import Difficulty, difficulty_of
from magiccolor_jax.evaluation.metrics import INSTANCE, PICTURE, REGION
from magiccolor_jax.evaluation.palettes import Palette, dominant_colors, inner, reference_palettes
from magiccolor_jax.evaluation.protocol import Protocol
from magiccolor_jax.evaluation.regions import Region, marked
from magiccolor_jax.types import Case

LEAST = {
    "ssim": 11,
    "ssim_uniform": 7,
    "ms_ssim": 161,
    "lpips_alex": 31,
    "lpips_vgg": 16,
    "region_ssim": 11,
}
"""Shortest side, in pixels, that a metric can look at."""


def compared(protocol: Protocol) -> list[str]:
    """The metrics that compare with the truth."""
    return [name for name in protocol.metrics if name in (*PICTURE, *REGION)]


def sees_instances(protocol: Protocol) -> bool:
    """Whether any number is of instances, and takes sketch masks."""
    return bool({*INSTANCE, "swapped"} & {*protocol.metrics})


@dataclass(frozen=True)
class Known:
    """A case under a protocol."""

    case: Case
    protocol: Protocol

    def check(self) -> None:
        """Whether the protocol's numbers can be had of the case.

        Raises:
            ValueError: it has no truth, no masks, or is too small.
        """
        case, protocol = self.case, self.protocol
        if case.target is None and (needed := compared(protocol)):
            raise ValueError(
                f"{case.path}: the protocol {protocol.name!r} compares with the truth "
                f"({', '.join(needed)}): expected target.* in the case, got none; add it, or "
                "choose a protocol without these numbers"
            )
        side = protocol.size or min(case.sketch.shape[:2])
        if small := [name for name in protocol.metrics if LEAST.get(name, 0) > side]:
            least = max(LEAST[name] for name in small)
            raise ValueError(
                f"{case.path}: {', '.join(small)} cannot look at pictures so small: expected sides "
                f"of at least {least} pixels, got {side}; use a protocol with a size, or without "
                "them"
            )
        if sees_instances(protocol):
            _ = self.regions, self.palettes

    @cached_property
    def regions(self) -> list[Region]:
        """What each instance owns on the page."""
        return owned(self._marked)

    @cached_property
    def _marked(self) -> list[Region]:
        return marked(self.case)

    @cached_property
    def palettes(self) -> list[Palette]:
        """Of each reference."""
        return reference_palettes(self.case)

    @cached_property
    def dominant(self) -> list[Palette | None]:
        """Dominant colours of the truth in each region; None where that is hidden as a whole."""
        assert self.case.target is not None, "checked before"
        return [
            dominant_colors(self.case.target[inner(region)]) if region.any() else None
            for region in self.regions
        ]

    @cached_property
    def difficulty(self) -> Difficulty:
        """Of the page; without sketch masks only the number of instances is known."""
        if not self.case.sketch_masks:
            return Difficulty(len(self.case.references), math.nan, math.nan)
        return difficulty_of(self._marked)

    @cached_property
    def truth(self) -> UInt8[np.ndarray, "h w 3"] | None:
        """The target at the protocol's size."""
        return None if self.case.target is None else self.at_size(self.case.target)

    @cached_property
    def masks(self) -> Bool[np.ndarray, "K h w"]:
        """The regions at the protocol's size: a pixel counts when more than half of it does."""
        side = self.protocol.size
        if side is None:
            return np.stack(self.regions)
        resized = [resize(255 * each.astype(np.uint8), side, side) for each in self.regions]
        return np.stack(resized) > 127.5

    def at_size(self, picture: Picture) -> UInt8[np.ndarray, "h w 3"]:
        """A page at the protocol's size."""
        side = self.protocol.size
        if side is None or picture.shape[:2] == (side, side):
            return picture
        return np.rint(resize(picture, side, side)).astype(np.uint8)
