"""SVG drawings: read, framed, and turned into line art that comes from the geometry alone.

Every shape is repainted white with a black outline of the same width everywhere, in the order in
which the drawing paints them, so that what lies in front hides what lies behind. Near-black paint
stays ink. Nothing of the other colours is left, not even their lightness.
"""

import copy
import io
import math
import re
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import NamedTuple
from xml.etree.ElementTree import Element

import numpy as np
from art_style import (
    INHERITED,
    LINKS,
    NAMESPACE,
    NUMBER,
    Sheet,
    declarations,
    is_ink,
    length,
    link,
    local,
    opacity,
)
from jaxtyping import UInt8
from PIL import Image

from magiccolor_jax.data.pictures import CaseError

SHAPES = frozenset(("path", "rect", "circle", "ellipse", "polygon", "polyline", "line"))
GROUPS = frozenset(("svg", "g", "a", "switch"))
DEFINITIONS = frozenset(
    (
        *("clipPath", "mask", "pattern", "marker", "linearGradient", "radialGradient", "filter"),
        *("style", "symbol", "defs"),
    )
)
"""Elements that paint nothing where they stand."""
PICTURES = frozenset(("image", "feImage"))

FAINT_FILL, FAINT_STROKE = 0.55, 0.35
"""Opacities under which paint is shading and has no outline."""

THIN, WIDEST = 3.2, 4.0
"""In outlines' widths: the widest coloured stroke that is one line, and not a band with two edges;
the widest line that ink draws."""

MOST_ELEMENTS = 50_000
"""Of a drawing after its repetitions are written out."""

SMOOTH = re.compile(r"shape-rendering\s*:[^;}]*;?")

UNPAINTED = {
    "opacity": "1",
    "fill-opacity": "1",
    "stroke-opacity": "1",
    "filter": "none",
    "mix-blend-mode": "normal",
    "marker": "none",
    "marker-start": "none",
    "marker-mid": "none",
    "marker-end": "none",
}
OUTLINE = UNPAINTED | {"stroke-linejoin": "round", "stroke-dasharray": "none"}
INK, PAPER = "#000", "#fff"


class DrawingError(ValueError):
    """Why a drawing cannot be used, in a few words."""


class Frame(NamedTuple):
    """A part of a drawing, in its own units."""

    left: float
    top: float
    width: float
    height: float


class Drawing(NamedTuple):
    """A drawing that was read."""

    root: Element
    canvas: Frame


class _Pen(NamedTuple):
    """What an element hands down to those in it."""

    style: dict[str, str]
    opacity: float
    scale: float
    """Pixels per unit."""
    soft: bool
    """Mixed or blurred."""


def read_svg(data: bytes) -> Drawing:
    """Reads a drawing, without what shows no shape: texts, records, foreign elements.

    Raises:
        DrawingError: it is damaged, has no size, or holds a picture of pixels.
    """
    try:
        root = ET.fromstring(data)
    except (ET.ParseError, LookupError, ValueError):
        raise DrawingError("damaged") from None
    if local(root) != "svg":
        raise DrawingError("damaged")
    _clean(root)
    if any(local(element) in PICTURES for element in root.iter()):
        raise DrawingError("a picture inside")
    return Drawing(root, _canvas(root))


def _clean(root: Element) -> None:
    """Drops all elements but SVG's own, and those of text."""
    for parent in list(root.iter()):
        for child in list(parent):
            outside = not isinstance(child.tag, str) or (
                child.tag.startswith("{") and not child.tag.startswith(f"{{{NAMESPACE}}}")
            )
            if outside or local(child) in ("metadata", "text", "foreignObject", "script"):
                parent.remove(child)
    for element in root.iter():
        element.tag = f"{{{NAMESPACE}}}{local(element)}"
        # What is said here would overrule a crisp rendering.
        element.attrib.pop("shape-rendering", None)
        if style := element.get("style"):
            element.set("style", SMOOTH.sub("", style))
        if local(element) == "style":
            element.text = SMOOTH.sub("", element.text or "")


