"""The schema of one record: what goes in comes out, and anything else is named."""

import io
from collections.abc import Callable
from pathlib import Path

import msgpack
import numpy as np
import pytest
from oracles.case_folders import noise
from oracles.training_folders import PROVENANCE, TARGET_SHAPE, VIEW_SHAPE, assert_same, make_scene
from PIL import Image

from magiccolor_jax.data import rle
from magiccolor_jax.data.pictures import CaseError
from magiccolor_jax.data.records import Provenance, decode_record, encode_record

WHERE = Path("shard/record 7")
SCENE = make_scene()
RECORD = encode_record(SCENE, PROVENANCE)


@pytest.mark.parametrize("lines", [True, False])
@pytest.mark.parametrize("count", [1, 2, 5])
def test_round_trip(count: int, lines: bool):
    scene = make_scene(count=count, lines=lines)
    record = decode_record(encode_record(scene, PROVENANCE), WHERE)
    assert_same(record.scene, scene)
    assert record.scene.path == WHERE and record.provenance == PROVENANCE


def test_the_bytes_are_the_documented_schema():
    stored = msgpack.unpackb(RECORD)
    assert (stored["version"], stored["name"]) == (1, "scene")
    for field in ("target", "lines"):
        with Image.open(io.BytesIO(stored[field])) as image:
            assert image.format == "WEBP"
            np.testing.assert_array_equal(image.convert("RGB"), getattr(SCENE, field))
    assert stored["masks"] == [rle.encode(mask > 127) for mask in SCENE.masks]
    assert [len(views) for views in stored["views"]] == [0, 2]
    assert set(stored["views"][1][0]) == {"picture", "mask"}
    assert stored["provenance"] == {
        "source": "https://example.org/1",
        "author": "A. Painter",
        "licence": "CC-BY-4.0",
        "note": "cropped",
    }
    assert set(stored) == {"version", "name", "target", "lines", "masks", "views", "provenance"}


def test_what_other_programs_may_write():
    """PNG, transparency, uncompressed runs."""
    stored = msgpack.unpackb(RECORD)
    pixels = np.dstack([SCENE.target, np.full(TARGET_SHAPE, 255, np.uint8)])
    pixels[:9, :, 3] = 0
    stored["target"] = picture_bytes(pixels)
    stored["masks"][0] = {"size": list(TARGET_SHAPE), "counts": [3, 40 * 56 - 3]}
    scene = decode_record(msgpack.packb(stored), WHERE).scene
    np.testing.assert_array_equal(scene.target[:9], 255)
    np.testing.assert_array_equal(scene.target[9:], SCENE.target[9:])
    assert not scene.masks[0][:3, 0].any() and scene.masks[0].sum() == 255 * (40 * 56 - 3)


def test_masks_count_above_the_middle():
    mask = np.zeros(TARGET_SHAPE, np.uint8)
    mask[4:8], mask[8:12] = 127, 128
    scene = make_scene(count=1)._replace(masks=(mask,))
    found = decode_record(encode_record(scene, PROVENANCE), WHERE).scene.masks[0]
    np.testing.assert_array_equal(found, np.where(mask > 127, 255, 0))


def test_a_picture_too_wide_for_webp_is_stored_as_png():
    shape = (2, 16384)
    scene = make_scene(count=1, lines=False)._replace(
        target=noise((*shape, 3)), masks=(np.full(shape, 255, np.uint8),)
    )
    data = encode_record(scene, PROVENANCE)
    assert msgpack.unpackb(data)["target"].startswith(b"\x89PNG")
    assert_same(decode_record(data, WHERE).scene, scene)


def picture_bytes(pixels: np.ndarray, kind: str = "PNG") -> bytes:
    data = io.BytesIO()
    Image.fromarray(pixels).save(data, format=kind)
    return data.getvalue()


def change(*keys: str | int, to: object) -> Callable[[dict], None]:
    """Sets one entry of a nested record."""

    def changed(record: dict) -> None:
        for key in keys[:-1]:
            record = record[key]
        record[keys[-1]] = to

    return changed


EMPTY = rle.encode(np.zeros(TARGET_SHAPE, bool))
OTHER = rle.encode(np.ones(VIEW_SHAPE, bool))

