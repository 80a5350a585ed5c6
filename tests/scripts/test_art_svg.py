"""Line art from geometry: the same whatever the colours, black and white only."""

import re

import numpy as np
import pytest
from art_style import NAMESPACE, Sheet, is_ink, local, parse_color
from art_svg import SHAPES, DrawingError, Frame, framed, line_art, read_svg, render

OPEN = (
    '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
    'viewBox="0 0 16 16">'
)
SIDE, WIDTH = 160, 2.0
"""Of a picture, ten pixels a unit; of an outline, in pixels."""
LINE = WIDTH * 16 / SIDE
"""In units."""


def document(body: str, head: str = OPEN):
    drawing = read_svg(f"{head}{body}</svg>".encode())
    return framed(drawing, Frame(0.0, 0.0, 16.0, 16.0), SIDE)


def painted(body: str) -> list[tuple[str, str, str, float]]:
    """Shape, fill, stroke and width of a stroke in units, of the line art of a body."""
    found = []
    for element in line_art(document(body), SIDE / 16, WIDTH).iter():
        # Those in definitions are left as they are.
        if local(element) in SHAPES and "stroke-width" in (text := element.get("style", "")):
            style = dict(part.split(":", 1) for part in text.split(";"))
            width = float(style["stroke-width"])
            found.append((local(element), style["fill"], style["stroke"], round(width, 4)))
    return found


def test_a_shape_is_white_with_a_black_outline_whatever_its_colour():
    for paint in ("red", "#fe0", "rgb(10%, 80%, 90%)", "hsl(120, 50%, 50%)", "url(#unknown)"):
        assert painted(f'<circle r="4" fill="{paint}"/>') == [("circle", "#fff", "#000", LINE)]


def test_near_black_stays_ink():
    assert painted('<rect width="4" height="4" fill="#111"/>') == [("rect", "#000", "none", 0.0)]
    assert painted('<path d="M0 0h4" fill="none" stroke="black" stroke-width=".4"/>') == [
        ("path", "none", "#000", 0.4)
    ]
    assert is_ink((30, 30, 40)) and not is_ink((0, 0, 128)) and not is_ink((90, 90, 90))


def test_shapes_keep_their_order():
    body = '<rect width="8" height="8" fill="red"/><circle r="3" fill="blue"/>'
    assert [shape[0] for shape in painted(body)] == ["rect", "circle"]


@pytest.mark.parametrize(
    "shape",
    [
        '<rect width="4" height="4" fill="none"/>',
        '<rect width="4" height="4" fill="red" opacity=".3"/>',
        '<g opacity=".7"><rect width="4" height="4" fill="red" style="fill-opacity:70%"/></g>',
        '<g display="none"><rect width="4" height="4" fill="red"/></g>',
        '<rect width="4" height="4" style="visibility:hidden"/>',
        '<rect width="4" height="4" style="mix-blend-mode:multiply"/>',
        '<filter id="b"><feGaussianBlur/></filter><g filter="url(#b)"><circle r="2"/></g>',
        '<linearGradient id="g"><stop stop-opacity="0"/></linearGradient>'
        '<linearGradient id="h" xlink:href="#g"/><circle r="2" fill="url(#h)"/>',
        '<path d="M0 0h4" fill="none" stroke="red" stroke-opacity=".2"/>',
        '<symbol id="s"><circle r="2"/></symbol>',
        "<text>words</text>",
    ],
)
def test_shading_and_what_is_hidden_have_no_outline(shape):
    assert painted(shape) == []


def test_a_shadow_that_is_not_a_blur_leaves_its_shape_crisp():
    shadow = '<filter id="i"><feGaussianBlur/><feBlend/></filter>'
    assert len(painted(f'{shadow}<circle r="2" filter="url(#i)" fill="red"/>')) == 1


