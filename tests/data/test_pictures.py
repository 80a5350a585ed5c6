"""One file -> pixels, whatever its kind; damaged files -> CaseError."""

import pickle
import random
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from magiccolor_jax.data.pictures import (
    MAX_PIXELS,
    CaseError,
    picture_size,
    read_mask,
    read_masked,
    read_picture,
    read_sketch,
)

SHAPE = (13, 21)
RAMP = np.linspace(0, 255, SHAPE[0] * SHAPE[1]).astype(np.uint8).reshape(SHAPE)
COLOURS = np.stack([RAMP, RAMP[::-1], RAMP[:, ::-1]], axis=-1)


@pytest.mark.parametrize(
    ("mode", "suffix", "tolerance"),
    [
        ("RGB", "png", 0),
        ("RGB", "jpg", 12),
        ("RGB", "webp", 12),
        ("RGB", "bmp", 0),
        ("RGB", "tif", 0),
        ("CMYK", "jpg", 12),
        ("CMYK", "tif", 0),
        ("YCbCr", "tif", 4),
        ("P", "png", 25),
        ("P", "gif", 25),
    ],
)
def test_colour_modes(tmp_path: Path, mode: str, suffix: str, tolerance: int):
    path = tmp_path / f"picture.{suffix}"
    Image.fromarray(COLOURS).convert(mode).save(path)
    pixels, alpha = read_picture(path)
    assert alpha is None
    assert pixels.shape == (*SHAPE, 3) and pixels.dtype == np.uint8
    assert np.abs(pixels.astype(int) - COLOURS).mean() <= tolerance


