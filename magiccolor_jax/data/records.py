"""One training scene as the bytes of a record: the schema that `prepare` writes and training reads.

A record is a MessagePack map; every field stands in every record, and no other does:

    version     1
    name        text
    target      PNG or WebP bytes
    lines       PNG or WebP bytes of the target's size, or nil
    masks       COCO run lengths (rle.py) of the target's size, one for each instance
    views       for each instance a list of {picture: PNG or WebP bytes, mask: its run lengths}
    provenance  {source, author, licence, note}: texts
"""

import io
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import msgpack
import numpy as np
from jaxtyping import UInt8
from PIL import Image

from magiccolor_jax.data import rle
from magiccolor_jax.data.cases import MASK_MIDDLE
from magiccolor_jax.data.pictures import (
    CaseError,
    check_mask_size,
    check_not_empty,
    read_picture,
    size_text,
)
from magiccolor_jax.data.scenes import Scene, View

VERSION = 1
"""Of the schema; a reader refuses any other."""

LARGEST_WEBP = 16383
"""Longest side that WebP can hold; larger pictures are stored as PNG."""

SPDX_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+-]*")
NO_LICENCES = frozenset({"none", "noassertion", "unknown"})
"""What is written, in any case, where nobody knows of a licence."""

Kinds = Mapping[str, tuple[type, ...]]
RECORD: Kinds = {
    "version": (int,),
    "name": (str,),
    "target": (bytes,),
    "lines": (bytes, type(None)),
    "masks": (list,),
    "views": (list,),
    "provenance": (dict,),
}
VIEW: Kinds = {"picture": (bytes,), "mask": (dict,)}
PROVENANCE: Kinds = {"source": (str,), "author": (str,), "licence": (str,), "note": (str,)}


class Provenance(NamedTuple):
    """Where a scene is from, and who allows its use."""

    source: str
    """URL or file."""
    author: str
    """Whom the licence wants to be named."""
    licence: str
    """SPDX id such as CC-BY-4.0, or LicenseRef-NAME for a licence of another kind."""
    note: str = ""
    """Anything else that an attribution needs: a title, what was changed."""


class Record(NamedTuple):
    """A scene and its provenance."""

    scene: Scene
    provenance: Provenance


def encode_record(scene: Scene, provenance: Provenance) -> bytes:
    """A scene as a record's bytes: pictures lossless, masks counting above 127.

    Raises:
        CaseError: a reader would refuse the record; names the scene's path and the field.
    """
    record = {
        "version": VERSION,
        "name": scene.name,
        "target": _pack_picture(scene.target),
        "lines": None if scene.lines is None else _pack_picture(scene.lines),
        "masks": [rle.encode(mask > MASK_MIDDLE) for mask in scene.masks],
        "views": [[_pack_view(view) for view in views] for views in scene.views],
        "provenance": provenance._asdict(),
    }
    try:
        data: bytes = msgpack.Packer().pack(record)
    except UnicodeEncodeError as error:
        raise CaseError(
            scene.path,
            "a record's name and origin are Unicode",
            expected="names of files in UTF-8",
            got=ascii(error.object),
            fix="rename the file or its folder",
        ) from error
    decode_record(data, scene.path)
    return data


def decode_record(data: bytes, where: Path) -> Record:
    """Reads and checks a record.

    Args:
        where: the shard and the number of the record, for errors and as the scene's path.

    Raises:
        CaseError: the bytes are no record of this version; `where` and the field are named.
    """
    try:
        record = msgpack.unpackb(data)
    except (ValueError, TypeError, msgpack.UnpackException) as error:
        raise _damaged(
            where, "a record is a MessagePack map", "a whole map", repr(error)
        ) from error
    _check_version(where, record)
    _check_fields(where, record, RECORD)
    target = _picture(where / "target", record["target"])
    shape, masks, views = target.shape[:2], record["masks"], record["views"]
    if not masks or len(views) != len(masks):
        got = f"{len(masks)} masks and {len(views)} lists"
        rule = "a record has instances, each with a list of views"
        raise _damaged(where, rule, "as many lists of views as masks, at least 1", got)
    scene = Scene(
        name=record["name"],
        path=where,
        target=target,
        lines=_lines(where / "lines", record["lines"], shape),
        masks=tuple(
            _mask(where / f"masks[{i}]", mask, shape, "the target") for i, mask in enumerate(masks)
        ),
        views=tuple(_views(where, i, stored) for i, stored in enumerate(views)),
    )
    return Record(scene, _provenance(where / "provenance", record["provenance"]))


def names_licence(text: str) -> bool:
    """Whether a text has the form of an SPDX id and says more than that nobody knows."""
    return bool(SPDX_ID.fullmatch(text)) and text.lower() not in NO_LICENCES


