"""Decoding one picture or mask file: upright, 8 bits, transparency laid on a ground."""

import io
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import ExifTags, Image, ImageOps, PngImagePlugin

from magiccolor_jax.files import atomic_file

PICTURE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff"})
"""Endings (any case) of the files that are looked at; all others are ignored."""

MAX_PIXELS = 64_000_000
"""Largest picture that is decoded; a small file can claim any size in its header."""

LIGHT = 128
"""Lines of which no pixel is darker than this on white would hardly be seen there."""

FEW = 0.05
"""Share of the painted pixels that do not decide, for they are stray."""

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


def read_picture(
    path: Path, data: bytes | None = None
) -> tuple[UInt8[np.ndarray, "H W 3"], UInt8[np.ndarray, "H W"] | None]:
    """Reads RGB, 0..255, laid on white, and the alpha channel where the file has one.

    Args:
        data: the file's bytes where they stand elsewhere; `path` then names them in errors.

    Raises:
        CaseError: the file is missing, damaged, too large or of an unknown kind.
    """
    image = _decode(path, data)
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
    painted = np.asarray(image.convert("L"))[np.asarray(image.getchannel("A")) > 127]
    light = painted.size > 0 and np.quantile(painted, FEW) >= LIGHT
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
    if shape is not None:
        check_mask_size(path, mask, shape, owner)
    check_not_empty(path, mask)
    return mask


def read_masked(
    path: Path, mask: Path | None
) -> tuple[UInt8[np.ndarray, "H W 3"], UInt8[np.ndarray, "H W"]]:
    """A picture and what counts of it, 0..255: its mask file, else its alpha channel, else all.

    Raises:
        CaseError: as `read_mask`, of either file.
    """
    picture, alpha = read_picture(path)
    if mask is not None:
        return picture, read_mask(mask, picture.shape[:2], path.name)
    if alpha is None:
        return picture, np.full(picture.shape[:2], 255, np.uint8)
    check_not_empty(path, alpha)
    return picture, alpha


def write_png(
    path: Path, pixels: UInt8[np.ndarray, "H W *C"], info: PngImagePlugin.PngInfo | None = None
) -> None:
    """Writes a PNG atomically.

    Args:
        info: texts that go into it.
    """
    with atomic_file(path) as temporary:
        Image.fromarray(pixels).save(temporary, format="PNG", pnginfo=info)


def picture_size(path: Path) -> tuple[int, int]:
    """Height and width of the upright picture, from the file's header alone.

    Raises:
        CaseError: as `read_picture`, but damage behind the header is not seen.
    """
    with _reading(path), Image.open(path) as image:
        _check_area(path, image)
        # Not image.getexif(): PNG's decodes the picture to look for tags behind it.
        orientation = Image.Image.getexif(image).get(ExifTags.Base.Orientation, 1)
        turned = orientation >= 5 and image.format != "TIFF"  # whose size is the upright one
        return image.size if turned else (image.height, image.width)


def check_mask_size(
    path: Path, mask: UInt8[np.ndarray, "H W"], shape: tuple[int, ...], owner: str
) -> None:
    """Raises CaseError when a mask has not the shape [H W] of its picture, which `owner` names."""
    if mask.shape != shape:
        raise CaseError(
            path,
            "a mask has the size of its picture",
            expected=f"{size_text(shape)} like {owner}",
            got=size_text(mask.shape),
            fix="export the mask at the picture's own size, turned the same way",
        )


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


def _decode(path: Path, data: bytes | None = None) -> Image.Image:
    """The file as an upright RGB picture, or RGBA where it has transparency.

    Raises:
        CaseError: the header claims too much (nothing is decoded then), or the file is unreadable.
    """
    with _reading(path, data), Image.open(path if data is None else io.BytesIO(data)) as image:
        _check_area(path, image)
        upright = _eight_bits(ImageOps.exif_transpose(image))
        return upright.convert("RGBA" if upright.has_transparency_data else "RGB")


def _check_area(path: Path, image: Image.Image) -> None:
    """Raises CaseError unless a picture's header claims a number of pixels that we decode."""
    if not 0 < image.width * image.height <= MAX_PIXELS:
        raise _too_large(path, f"{image.width} x {image.height} pixels")


@contextmanager
def _reading(path: Path, data: bytes | None = None) -> Iterator[None]:
    """Turns whatever Pillow raises on a file, or on its bytes, into a CaseError."""
    try:
        yield
    except CaseError:
        raise
    except BOMBS as error:
        raise _too_large(path, str(error)) from error
    except DECODER_ERRORS as error:
        if isinstance(error, OSError) and error.strerror:  # the system's; Pillow's have none
            rule, fix = "a picture can be read", "check the path and its permissions"
            raise CaseError(path, rule, "a file that may be read", error.strerror, fix) from error
        empty = path.is_file() and path.stat().st_size == 0 if data is None else not data
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
