"""Where the instances of a case are on its page."""

import numpy as np
from jaxtyping import Bool, UInt8

from magiccolor_jax.data.cases import MASK_MIDDLE
from magiccolor_jax.types import Case

Region = Bool[np.ndarray, "H W"]


def marked(case: Case) -> list[Region]:
    """What each sketch mask marks; regions may overlap.

    Raises:
        ValueError: there is no mask for each reference, or one marks nothing.
    """
    if len(case.sketch_masks) != len(case.references):
        raise ValueError(
            f"{case.path}: instances are measured inside their sketch masks: expected one for each "
            f"of {len(case.references)} references, got {len(case.sketch_masks)}; use the layout "
            "with sketch_masks/"
        )
    return [counted(case, mask, f"sketch mask {i}") for i, mask in enumerate(case.sketch_masks, 1)]


def counted(case: Case, mask: UInt8[np.ndarray, "H W"], name: str) -> Bool[np.ndarray, "H W"]:
    """The pixels of a mask that count.

    Args:
        name: of the mask, for the error.

    Raises:
        ValueError: there are none.
    """
    counts = mask > MASK_MIDDLE
    if not counts.any():
        raise ValueError(
            f"{case.path}: {name}: a mask counts where it is above {MASK_MIDDLE}: expected such a "
            f"pixel, got {mask.max()} at most; paint what belongs to the instance white"
        )
    return counts