@pytest.mark.parametrize("suffix", ["png", "tif"])
@pytest.mark.parametrize("dtype", ["u1", "<u2", ">u2"])
def test_grey_is_spread_over_three_channels(tmp_path: Path, suffix: str, dtype: str):
    path = tmp_path / f"grey.{suffix}"
    values = RAMP if dtype == "u1" else RAMP.astype(dtype) * 257
    Image.fromarray(values).save(path)
    pixels, _ = read_picture(path)
    np.testing.assert_array_equal(pixels, np.repeat(RAMP[..., None], 3, axis=-1))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_tag_is_honoured(tmp_path: Path, orientation: int):
    # What a viewer must do to the stored pixels, from the EXIF standard's table.
    upright = {
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.swapaxes(0, 1),
        6: lambda a: np.rot90(a, -1),
        7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
        8: lambda a: np.rot90(a),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(COLOURS).save(tmp_path / "turned.png", exif=exif)
    Image.fromarray(RAMP).save(tmp_path / "mask.png", exif=exif)
    pixels, _ = read_picture(tmp_path / "turned.png")
    np.testing.assert_array_equal(pixels, upright(COLOURS))
    mask = read_mask(tmp_path / "mask.png", pixels.shape[:2], "turned.png")
    np.testing.assert_array_equal(mask, upright(RAMP))


def test_transparency_is_laid_on_white(tmp_path: Path):
    alpha = np.zeros(SHAPE, np.uint8)
    alpha[:, 7:14], alpha[:, 14:] = 128, 255
    Image.fromarray(np.dstack([COLOURS, alpha])).save(tmp_path / "a.png")
    pixels, found = read_picture(tmp_path / "a.png")
    np.testing.assert_array_equal(found, alpha)
    share = alpha[..., None] / 255
    expected = COLOURS * share + 255 * (1 - share)
    np.testing.assert_allclose(pixels, expected, atol=1)
    np.testing.assert_array_equal(pixels[:, 14:], COLOURS[:, 14:])
    np.testing.assert_array_equal(pixels[:, :7], 255)


@pytest.mark.parametrize("mode", ["P", "LA", "RGB"])
def test_other_kinds_of_transparency(tmp_path: Path, mode: str):
    half = np.where(np.arange(SHAPE[1]) < 5, 255, 0).astype(np.uint8) + np.zeros_like(RAMP)
    image = Image.fromarray(np.dstack([np.where(half, 40, 90), half]).astype(np.uint8), "LA")
    keyed = {"P": {"transparency": 1}, "LA": {}, "RGB": {"transparency": (90, 90, 90)}}[mode]
    if mode == "P":
        image = Image.fromarray(np.where(half, 0, 1).astype(np.uint8))
        image.putpalette([40, 40, 40, 90, 90, 90])
    image.convert(mode).save(tmp_path / "a.png", **keyed)
    pixels, alpha = read_picture(tmp_path / "a.png")
    np.testing.assert_array_equal(pixels[..., 0], np.where(half, 40, 255))
    np.testing.assert_array_equal(alpha, half)


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA"])
def test_mask_modes(tmp_path: Path, mode: str):
    mask = np.where(RAMP > 100, 255, 0).astype(np.uint8)
    Image.fromarray(mask).convert(mode).save(tmp_path / "mask.png")
    np.testing.assert_array_equal(read_mask(tmp_path / "mask.png", SHAPE, "x"), mask)


def test_transparent_part_of_a_mask_does_not_count(tmp_path: Path):
    white = np.full((*SHAPE, 4), 255, np.uint8)
    white[:, 9:, 3] = 0
    Image.fromarray(white).save(tmp_path / "mask.png")
    mask = read_mask(tmp_path / "mask.png", SHAPE, "x")
    assert (mask[:, :9] == 255).all() and not mask[:, 9:].any()


def _png(width: int, height: int, body: bytes = b"") -> bytes:
    """A PNG whose header claims a size and whose body is whatever is given."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        checksum = zlib.crc32(kind + data)
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", checksum)

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def _whole(tmp_path: Path, suffix: str) -> bytes:
    Image.fromarray(COLOURS).save(tmp_path / f"whole.{suffix}")
    return (tmp_path / f"whole.{suffix}").read_bytes()


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "an empty file"),
        (b"not a picture at all", "cannot identify"),
        (_png(8001, 8000), "8001 x 8000 pixels"),  # below Pillow's own limit
        (_png(10_000, 10_000), "exceeds limit"),  # Pillow warns
        (_png(60_000, 60_000), "exceeds limit"),  # Pillow refuses
        (_png(0, 7), "a picture"),
        (_png(9, 7, b"damaged"), "OSError"),
    ],
)
def test_bad_files(tmp_path: Path, data: bytes, says: str):
    path = tmp_path / "bad.png"
    for given in (data, None):  # the bytes alone, then the file
        with pytest.raises(CaseError, match=says) as caught:
            read_picture(path, given)
        assert str(path) in str(caught.value) and caught.value.where == path
        path.write_bytes(data)


def test_limit_is_the_one_tested():
    assert 8000 * 8000 <= MAX_PIXELS < 8001 * 8000


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "gif", "tif", "bmp"])
def test_truncated(tmp_path: Path, suffix: str):
    data = _whole(tmp_path, suffix)
    path = tmp_path / f"cut.{suffix}"
    path.write_bytes(data[: len(data) * 2 // 3])
    with pytest.raises(CaseError, match="can be read"):
        read_picture(path)


@pytest.mark.filterwarnings("ignore")  # Pillow remarks on damaged tags
@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "gif", "bmp"])
def test_any_damage_reads_or_says_so(tmp_path: Path, suffix: str):
    data, draw = _whole(tmp_path, suffix), random.Random(0)
    path = tmp_path / f"damaged.{suffix}"
    for _ in range(80):
        damaged = bytearray(data)
        for _ in range(3):
            damaged[draw.randrange(min(len(data), 200))] = draw.randrange(256)
        path.write_bytes(damaged)
        try:
            read_picture(path)
        except CaseError as error:
            assert str(path) in str(error)


def test_damaged_orientation_tag(tmp_path: Path):
    Image.fromarray(COLOURS).save(tmp_path / "a.png", exif=b"Exif\0\0no TIFF header")
    with pytest.raises(CaseError, match="SyntaxError: not a TIFF file"):
        read_picture(tmp_path / "a.png")


def test_floating_point_pixels_are_refused(tmp_path: Path):
    Image.fromarray(RAMP.astype(np.float32)).save(tmp_path / "f.tif")
    with pytest.raises(CaseError, match="floating-point"):
        read_picture(tmp_path / "f.tif")


def test_unreadable(tmp_path: Path):
    loop, folder = tmp_path / "loop.png", tmp_path / "folder.png"
    loop.symlink_to(loop)
    folder.mkdir()
    for path in (loop, folder, tmp_path / "absent.png"):
        with pytest.raises(CaseError, match="can be read: .*; check the path and its permissions"):
            read_picture(path)


def test_mask_of_another_size(tmp_path: Path):
    Image.fromarray(RAMP).save(tmp_path / "mask.png")
    with pytest.raises(CaseError, match="expected 13 x 21 like the sketch, got 21 x 13"):
        read_mask(tmp_path / "mask.png", SHAPE[::-1], "the sketch")


def test_empty_mask(tmp_path: Path):
    Image.fromarray(np.zeros(SHAPE, np.uint8)).save(tmp_path / "mask.png")
    with pytest.raises(CaseError, match="at least one pixel"):
        read_mask(tmp_path / "mask.png", SHAPE, "the sketch")


def test_error_survives_a_process_border(tmp_path: Path):
    error = CaseError(tmp_path, "rule", expected="this", got="that", fix="do it")
    again = pickle.loads(pickle.dumps(error))
    assert str(again) == str(error) == f"{tmp_path}: rule: expected this, got that; do it"
    assert again.where == tmp_path


@pytest.mark.parametrize("grey", [0, 120, 200, 255])
def test_lines_on_transparency_are_seen_whatever_their_colour(tmp_path: Path, grey: int):
    """Light ones on black, so that a mostly dark sketch is what they make."""
    alpha = np.zeros(SHAPE, np.uint8)
    alpha[6, 2:-2] = 255
    pixels = np.dstack([np.full((*SHAPE, 3), grey, np.uint8), alpha])
    Image.fromarray(pixels).save(tmp_path / "lines.png")
    sketch = read_sketch(tmp_path / "lines.png")
    ground = 0 if grey >= 128 else 255
    assert (sketch[0] == ground).all() and (sketch[6, 5] == grey).all()


def test_an_opaque_sketch_is_read_as_it_is(tmp_path: Path):
    Image.fromarray(COLOURS).save(tmp_path / "sketch.png")
    np.testing.assert_array_equal(read_sketch(tmp_path / "sketch.png"), COLOURS)


def test_bytes_are_read_as_a_file_is(tmp_path: Path):
    data = _whole(tmp_path, "webp")
    expected, _ = read_picture(tmp_path / "whole.webp")
    np.testing.assert_array_equal(read_picture(tmp_path / "absent", data)[0], expected)


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "tif"])
@pytest.mark.parametrize("orientation", [None, *range(1, 9)])
def test_the_header_tells_the_upright_size(tmp_path: Path, suffix: str, orientation: int | None):
    exif = Image.Exif()
    if orientation is not None:
        exif[0x0112] = orientation
    path = tmp_path / f"turned.{suffix}"
    Image.fromarray(COLOURS).save(path, **({} if orientation is None else {"exif": exif}))
    size = picture_size(path)
    assert size == read_picture(path)[0].shape[:2]
    assert size == (SHAPE if (orientation or 1) < 5 else SHAPE[::-1])
    if suffix in ("png", "jpg"):  # the others are refused at once when they are cut short
        path.write_bytes(path.read_bytes()[:-60])
        assert picture_size(path) == size


@pytest.mark.parametrize(
    ("data", "says"),
    [(b"", "an empty file"), (b"?", "cannot identify"), (_png(8001, 8000), "8001 x 8000 pixels")],
)
def test_no_size_is_believed_that_would_not_be_decoded(tmp_path: Path, data: bytes, says: str):
    path = tmp_path / "bad.png"
    path.write_bytes(data)
    with pytest.raises(CaseError, match=says):
        picture_size(path)


def test_what_counts_of_a_picture(tmp_path: Path):
    """Its mask file, else its alpha channel, else everything."""
    mask = np.where(RAMP > 100, 255, 0).astype(np.uint8)
    Image.fromarray(mask).save(tmp_path / "mask.png")
    Image.fromarray(COLOURS).save(tmp_path / "plain.png")
    Image.fromarray(np.dstack([COLOURS, 255 - mask])).save(tmp_path / "alpha.png")
    for name, file, expected in (
        ("alpha.png", tmp_path / "mask.png", mask),
        ("alpha.png", None, 255 - mask),
        ("plain.png", None, np.full_like(mask, 255)),
    ):
        np.testing.assert_array_equal(read_masked(tmp_path / name, file)[1], expected)
    Image.fromarray(np.zeros((*SHAPE, 4), np.uint8)).save(tmp_path / "clear.png")
    with pytest.raises(CaseError, match="clear.png: a mask marks at least one pixel"):
        read_masked(tmp_path / "clear.png", None)
