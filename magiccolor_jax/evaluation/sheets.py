"""Pictures of a page for the report: small, and inside of the file that shows them."""

import base64
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import UInt8

from magiccolor_jax.data.cases import read_case
from magiccolor_jax.data.palette import srgb_to_oklab
from magiccolor_jax.data.transforms import Picture, resize
from magiccolor_jax.evaluation.methods import Method

LONGEST = 256
"""Longer side of a picture in pixels."""

REFERENCE = 96
"""Side of the square that a reference is shown in, in pixels."""

WORST = 0.4
"""Oklab distance that the error map shows brightest; from blue to yellow it is 0.7."""

QUALITY = 85
"""Of WebP."""

COLUMNS = ("sketch", "references", "prediction", "truth", "error")


class Sheet(NamedTuple):
    """Data URIs; empty where there is no such picture."""

    sketch: str
    references: str
    prediction: str
    truth: str
    error: str


def sheet_of(name: str, path: Path, method: Method) -> Sheet:
    """What a method made of a case, beside the case.

    Raises:
        ValueError: pictures that could be read before cannot be read now.
    """
    case = read_case(path, report_overlaps=False)
    made, truth = method.page(name, case), case.target
    return Sheet(
        _uri(_small(case.sketch)),
        _uri(_mosaic(case.references)),
        _uri(_small(made)),
        "" if truth is None else _uri(_small(truth)),
        "" if truth is None else _uri(_small(error_map(made, truth))),
    )


def error_map(made: Picture, truth: Picture) -> Picture:
    """Distance of every pixel's colour from the truth's, from black to yellow."""
    pixels = (srgb_to_oklab(each.reshape(-1, 3)) for each in (made, truth))
    gap = np.linalg.norm(np.subtract(*pixels), axis=1).reshape(made.shape[:2])
    levels = np.rint(np.clip(gap / WORST, 0, 1) * 255).astype(np.uint8)
    return cv2.cvtColor(cv2.applyColorMap(levels, cv2.COLORMAP_INFERNO), cv2.COLOR_BGR2RGB)


def _small(picture: Picture, longest: int = LONGEST) -> UInt8[np.ndarray, "h w 3"]:
    scale = longest / max(picture.shape[:2])
    if scale >= 1:
        return picture
    height, width = (max(round(side * scale), 1) for side in picture.shape[:2])
    return np.rint(resize(picture, height, width)).astype(np.uint8)


def _mosaic(references: Sequence[np.ndarray]) -> Picture:
    """All references in a square grid, in the order of their ids."""
    columns = int(np.ceil(np.sqrt(len(references))))
    rows = -(-len(references) // columns)
    mosaic = np.full((rows * REFERENCE, columns * REFERENCE, 3), 255, np.uint8)
    for index, reference in enumerate(references):
        small = _small(reference, REFERENCE)
        top, left = (REFERENCE * each for each in divmod(index, columns))
        mosaic[top : top + small.shape[0], left : left + small.shape[1]] = small
    return mosaic


def _uri(picture: Picture) -> str:
    """The picture as the address of itself."""
    options = [cv2.IMWRITE_WEBP_QUALITY, QUALITY]
    done, data = cv2.imencode(".webp", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), options)
    assert done, "OpenCV is built with WebP"
    return "data:image/webp;base64," + base64.b64encode(data.tobytes()).decode()
