"""One picture, many prompts: pictures to SAM's square and masks back to the picture.

Facts: segment-anything `predictor.py`, `utils/transforms.py`, `modeling/sam.py`.
"""

from functools import lru_cache
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float, Float32, Int, UInt8
from PIL import Image

from magiccolor_jax.segment.mask_decoder import MASKS
from magiccolor_jax.segment.prompt_encoder import CORNER, NO_POINT, OTHER_CORNER
from magiccolor_jax.segment.sam import SAM

MEAN = np.array([123.675, 116.28, 103.53], np.float32)
STD = np.array([58.395, 57.12, 57.375], np.float32)
"""Of ImageNet's pixels, 0..255."""

Size = tuple[int, int]

STEP = 128
"""Masks are made at the next multiple of this many pixels, so that pictures of many sizes share few
programs."""


class Frame(NamedTuple):
    """Where a picture stands in the encoder's square: at its top left."""

    original: Size
    """Height and width of the picture."""
    resized: Size
    """Height and width in the square."""


class Embedded(NamedTuple):
    """A picture that prompts can be asked about."""

    embedding: Float[Array, "g g C"]
    frame: Frame


class Predicted(NamedTuple):
    """Answers to N prompts, M masks each."""

    masks: Bool[np.ndarray, "N M H W"]
    """At the picture's own size."""
    quality: Float[np.ndarray, "N M"]
    """The network's guess of each mask's intersection over union."""
    logits: Float[np.ndarray, "N M m m"]
    """In the square, to be given as the next prompt's mask."""


def frame_of(shape: Size, side: int) -> Frame:
    """The longer side of a picture becomes the square's."""
    scale = side / max(shape)
    height, width = (int(length * scale + 0.5) for length in shape)
    return Frame(shape, (height, width))


def square_pixels(picture: UInt8[np.ndarray, "H W 3"], frame: Frame, side: int) -> np.ndarray:
    """The picture as the encoder takes it: PIL's bilinear resize, normalised, zeros around it.

    Returns:
        float32 [side side 3].
    """
    height, width = frame.resized
    small = Image.fromarray(picture).resize((width, height), Image.Resampling.BILINEAR)
    pixels = np.zeros((side, side, 3), np.float32)
    pixels[:height, :width] = (np.asarray(small, np.float32) - MEAN) / STD
    return pixels


def _bilinear(source: int, target: int) -> Float[np.ndarray, "target source"]:
    """PyTorch's bilinear resize of one axis (align_corners=False, no antialias), in float64."""
    places = np.maximum((np.arange(target) + 0.5) * source / target - 0.5, 0)
    first = np.minimum(places.astype(int), source - 1)
    second, share = np.minimum(first + 1, source - 1), places - first
    matrix = np.zeros((target, source))
    matrix[np.arange(target), first] = 1 - share
    matrix[np.arange(target), second] += share
    return matrix


@lru_cache(maxsize=4)
def to_picture(masks: int, side: int, frame: Frame) -> tuple[np.ndarray, np.ndarray]:
    """Matrices [H masks] and [W masks] that bring a mask to the picture's size.

    segment-anything resizes twice, to the square and, without what is around the picture, to the
    picture; both are linear, and so is the whole. H and W are the picture's height and width, up to
    the next multiple of `STEP`; what is beyond the picture is 0.

    Args:
        masks: side of the decoder's masks.
        side: of the square.
    """
    to_square, matrices = _bilinear(masks, side), []
    for length, inside in zip(frame.original, frame.resized, strict=True):
        matrix = (_bilinear(inside, length) @ to_square[:inside]).astype(np.float32)
        matrices.append(np.pad(matrix, ((0, -length % STEP), (0, 0))))
    down, across = matrices
    return down, across


def enlarge(
    logits: Float[Array, "N m m"], down: Float[Array, "H m"], across: Float[Array, "W m"]
) -> Float[Array, "N H W"]:
    """Masks at the picture's size, by the matrices of `to_picture`."""
    rows = jnp.einsum("hm,nmk->nhk", down, logits, precision="highest")
    return jnp.einsum("nhk,wk->nhw", rows, across, precision="highest")