def test_a_wide_coloured_stroke_has_two_edges():
    band = '<path d="M0 0h9" fill="none" stroke="red" stroke-width="3"/>'
    outer, inner = painted(band)
    assert outer == ("path", "none", "#000", 3 + LINE)
    assert inner == ("path", "none", "#fff", 3 - LINE)
    thin = '<path d="M0 0h9" fill="none" stroke="red" stroke-width=".5"/>'
    assert painted(thin) == [("path", "none", "#000", LINE)]


def test_lines_are_as_wide_in_every_scale():
    inside = '<g transform="translate(3 1) scale(2)"><g transform="matrix(0 3 -3 0 1 1)">{}</g></g>'
    ((_, _, _, width),) = painted(inside.format('<circle r="1" fill="red"/>'))
    assert width == pytest.approx(LINE / 6, abs=1e-4)


def test_rules_attributes_and_styles_come_in_this_order():
    rules = "<style>/* x */ circle{fill:none} .a, .b{fill:#111} #c{fill:red !important}</style>"
    for attributes, fill in (
        ('fill="red"', None),
        ('class="b"', "#000"),
        ('class="b" id="c"', "#fff"),
        ('class="b" style="fill:blue"', "#fff"),
    ):
        found = painted(f'{rules}<circle r="2" {attributes}/>')
        assert [shape[1] for shape in found] == ([] if fill is None else [fill])


def test_repetitions_are_painted_as_they_are_used():
    body = (
        '<defs><g id="two"><circle r="1"/><use href="#one" x="3"/></g><rect id="one" '
        'width="2" height="2"/></defs><use xlink:href="#two" fill="red"/><use href="#two"/>'
    )
    assert [shape[:2] for shape in painted(body)] == [
        ("circle", "#fff"),
        ("rect", "#fff"),
        ("circle", "#000"),
        ("rect", "#000"),
    ]


@pytest.mark.parametrize(
    "body",
    [
        '<g id="a"><use href="#a"/></g>',
        '<g id="a"><use href="#b"/></g><g id="b"><use href="#a"/></g>',
        '<g id="a"><circle r="1"/></g>'
        + "".join(
            f'<g id="{new}">' + f'<use href="#{old}"/>' * 9 + "</g>"
            for old, new in zip("abcdef", "bcdefg", strict=True)
        ),
    ],
)
def test_what_repeats_itself_without_end_is_refused(body):
    with pytest.raises(DrawingError, match="repeats itself"):
        painted(body)


def test_only_black_and_white_are_left_of_paint():
    body = (
        '<style>.a{fill:#c0ffee !important;stroke:#345678}</style><g fill="teal" filter="url(#f)">'
        '<path d="M0 0h4v4z" class="a" stroke-width="2" marker-end="url(#m)"/></g>'
    )
    root = line_art(document(body), SIDE / 16, WIDTH)
    shapes = [element for element in root.iter() if local(element) in SHAPES]
    assert len(shapes) == 2
    for shape in shapes:
        colors = set(re.findall(r"(?:fill|stroke):([^;]+)", shape.get("style", "")))
        assert colors <= {"#000", "#fff", "none"}
        assert "marker-end:none" in shape.get("style", "")
    assert all("important" not in (element.text or "") for element in root.iter())
    (group,) = root.iter(f"{{{NAMESPACE}}}g")
    assert "filter:none" in group.get("style", "")


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"<svg", "damaged"),
        (b"", "damaged"),
        (b"\xff\xfe\x00", "damaged"),
        (b"<html/>", "damaged"),
        (b"<svg><circle r='1'/></svg>", "no size"),
        (b"<svg width='100%' height='100%'/>", "no size"),
        (b"<svg viewBox='0 0 0 4'/>", "no size"),
        (b"<svg viewBox='0 0 4 4'><g><image href='/etc/passwd'/></g></svg>", "a picture inside"),
        (
            b'<!DOCTYPE svg [<!ENTITY x SYSTEM "file:///etc/passwd">]>'
            b"<svg viewBox='0 0 4 4'><title>&x;</title></svg>",
            "damaged",
        ),
    ],
)
def test_what_cannot_be_drawn_says_why(data, why):
    with pytest.raises(DrawingError, match=why):
        read_svg(data)


