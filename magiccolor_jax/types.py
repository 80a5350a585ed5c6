"""The values that travel between the parts, with their shapes and ranges.

Axis legend, used in every file: B batch, H W pixels of the page, h w of the latent, K instances,
L query tokens, S key tokens, N heads, D head width, C channels.
"""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jax import Array
from jaxtyping import Bool, Float, Int, UInt8

LATENT_FACTOR = 8
"""Pixels per latent along one axis: the autoencoder halves the picture three times."""

PAGE_MULTIPLE = 64
"""A page side is a multiple of this: 8 for the autoencoder times 8 for the UNet's halvings."""


class Sizes(NamedTuple):
    """The picture sizes, in pixels, that a model works at (`MagicColorConfig.sizes`)."""

    page: int = 512
    """Side of the square whose area a page may fill; a multiple of 64."""
    canvas: int = 512
    """Side of the collage that the reference UNet sees; a multiple of 64."""
    reference: int = 504
    """Side of the square DINOv2 input; a multiple of `patch`."""
    patch: int = 14
    """Side of one DINOv2 patch."""
    clip: int = 224
    """Side of the square CLIP input."""

    @property
    def grid(self) -> int:
        """DINOv2 patches along one side: 36 at the released sizes."""
        return self.reference // self.patch


class Case(NamedTuple):
    """One page to colour, as read from disk: host memory, nothing resized."""

    name: str
    path: Path
    layout: str
    """`magiccolor` (our folders) or `release` (the published code's folder)."""
    sketch: UInt8[np.ndarray, "H W 3"]
    """Line art; transparency is already laid on white."""
    references: tuple[UInt8[np.ndarray, "_ _ 3"], ...]
    """One picture per instance, ids 1..K in natural order; each has a size of its own."""
    reference_masks: tuple[UInt8[np.ndarray, "_ _"], ...]
    """Which part of a reference counts, 0..255; as large as its reference, in the release's layout
    of any size."""
    sketch_masks: tuple[UInt8[np.ndarray, "H W"], ...]
    """Where each instance stands on the page, 0..255; empty in the release's layout."""
    target: UInt8[np.ndarray, "H W 3"] | None = None


class Batch(NamedTuple):
    """B cases turned into arrays of one page size and one bucket of K: NumPy's until they are sent
    to the devices, jax's from there on."""

    sketch: Float[Any, "B H W 3"]
    """[-1, 1], black lines on white."""
    canvas: Float[Any, "B S S 3"]
    """Collage of the reference crops, [-1, 1]."""
    clip_pixels: Float[Any, "B P P 3"]
    """The canvas as CLIP wants it: resized, normalised by CLIP's own mean and deviation."""
    reference_pixels: Float[Any, "B K R R 3"]
    """Each reference as DINOv2 wants it: ImageNet-normalised."""
    instance_map: Int[Any, "B H W"]
    """Which instance owns each pixel, 1..K; 0 is background."""
    boxes: Int[Any, "B K 4"]
    """Box of each instance's pixels in `instance_map`: top, left, bottom, right, ends included."""
    roi: Float[Any, "B K 4"]
    """Part of the reference's token grid that is pasted into the box: top, left, bottom, right in
    token units, 0..grid-1."""
    valid: Bool[Any, "B K"]
    """False where K was padded up to its bucket, or where an instance owns no pixel."""


class TrainingBatch(NamedTuple):
    """B cases with their ground truth."""

    case: Batch
    target: Float[Any, "B H W 3"]
    """What the page shall look like, [-1, 1]."""
    counts: Bool[Any, "B K G G"]
    """Which patches of each reference belong to its instance."""
    colors: Float[Any, "B K G G 3"]
    """Mean colour of the instance in each patch, [-1, 1], as the target has it."""


class TokenGrid(NamedTuple):
    """DINOv2 features of K references per case (registers dropped, final norm applied)."""

    cls: Float[Any, "B K C"]
    patches: Float[Any, "B K G G C"]


class KeysValues(NamedTuple):
    """Projected tokens that others may attend to."""

    key: Float[Array, "B S N D"]
    value: Float[Array, "B S N D"]
    mask: Bool[Array, "B S"] | None = None
    """False where a token is padding."""


class BlockCache(NamedTuple):
    """What one transformer block needs from the conditions, projected once for all steps."""

    context: KeysValues
    """Cross-attention."""
    reference: KeysValues | None = None
    """Extra tokens for self-attention; R of them serve the last R rows of the batch."""


class Residuals(NamedTuple):
    """What a guider adds to the denoiser; R rows serve the last R rows of the batch."""

    down: tuple[Float[Array, "R _ _ _"], ...]
    mid: Float[Array, "R _ _ _"]


class ReferenceFeatures(NamedTuple):
    """What the reference UNet hands over: by value, no hooks (release.md §2.1)."""

    hidden: tuple[Float[Array, "B _ _"], ...]
    """norm1(hidden) [B S C] of each transformer block, in order of execution."""
    match: Float[Array, "B _ _ C"]
    """Output of up-block 1, the source of colour matching (release.md §5)."""


class Draws(NamedTuple):
    """Everything random about a batch of cases, drawn from each case's own key."""

    noise: Float[Array, "B h w C"]
    """Standard normal: the latent that sampling starts from."""
    canvas: Float[Array, "B s s C"]
    """Standard normal: the canvas' posterior sample (recipe field `canvas_latent`)."""
    order: Int[Array, "B P"]
    """Source positions of colour matching in order of writing (`color_matching: release`)."""


class NullContexts(NamedTuple):
    """Cross-attention context of the unconditional half, constants of a model (release.md §2.3)."""

    reference: Float[Array, "1 1 E"]
    """For the reference UNet."""
    denoiser: Float[Array, "1 1 E"]
    """For the denoiser and the guiders."""