def _canvas(root: Element) -> Frame:
    """What a viewer shows: the view box, and what lies beside it where the page is wider."""
    width, height = (length(root.get(name), 0.0) for name in ("width", "height"))
    box = [float(word) for word in re.findall(NUMBER, root.get("viewBox", ""))]
    if len(box) != 4:
        box = [0.0, 0.0, width, height]
    if min(box[2:]) <= 0 or not np.isfinite(box).all():
        raise DrawingError("no size")
    left, top, wide, high = box
    if min(width, height) > 0:
        scale = min(width / wide, height / high)
        wide, high = width / scale, height / scale
    return Frame(left - (wide - box[2]) / 2, top - (high - box[3]) / 2, wide, high)


def framed(drawing: Drawing, frame: Frame, side: int) -> Element:
    """A document that shows this square of a drawing, and nothing beyond its canvas.

    Args:
        side: in pixels.
    """
    inner = copy.copy(drawing.root)
    inner.attrib = dict(drawing.root.attrib)
    for name in ("width", "height", "viewBox", "preserveAspectRatio", "overflow", "x", "y"):
        inner.attrib.pop(name, None)
    left, top, width, height = map(repr, drawing.canvas)
    inner.attrib |= {"x": left, "y": top, "width": width, "height": height}
    inner.attrib |= {"viewBox": f"{left} {top} {width} {height}"}
    inner.set("style", _inline(declarations(inner.get("style", "")) | {"overflow": "hidden"}))
    size = {"width": str(side), "height": str(side), "viewBox": " ".join(map(repr, frame))}
    outer = Element(f"{{{NAMESPACE}}}svg", size)
    outer.append(inner)
    return outer


def render(document: Element, crisp: bool) -> UInt8[np.ndarray, "R R 4"]:
    """Draws a document: red, green, blue and alpha, not premultiplied.

    Args:
        crisp: every pixel is of one shape, none mixed.

    Raises:
        DrawingError: it cannot be drawn.
        CaseError: the extra `art` is not installed.
    """
    try:
        import resvg_py  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise CaseError(
            Path("resvg_py"),
            "SVG files are drawn by resvg",
            expected="the package resvg-py",
            got="none",
            fix="install the extra: pip install '.[art]'",
        ) from None
    ET.register_namespace("", NAMESPACE)
    try:
        found = resvg_py.svg_to_bytes(
            svg_string=ET.tostring(document, encoding="unicode"),
            dpi=96.0,  # without it, lengths in points and millimetres are none
            skip_system_fonts=True,
            shape_rendering="crisp_edges" if crisp else "geometric_precision",
        )
    except ValueError:
        raise DrawingError("damaged") from None
    except BaseException as error:  # of a panic in Rust, whose class cannot be imported
        if type(error).__name__ != "PanicException":
            raise
        raise DrawingError("resvg cannot draw it") from None
    return np.array(Image.open(io.BytesIO(bytes(found))).convert("RGBA"))


def line_art(document: Element, scale: float, width: float) -> Element:
    """A copy of what `framed` made, in which all paint is white with a black outline, or ink.

    Args:
        scale: pixels per unit of the document.
        width: of an outline, in pixels.

    Raises:
        DrawingError: it repeats itself without end.
    """
    root = copy.deepcopy(document)
    write_out_uses(root)
    sheet = Sheet(root)
    for element in root.iter(f"{{{NAMESPACE}}}style"):
        element.text = (element.text or "").replace("!important", "")
    _repaint_children(root, sheet, _Pen({}, 1.0, scale, False), width)
    return root


def write_out_uses(root: Element) -> None:
    """Puts a copy of what it repeats in the place of each `use`, in place.

    Raises:
        DrawingError: it repeats itself without end, or very often.
    """
    targets = {key: element for element in root.iter() if (key := element.get("id"))}
    room = MOST_ELEMENTS

    def walk(parent: Element, above: frozenset[str]) -> None:
        nonlocal room
        for position, child in enumerate(list(parent)):
            inside = above | {child.get("id", "")}
            if local(child) == "use":
                name = link(child)
                target = targets.get(name)
                room -= 1 if target is None else sum(1 for _ in target.iter())
                if name in inside or room < 0:
                    raise DrawingError("repeats itself")
                parent[position] = child = _written_out(child, target)
                inside |= {name}
            if local(child) not in DEFINITIONS:
                walk(child, inside)

    walk(root, frozenset())


