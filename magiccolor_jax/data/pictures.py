"""Decoding one picture or mask file: upright, 8 bits, transparency laid on a ground."""

import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageOps

PICTURE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff"})
"""Endings (any case) of the files that are looked at; all others are ignored."""

MAX_PIXELS = 64_000_000
"""Largest picture that is decoded; a small file can claim any size in its header."""

LIGHT = 128
"""Lines of which no pixel is darker than this on white would hardly be seen there."""

DECODER_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    LookupError,
    ArithmeticError,
    EOFError,
    SystemError,
    struct.error,
    zlib.error,
)
"""What Pillow's readers raise on damaged files, by experiment and from their sources."""


BOMBS = (Image.DecompressionBombWarning, Image.DecompressionBombError)
"""What Pillow raises, or warns of, where a header claims too many pixels."""


class CaseError(ValueError):
    """A case that cannot be used: where, which rule, expected, got, and what to do about it."""

    def __init__(self, where: Path, rule: str, expected: str, got: str, fix: str):
        super().__init__(where, rule, expected, got, fix)  # all of them, so that it pickles
        self.where = where

    def __str__(self) -> str:
        where, rule, expected, got, fix = self.args
        return f"{where}: {rule}: expected {expected}, got {got}; {fix}"


def read_picture(path: Path) -> tuple[UInt8[np.ndarray, "H W 3"], UInt8[np.ndarray, "H W"] | None]:
    """Reads RGB, 0..255, laid on white, and the alpha channel where the file has one.

    Raises:
        CaseError: the file is missing, damaged, too large or of an unknown kind.
    """
    image = _decode(path)
    if image.mode == "RGB":
        return np.asarray(image), None
    return np.asarray(_lay_on(image, "white")), np.asarray(image.getchannel("A"))


def read_sketch(path: Path) -> UInt8[np.ndarray, "H W 3"]:
    """Reads line art, 0..255, laid on white; light lines on transparency are laid on black.

    Raises:
        CaseError: as `read_picture`.
    """
    image = _decode(path)
    if image.mode == "RGB":
        return np.asarray(image)
    on_white = _lay_on(image, "white")
    light = np.asarray(on_white.convert("L")).min() >= LIGHT
    return np.asarray(_lay_on(image, "black") if light else on_white)


def read_mask(path: Path, shape: tuple[int, int] | None, owner: str) -> UInt8[np.ndarray, "H W"]:
    """Reads a grey mask, 0..255; what is transparent does not count.

    Args:
        shape: height and width that the mask must have; None: any.
        owner: names the picture of that shape in the error.

    Raises:
        CaseError: as `read_picture`; another size than `shape`; nothing in it.
    """
    image = _decode(path)
    mask = np.asarray((image if image.mode == "RGB" else _lay_on(image, "black")).convert("L"))
    if shape is not None and mask.shape != shape:
        raise CaseError(
            path,
            "a mask has the size of its picture",
            expected=f"{size_text(shape)} like {owner}",
            got=size_text(mask.shape),
            fix="export the mask at the picture's own size, turned the same way",
        )
    check_not_empty(path, mask)
    return mask


def check_not_empty(path: Path, mask: UInt8[np.ndarray, "H W"]) -> None:
    """Raises CaseError when a mask is black all over."""
    if not mask.any():
        raise CaseError(
            path,
            "a mask marks at least one pixel",
            expected="values above 0 where the instance is",
            got="zeros only",
            fix="paint the instance white (255) on black, or remove it with its reference",
        )


def size_text(shape: tuple[int, ...]) -> str:
    """Array shape [H W ...] -> `W x H`, the way picture programs say it."""
    return f"{shape[1]} x {shape[0]}"


def _decode(path: Path) -> Image.Image:
    """The file as an upright RGB picture, or RGBA where it has transparency.

    Raises:
        CaseError: the header claims too much (nothing is decoded then), or the file is unreadable.
    """
    with _reading(path):
        image = Image.open(path)
    with image:
        if not 0 < image.width * image.height <= MAX_PIXELS:
            raise _too_large(path, f"{image.width} x {image.height} pixels")
        with _reading(path):
            upright = _eight_bits(ImageOps.exif_transpose(image))
            return upright.convert("RGBA" if upright.has_transparency_data else "RGB")


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Turns whatever Pillow raises on a file into a CaseError."""
    try:
        yield
    except BOMBS as error:
        raise _too_large(path, str(error)) from error
    except DECODER_ERRORS as error:
        empty = path.is_file() and path.stat().st_size == 0
        raise CaseError(
            path,
            "a picture can be read",
            expected="a whole picture with 8 or 16 bits per channel",
            got="an empty file" if empty else f"{type(error).__name__}: {error}",
            fix="open it in a picture program and save it again as PNG",
        ) from error


def _eight_bits(image: Image.Image) -> Image.Image:
    """16-bit grey -> 8 bits; every other integer mode as it is.

    Raises:
        ValueError: floating-point pixels, whose range nobody knows.
    """
    if image.mode == "F":
        raise ValueError("floating-point pixels")
    if not image.mode.startswith("I"):
        return image
    grey = np.asarray(image).astype(np.int64)
    return Image.fromarray(np.clip((grey + 128) // 257, 0, 255).astype(np.uint8))


def _lay_on(image: Image.Image, ground: str) -> Image.Image:
    """RGBA -> RGB over a ground of one colour."""
    return Image.alpha_composite(Image.new("RGBA", image.size, ground), image).convert("RGB")


def _too_large(path: Path, got: str) -> CaseError:
    """The error of a picture whose header claims no pixel or more than we decode."""
    return CaseError(
        path,
        "a picture has a reasonable size",
        expected=f"1 to {MAX_PIXELS:,} pixels",
        got=got,
        fix="scale it down: a page is worked on at far fewer pixels",
    )