DAMAGE = {
    "version": (change("version", to=2), "version: a record's version is known: expected 1, got 2"),
    "no version": (lambda r: r.pop("version"), "every field stands, and no other: .*got name, "),
    "bool version": (change("version", to=True), "version: a field has its type: expected int"),
    "missing": (lambda r: r.pop("views"), "every field stands, and no other"),
    "unknown": (change("colour", to=1), "every field stands, and no other: .*colour"),
    "name": (change("name", to=b"x"), "name: a field has its type: expected str, got bytes"),
    "no target": (change("target", to=None), "target: .*expected bytes, got NoneType"),
    "empty target": (change("target", to=b""), "target: a stored picture is PNG or WebP"),
    "gif": (change("target", to=picture_bytes(SCENE.target, "GIF")), "target: .*GIF8"),
    "cut target": (
        change("target", to=picture_bytes(SCENE.target)[:300]),
        "target: a picture can be read",
    ),
    "bomb": (
        change(
            "target",
            to=picture_bytes(np.zeros((1, 1, 3), np.uint8)).replace(
                b"\0\0\0\1\0\0\0\1\x08", b"\0\0\x40\0\0\0\x40\0\x08"
            ),
        ),
        "target: (a picture has a reasonable size|a picture can be read)",
    ),
    "lines' size": (
        change("lines", to=picture_bytes(noise((*VIEW_SHAPE, 3)))),
        "lines: lines have the size of their target: expected 56 x 40, got 27 x 33",
    ),
    "no masks": (lambda r: r.update(masks=[], views=[]), "a record has instances"),
    "fewer views": (lambda r: r["views"].pop(), "got 2 masks and 1 lists"),
    "mask": (
        change("masks", 1, "counts", to=b"?"),
        "masks.1.: a mask is stored as COCO run lengths",
    ),
    "mask type": (change("masks", 0, to=[1]), "masks.0.: .*expected a map, got list"),
    "mask's size": (change("masks", 1, to=OTHER), "masks.1.: .*expected 56 x 40 like the target"),
    "empty mask": (change("masks", 0, to=EMPTY), "masks.0.: a mask marks at least one pixel"),
    "views": (change("views", 0, to={}), "views.0.: a field has its type: expected list, got dict"),
    "view": (change("views", 1, 1, to=None), "views.1..1.: every field stands.*got NoneType"),
    "view picture": (change("views", 1, 0, "picture", to=b"?"), "views.1..0./picture: a stored"),
    "view mask": (
        change("views", 1, 1, "mask", to=EMPTY),
        "views.1..1./mask: .*expected 27 x 33 like the view's picture",
    ),
    "origin": (change("provenance", to=None), "provenance: .*expected dict"),
    "no licence": (lambda r: r["provenance"].pop("licence"), "provenance: every field stands"),
    "blank licence": (change("provenance", "licence", to=""), "licence is known: .*, got none"),
    "unknown licence": (change("provenance", "licence", to="Unknown"), "provenance/licence: "),
    "words": (change("provenance", "licence", to="CC BY 4.0"), "such as CC-BY-4.0 .*'CC BY 4.0'"),
    "author": (change("provenance", "author", to=" "), "provenance/author: a scene's origin"),
    "source": (change("provenance", "source", to=""), "provenance/source: a scene's origin"),
    "note": (change("provenance", "note", to=None), "provenance/note: .*expected str"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damaged_records_name_record_and_field(name: str):
    damage, says = DAMAGE[name]
    record = msgpack.unpackb(RECORD)
    damage(record)
    with pytest.raises(CaseError, match=says) as caught:
        decode_record(msgpack.packb(record), WHERE)
    assert str(caught.value).startswith(str(WHERE))


@pytest.mark.parametrize("data", [b"", b"\xc1", RECORD[:-1], RECORD + b"x", b"\x81\x80\x01"])
def test_bytes_that_are_no_map(data: bytes):
    with pytest.raises(CaseError, match="a record is a MessagePack map"):
        decode_record(data, WHERE)


def test_another_value_than_a_map():
    with pytest.raises(CaseError, match="every field stands, and no other: .*got list"):
        decode_record(msgpack.packb([1, 2]), WHERE)


BAD_SCENES = {
    "licence": (SCENE, PROVENANCE._replace(licence=""), "provenance/licence"),
    "mask": (SCENE._replace(masks=(SCENE.masks[0],) * 3), PROVENANCE, "3 masks and 2 lists"),
    "faint": (
        SCENE._replace(masks=tuple(mask // 4 for mask in SCENE.masks)),
        PROVENANCE,
        "masks.0.: a mask marks at least one pixel",
    ),
}


@pytest.mark.parametrize("name", BAD_SCENES)
def test_nothing_is_encoded_that_a_reader_would_refuse(name: str):
    scene, provenance, says = BAD_SCENES[name]
    with pytest.raises(CaseError, match=says) as caught:
        encode_record(scene, provenance)
    assert str(caught.value).startswith(str(scene.path))


def test_a_note_may_be_left_out():
    provenance = Provenance("file.png", "unknown", "LicenseRef-house")
    assert decode_record(encode_record(SCENE, provenance), WHERE).provenance.note == ""
