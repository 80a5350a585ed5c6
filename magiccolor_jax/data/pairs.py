"""Pictures that show a sketch and its colours side by side, as Kaggle's anime sketch pairs do."""

from pathlib import Path
from typing import ClassVar

import numpy as np
from jaxtyping import UInt8

from magiccolor_jax.data.folders import whole
from magiccolor_jax.data.listing import contents, digest, pictures_below
from magiccolor_jax.data.pictures import CaseError, picture_size, read_picture
from magiccolor_jax.data.scenes import Outline, Scene

ALIKE = 1.0
"""Halves whose mean chroma (0..255) differs by less could be either's; JPEG's noise is below."""


class SidePairs:
    """One scene per picture at or below a folder: one half is the sketch, the other its colours."""

    LAYOUT = "pictures of which one half is a sketch and the other its colours"

    sketch: ClassVar[str] = "auto"
    """Which half is the sketch: `left`, `right`, or `auto`, in each picture the one of less chroma.
    """

    def __init__(self, path: str | Path):
        """Lists the pictures, in natural order.

        Raises:
            CaseError: there are none.
        """
        self.path = Path(path)
        self.files = pictures_below(self.path)
        if not self.files:
            raise CaseError(
                self.path,
                "a source has scenes",
                expected=self.LAYOUT,
                got=contents(self.path),
                fix="check the path",
            )

    def __len__(self) -> int:
        return len(self.files)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.path}: {len(self)} scenes)"

    def fingerprint(self) -> str:
        """Of the files' names below the source's."""
        return digest([self.sketch, *(file.relative_to(self.path) for file in self.files)])

    def outline(self, index: int) -> Outline:
        """Size of one half; raises CaseError where the picture cannot be halved."""
        path = self.files[index]
        height, width = picture_size(path)
        _check_even(path, width)
        return Outline(height, width // 2, 1)

    def __getitem__(self, index: int) -> Scene:
        """Reads a picture and cuts it; raises CaseError where it cannot be halved or told apart."""
        path = self.files[index]
        picture, _ = read_picture(path)
        half = picture.shape[1] // 2
        _check_even(path, picture.shape[1])
        left, right = picture[:, :half], picture[:, half:]
        side = _paler(path, left, right) if self.sketch == "auto" else self.sketch
        lines, target = (left, right) if side == "left" else (right, left)
        return Scene(
            name=path.stem,
            path=path,
            target=np.ascontiguousarray(target),
            lines=np.ascontiguousarray(lines),
            masks=(whole(target),),
            views=((),),
        )


class LeftPairs(SidePairs):
    """Pairs whose sketch is the left half."""

    sketch = "left"


class RightPairs(SidePairs):
    """Pairs whose sketch is the right half."""

    sketch = "right"


def _check_even(path: Path, width: int) -> None:
    """Raises CaseError unless a picture has two halves."""
    if width % 2:
        raise CaseError(
            path,
            "a pair's halves are equally wide",
            expected="an even width",
            got=f"{width} pixels",
            fix="remove the picture, or export it again without borders",
        )


def _paler(path: Path, left: UInt8[np.ndarray, "H W 3"], right: UInt8[np.ndarray, "H W 3"]) -> str:
    """The half of less chroma: the mean difference of the largest and smallest channel.

    Raises:
        CaseError: both are alike.
    """
    chroma = [float(np.mean(half.max(axis=2) - half.min(axis=2))) for half in (left, right)]
    if abs(chroma[0] - chroma[1]) < ALIKE:
        raise CaseError(
            path,
            "the sketch is the half of less chroma",
            expected=f"halves whose mean chroma differs by {ALIKE} or more",
            got=f"{chroma[0]:.2f} at the left and {chroma[1]:.2f} at the right",
            fix="say which half it is (pairs-left:FOLDER or pairs-right:FOLDER), or remove it",
        )
    return "left" if chroma[0] < chroma[1] else "right"