class PanicException(BaseException):
    """As what is written in Rust raises: of a class that cannot be imported."""


@pytest.mark.parametrize(
    ("raised", "seen"), [(PanicException, DrawingError), (KeyboardInterrupt, KeyboardInterrupt)]
)
def test_a_panic_of_resvg_costs_one_drawing(raised, seen, monkeypatch):
    resvg = pytest.importorskip("resvg_py")

    def fail(**_):
        raise raised

    monkeypatch.setattr(resvg, "svg_to_bytes", fail)
    with pytest.raises(seen):
        render(document("<circle r='4'/>"), crisp=True)


def test_sizes_are_read_in_their_units():
    assert read_svg(b"<svg width='1in' height='.5in'/>").canvas == (0, 0, 96, 48)
    assert read_svg(b"<svg width='9' viewBox='-1,2 3e1 4'/>").canvas == (-1, 2, 30, 4)


def test_what_a_viewer_shows_beside_the_view_box_is_part_of_the_canvas():
    wide = read_svg(b"<svg width='90' height='20' viewBox='0 0 30 10'/>")
    assert wide.canvas == (-7.5, 0, 45, 10)
    high = read_svg(b"<svg width='3cm' height='6cm' viewBox='1 1 10 10'/>")
    assert high.canvas == (1, -4, 10, 20)


def test_colours_as_css_writes_them():
    assert parse_color("#1a2") == (0x11, 0xAA, 0x22)
    assert parse_color("rgb(1, 2, 3)") == (1, 2, 3)
    assert parse_color("#010203 icc-color(x)") == (1, 2, 3)
    assert parse_color("no colour") == (200, 200, 200)
    sheet = Sheet(read_svg(f"{OPEN}</svg>".encode()).root)
    assert sheet.color("currentColor", {"color": "#010203"}) == (1, 2, 3)


def test_pictures_are_crisp_and_lines_do_not_tell_colours():
    pytest.importorskip("resvg_py", reason="resvg draws SVG (extra `art`)")
    body = (
        '<rect x="1" y="1" width="12" height="12" fill="{}" shape-rendering="auto"/>'
        '<circle cx="9" cy="9" r="5" fill="{}" style="shape-rendering:geometricPrecision"/>'
    )
    red, blue = (document(body.format(*paints)) for paints in (("red", "lime"), ("blue", "white")))
    color = render(red, crisp=True)
    assert color.shape == (SIDE, SIDE, 4)
    shown = {tuple(c) for c in color[color[..., 3] > 0].tolist()}
    assert shown == {(255, 0, 0, 255), (0, 255, 0, 255)}
    lines = [render(line_art(each, SIDE / 16, WIDTH), crisp=False) for each in (red, blue)]
    np.testing.assert_array_equal(*lines)
    assert (lines[0][..., 0] == lines[0][..., 1]).all()
    assert lines[0][10:130, 9:11, 0].max() == 0, "the left edge, two pixels wide"
    assert lines[0][90, 90, 0] == 255, "the square's corner is hidden by the disc"


def test_lengths_are_drawn_in_their_units():
    pytest.importorskip("resvg_py", reason="resvg draws SVG (extra `art`)")
    band = '<path d="M0 8h16" stroke="red" stroke-width="3pt"/>'
    shown = render(document(band), crisp=True)[:, SIDE // 2, 3] > 0
    assert shown.sum() == 40


def test_nothing_beyond_the_canvas_is_shown():
    pytest.importorskip("resvg_py", reason="resvg draws SVG (extra `art`)")
    drawing = read_svg(f'{OPEN}<circle cx="16" cy="8" r="6" fill="red"/></svg>'.encode())
    shown = render(framed(drawing, Frame(0.0, 0.0, 32.0, 32.0), SIDE), crisp=True)[..., 3]
    assert shown[:, :79].any() and not shown[:, 81:].any()
