"""Some of the records as one page to look at: masks, sketch, references, origin."""

import html
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from magiccolor_jax.data.cases import MASK_MIDDLE
from magiccolor_jax.data.records import Record
from magiccolor_jax.data.scenes import Scene, View
from magiccolor_jax.data.shards import Records
from magiccolor_jax.data.sketches import normalise_sketch
from magiccolor_jax.data.transforms import WHITE, Picture, fit_page, resize
from magiccolor_jax.files import atomic_file
from magiccolor_jax.prepare.chunks import HELD_OUT, TRAIN
from magiccolor_jax.prepare.cuts import Cut, Instance, overlay
from magiccolor_jax.recipe import Recipe
from magiccolor_jax.types import Sizes

PAGE, PICTURES = "index.html", "sample"

REFERENCE = 128
"""Longest side of a reference's picture, in pixels."""

QUALITY = 88
"""Of JPEG."""

STYLE = """
:root { color-scheme: light dark; --line: #8884 }
body { font: 15px/1.45 system-ui, sans-serif; max-width: 1200px; margin: 2rem auto;
  padding: 0 1rem }
h1 { font-size: 1.5rem; margin-bottom: 0 } h2 { font-size: 1.15rem; margin-top: 2.2rem }
p.about, figcaption { color: #888; font-size: .85rem; overflow-wrap: anywhere }
table { border-collapse: collapse; font-variant-numeric: tabular-nums }
th, td { padding: .2rem .8rem .2rem 0; text-align: left; border-bottom: 1px solid var(--line);
  vertical-align: top; font-weight: 400 }
section { border-top: 1px solid var(--line); padding: .6rem 0 }
section h3 { font-size: 1rem; margin: 0; overflow-wrap: anywhere }
.row { display: flex; flex-wrap: wrap; gap: .4rem; align-items: start; overflow-x: auto }
figure { margin: 0 } img { display: block; border: 1px solid var(--line); max-width: 100% }
.page img { height: 220px; width: auto }
"""


def write_gallery(out: Path, found: dict[str, Any], count: int) -> None:
    """Writes the page and its pictures.

    Args:
        found: statistics.
        count: of records, from all over both splits.

    Raises:
        OSError: the disk is full.
        CaseError: a shard is damaged.
    """
    parts = [
        "<h1>magiccolor prepare</h1>",
        f"<p class=about>{found['records']} records, {found['skipped']} left out "
        "(skipped.json says why)</p>",
        _numbers(found),
    ]
    total = max(found["records"], 1)
    for split in (TRAIN, HELD_OUT):
        own = found[split]["records"]
        if own:
            parts.append(f"<h2>{split}</h2>")
            parts += _split(out, split, min(own, -(-count * own // total)))
    head = f"<meta charset=utf-8><title>magiccolor prepare</title><style>{STYLE}</style>"
    content = (
        f"<!doctype html><html lang=en><head>{head}</head><body>{''.join(parts)}</body></html>"
    )
    with atomic_file(out / PAGE) as temporary:
        temporary.write_text(content + "\n", encoding="utf-8", errors="backslashreplace")


def _numbers(found: dict[str, Any]) -> str:
    """The statistics as a table."""
    rows = "".join(
        f"<tr><th>{_text(name.replace('_', ' '))}</th>"
        + "".join(f"<td>{_text(_cell(found[split][name]))}</td>" for split in (TRAIN, HELD_OUT))
        for name in found[TRAIN]
    )
    return f"<table><tr><th></th><th>{TRAIN}</th><th>{HELD_OUT}</th></tr>{rows}</table>"


def _cell(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key}: {number}" for key, number in value.items()) or "\u2013"
    return f"{value:,}"


def _text(text: str) -> str:
    return html.escape(text)


def _split(out: Path, split: str, count: int) -> Iterator[str]:
    """Records of a split, from its first to its last."""
    source = Records(out / split)
    for number in dict.fromkeys(
        np.linspace(0, len(source) - 1, count).round().astype(int).tolist()
    ):
        yield _record(out, f"{split}-{number:06}", source.record(number))


def _record(out: Path, name: str, record: Record) -> str:
    """A record's section; its pictures are written."""
    scene, origin = record
    shown = [_figure(out, f"{name}-{i}", picture, title) for i, (picture, title) in _pages(scene)]
    references = [
        _figure(out, f"{name}-{i}.{j}", _reference(view), f"{i}")
        for i, views in enumerate(scene.views, 1)
        for j, view in enumerate(views, 1)
    ]
    words = " · ".join(filter(None, (origin.source, origin.author, origin.licence, origin.note)))
    return (
        f"<section><h3>{_text(scene.name)}</h3><p class=about>{_text(words)}</p>"
        f"<div class='row page'>{''.join(shown)}</div>"
        f"<div class=row>{''.join(references)}</div></section>"
    )


def _pages(scene: Scene) -> Iterator[tuple[int, tuple[Picture, str]]]:
    """The page's pictures, at a model's size, and their titles."""
    height, width = scene.target.shape[:2]
    placed = fit_page((height, width), Recipe.paper(), Sizes()).placed

    def small(picture: Picture) -> UInt8[np.ndarray, "h w 3"]:
        return np.rint(resize(picture, placed.height, placed.width)).astype(np.uint8)

    found = [Instance(mask > MASK_MIDDLE, None) for mask in scene.masks]
    pages = [
        (small(scene.target), "target"),
        (small(overlay(scene.target, Cut(found, ""))), "masks"),
    ]
    if scene.lines is not None:
        lines = small(scene.lines)
        pages += [(lines, "sketch"), (_grey(normalise_sketch(lines).lines), "as a model sees it")]
    return iter(enumerate(pages))


def _grey(lines: UInt8[np.ndarray, "H W"]) -> Picture:
    """Lines as a picture."""
    return np.repeat(lines[..., None], 3, axis=-1)


def _reference(view: View) -> UInt8[np.ndarray, "h w 3"]:
    """What a view shows of its instance, on white."""
    shown = np.where(view.mask[..., None] > MASK_MIDDLE, view.picture, np.uint8(WHITE))
    height, width = shown.shape[:2]
    scale = min(1.0, REFERENCE / max(height, width))
    small = resize(shown, max(round(height * scale), 1), max(round(width * scale), 1))
    return np.rint(small).astype(np.uint8)


def _figure(out: Path, name: str, picture: Picture, title: str) -> str:
    """A picture with its title; it is written."""
    with atomic_file(out / PICTURES / f"{name}.jpg") as temporary:
        Image.fromarray(picture).save(temporary, format="JPEG", quality=QUALITY)
    path = f"{PICTURES}/{name}.jpg"
    return f"<figure><img src='{path}' alt=''><figcaption>{_text(title)}</figcaption></figure>"