def _written_out(use: Element, target: Element | None) -> Element:
    kept = {k: v for k, v in use.attrib.items() if k not in ("x", "y", "width", "height", *LINKS)}
    moved = f"translate({length(use.get('x'), 0.0)!r} {length(use.get('y'), 0.0)!r})"
    group = Element(
        f"{{{NAMESPACE}}}g", kept | {"transform": f"{use.get('transform', '')} {moved}".strip()}
    )
    if target is not None:
        made = copy.deepcopy(target)
        made.attrib.pop("id", None)
        if local(made) == "symbol":
            made.tag = f"{{{NAMESPACE}}}{'svg' if made.get('viewBox') else 'g'}"
            made.attrib |= {k: v for k in ("width", "height") if (v := use.get(k))}
        group.append(made)
    return group


def _repaint_children(parent: Element, sheet: Sheet, pen: _Pen, width: float) -> None:
    """Repaints what is in an element, in place."""
    made = []
    for child in list(parent):
        name = local(child)
        if name in DEFINITIONS:
            made.append(child)
            continue
        own = sheet.style(child)
        style = pen.style | {k: v for k, v in own.items() if k in INHERITED and v != "inherit"}
        inner = _Pen(
            style,
            pen.opacity * opacity(own.get("opacity")),
            pen.scale * _scale(child),
            pen.soft or sheet.blurred(own),
        )
        if own.get("display") == "none":
            continue
        if name in SHAPES:
            made += _repainted(child, sheet, inner, width)
        elif name in GROUPS:
            child.set("style", _inline(declarations(child.get("style", "")) | UNPAINTED))
            _repaint_children(child, sheet, inner, width)
            made.append(child)
    parent[:] = made


def _repainted(shape: Element, sheet: Sheet, pen: _Pen, width: float) -> list[Element]:
    """What is drawn of a shape: nothing, one outline, or the two edges of a band."""
    style = pen.style
    if pen.soft or style.get("visibility", "visible") != "visible":
        return []
    fill = sheet.color(style.get("fill", "black"), style)
    if local(shape) == "line" or _opacity(style, "fill", pen) < FAINT_FILL:
        fill = None
    stroke = sheet.color(style.get("stroke", "none"), style)
    stroke_width = length(style.get("stroke-width"), 1.0)
    if stroke_width <= 0 or _opacity(style, "stroke", pen) < FAINT_STROKE:
        stroke = None
    line = width / pen.scale  # in the shape's own units
    inside = "none" if fill is None else INK if is_ink(fill) else PAPER
    if stroke is None and inside == PAPER:
        layers = [(PAPER, INK, line)]
    elif stroke is None:
        layers = [(INK, "none", 0.0)] if inside == INK else []
    elif is_ink(stroke):
        layers = [(inside, INK, min(max(stroke_width, 0.8 * line), WIDEST * line))]
    elif stroke_width <= THIN * line:
        layers = [(inside, INK, line)]
    else:
        layers = [(inside, INK, stroke_width + line), ("none", PAPER, stroke_width - line)]
    return [_painted(shape, *layer) for layer in layers]


def _opacity(style: dict[str, str], what: str, pen: _Pen) -> float:
    return pen.opacity * opacity(style.get(f"{what}-opacity"))


def _painted(shape: Element, fill: str, stroke: str, width: float) -> Element:
    made = copy.deepcopy(shape)
    made.attrib.pop("id", None)
    paint = {"fill": fill, "stroke": stroke, "stroke-width": repr(width)}
    made.set("style", _inline(declarations(shape.get("style", "")) | OUTLINE | paint))
    return made


def _inline(style: dict[str, str]) -> str:
    return ";".join(f"{name}:{value}" for name, value in style.items())


def _scale(element: Element) -> float:
    """By how much an element enlarges what is in it: the root of the area's factor."""
    factor = 1.0
    for name, text in re.findall(r"(matrix|scale)\s*\(([^)]*)\)", element.get("transform", "")):
        words = [float(word) for word in re.findall(NUMBER, text)]
        if name == "matrix" and len(words) == 6:
            factor *= math.sqrt(abs(words[0] * words[3] - words[1] * words[2]))
        elif name == "scale" and words:
            factor *= math.sqrt(abs(words[0] * words[-1]))
    box = [float(word) for word in re.findall(NUMBER, element.get("viewBox", ""))]
    if local(element) == "svg" and len(box) == 4 and min(box[2:]) > 0:
        named = zip(("width", "height"), box[2:], strict=True)
        factor *= min(length(element.get(name), own) / own for name, own in named)
    return factor or 1.0