class Predictor:
    """SAM for pictures of any size."""

    def __init__(self, sam: SAM):
        self.sam, self.cfg = sam, sam.cfg

    def embed(self, picture: UInt8[np.ndarray, "H W 3"]) -> Embedded:
        """Looks at a picture, once for all of its prompts."""
        frame = frame_of(picture.shape[:2], self.cfg.image_size)
        pixels = square_pixels(picture, frame, self.cfg.image_size)
        return Embedded(_embed(self.sam, jnp.asarray(pixels[None]))[0], frame)

    def predict(
        self,
        picture: Embedded,
        points: Float[np.ndarray, "N P 2"] | None = None,
        labels: Int[np.ndarray, "N P"] | None = None,
        *,
        boxes: Float[np.ndarray, "N 4"] | None = None,
        masks: Float[np.ndarray, "N m m"] | None = None,
        several: bool = True,
    ) -> Predicted:
        """Answers N prompts.

        Args:
            points: (x, y) in pixels of the picture.
            labels: 1: inside, 0: outside, -1: no point.
            boxes: left, top, right, bottom in pixels of the picture.
            masks: logits of earlier answers.
            several: three answers to each, for prompts that are ambiguous; otherwise one.

        Raises:
            ValueError: no prompt, or points without labels.
        """
        places, kinds = self.tokens_of(picture.frame, points, labels, boxes)
        found = _decode(self.sam, picture.embedding, places, kinds, masks)
        chosen = slice(1, MASKS) if several else slice(0, 1)
        logits, quality = found.logits[:, chosen], found.quality[:, chosen]
        matrices = to_picture(self.cfg.mask_size, self.cfg.image_size, picture.frame)
        height, width = picture.frame.original
        inside = np.asarray(_inside(logits, *map(jnp.asarray, matrices)))[..., :height, :width]
        return Predicted(inside, np.asarray(quality), np.asarray(logits))

    def tokens_of(
        self,
        frame: Frame,
        points: Float[np.ndarray, "N P 2"] | None,
        labels: Int[np.ndarray, "N P"] | None,
        boxes: Float[np.ndarray, "N 4"] | None,
    ) -> tuple[Float32[np.ndarray, "N Q 2"], Int[np.ndarray, "N Q"]]:
        """Places in the square, and kinds, of all points and corners of a prompt.

        Raises:
            ValueError: no prompt, or points without labels.
        """
        if (points is None) != (labels is None) or (points is None and boxes is None):
            raise ValueError(
                "a prompt is points with labels, boxes, or both: expected one of them, got "
                f"points {points is not None}, labels {labels is not None}, "
                f"boxes {boxes is not None}"
            )
        scale = np.divide(frame.resized, frame.original)[::-1]
        places, kinds = [], []
        if points is not None and labels is not None:
            places.append(points * scale)
            kinds.append(labels)
            if boxes is None:  # trained so: points end with one that is none
                places.append(np.zeros((len(points), 1, 2)))
                kinds.append(np.full((len(points), 1), NO_POINT))
        if boxes is not None:
            places.append(boxes.reshape(-1, 2, 2) * scale)
            kinds.append(np.tile([CORNER, OTHER_CORNER], (len(boxes), 1)))
        return (
            np.concatenate(places, axis=1).astype(np.float32),
            np.concatenate(kinds, axis=1).astype(np.int32),
        )


@nnx.jit
def _embed(sam: SAM, pixels: Float[Array, "B S S 3"]) -> Float[Array, "B g g C"]:
    return sam.embed(pixels)


@nnx.jit
def _decode(sam, embedding, places, kinds, masks):
    return sam.decode(embedding, places, kinds, masks)


@jax.jit
def _inside(
    logits: Float[Array, "N M m m"], down: Float[Array, "H m"], across: Float[Array, "W m"]
) -> Bool[Array, "N M H W"]:
    whole = enlarge(logits.reshape(-1, *logits.shape[2:]), down, across)
    return (whole > 0).reshape(*logits.shape[:2], *whole.shape[1:])