def _pack_picture(picture: UInt8[np.ndarray, "H W 3"]) -> bytes:
    """RGB, 0..255, as lossless WebP, or PNG where it is too large for that."""
    data, image = io.BytesIO(), Image.fromarray(picture)
    if max(image.size) > LARGEST_WEBP:
        image.save(data, format="PNG")
    else:
        image.save(data, format="WEBP", lossless=True)
    return data.getvalue()


def _pack_view(view: View) -> dict[str, Any]:
    """A view as a record holds it."""
    return {"picture": _pack_picture(view.picture), "mask": rle.encode(view.mask > MASK_MIDDLE)}


def _check_version(where: Path, record: object) -> None:
    """Raises CaseError for another version: its other fields need not be the ones we know."""
    version = record.get("version") if isinstance(record, dict) else None
    if type(version) is int and version != VERSION:
        raise CaseError(
            where / "version",
            "a record's version is known",
            expected=str(VERSION),
            got=str(version),
            fix="read it with the program that wrote it, or prepare the records again",
        )


def _check_fields(where: Path, value: object, kinds: Kinds) -> None:
    """Raises CaseError unless a value is a map of exactly these fields and their types."""
    if not isinstance(value, dict) or set(value) != set(kinds):
        got = type(value).__name__
        if isinstance(value, dict):
            got = ", ".join(map(str, value)) or "none"
        raise _damaged(where, "every field stands, and no other", ", ".join(kinds), got)
    for name, types in kinds.items():
        if type(value[name]) not in types:
            expected = " or ".join(kind.__name__ for kind in types)
            got = type(value[name]).__name__
            raise _damaged(where / name, "a field has its type", expected, got)


def _picture(where: Path, data: bytes) -> UInt8[np.ndarray, "H W 3"]:
    """Decodes a stored picture; raises CaseError unless it is a whole PNG or WebP."""
    if not data.startswith(b"\x89PNG") and (data[:4], data[8:12]) != (b"RIFF", b"WEBP"):
        got = f"{len(data)} bytes beginning with {data[:12]!r}"
        raise _damaged(where, "a stored picture is PNG or WebP", "their signature", got)
    return read_picture(where, data)[0]


def _lines(
    where: Path, data: bytes | None, shape: tuple[int, ...]
) -> UInt8[np.ndarray, "H W 3"] | None:
    """Decodes stored lines; raises CaseError unless they are as large as the target."""
    if data is None:
        return None
    lines = _picture(where, data)
    if lines.shape[:2] != shape:
        rule = "lines have the size of their target"
        raise _damaged(where, rule, size_text(shape), size_text(lines.shape))
    return lines


def _mask(
    where: Path, stored: object, shape: tuple[int, ...], owner: str
) -> UInt8[np.ndarray, "H W"]:
    """Decodes a stored mask, 0 or 255; raises CaseError unless it is its picture's, not empty."""
    try:
        if not isinstance(stored, dict):
            raise ValueError(f"expected a map, got {type(stored).__name__}")
        counts = rle.decode(stored)
    except ValueError as error:
        rule = "a mask is stored as COCO run lengths"
        raise _damaged(where, rule, "size and counts", str(error)) from error
    mask = counts.view(np.uint8) * np.uint8(255)
    check_mask_size(where, mask, shape, owner)
    check_not_empty(where, mask)
    return mask


def _views(where: Path, instance: int, stored: object) -> tuple[View, ...]:
    """Decodes the views of an instance."""
    if not isinstance(stored, list):
        got = type(stored).__name__
        raise _damaged(where / f"views[{instance}]", "a field has its type", "list", got)
    views = []
    for number, fields in enumerate(stored):
        place = where / f"views[{instance}][{number}]"
        _check_fields(place, fields, VIEW)
        picture = _picture(place / "picture", fields["picture"])
        mask = _mask(place / "mask", fields["mask"], picture.shape[:2], "the view's picture")
        views.append(View(picture, mask))
    return tuple(views)


def _provenance(where: Path, stored: dict[str, Any]) -> Provenance:
    """Checks a stored provenance; raises CaseError where source, author or licence is missing."""
    _check_fields(where, stored, PROVENANCE)
    for field in ("source", "author"):
        if not stored[field].strip():
            raise _damaged(where / field, "a scene's origin is known", "a text", "none")
    licence = stored["licence"]
    if not names_licence(licence):
        raise CaseError(
            where / "licence",
            "a scene's licence is known",
            expected="an SPDX id such as CC-BY-4.0 or CC0-1.0",
            got=repr(licence) if licence else "none",
            fix="look it up at spdx.org/licenses, write LicenseRef-NAME for one that is not "
            "listed, or leave the scene out",
        )
    return Provenance(**stored)


def _damaged(where: Path, rule: str, expected: str, got: str) -> CaseError:
    """The error of a record that was not written by this schema."""
    return CaseError(where, rule, expected, got, fix="prepare the record again from its source")
