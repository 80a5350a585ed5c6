"""The builder of libraries: packages in, a library that training reads out, with its names."""

import dataclasses
import functools
import hashlib
import io
import json
import re
from pathlib import Path

import art_drawing
import build_art
import numpy as np
import pytest
from art_drawing import COLORS, Group, draw_group
from art_packages import Package
from art_readers import Subject, subjects
from art_sources import CC_BY, MIT, PUBLIC_DOMAIN, SOURCES, Source, choose
from art_svg import DrawingError
from build_art import Args, Part, write_library
from oracles import workers
from oracles.packages import deb, iconify, pinned, tgz, toys
from rich.console import Console

from magiccolor_jax.data.art import NEVER_TRAINED, read_art
from magiccolor_jax.data.compose import ArtScenes
from magiccolor_jax.data.pictures import CaseError

SIDE = 64
COLOURS = ("#c33", "#2a6", "#36c", "#d92", "#83b", "#0aa", "#b64")
GOOD = (
    '<circle cx="8" cy="8" r="6" fill="{}"/><path d="M4 8h8v3H4z" fill="{}"/>'
    '<circle cx="8" cy="5" r="1.4" fill="#111"/>'
)
ICONS = {f"toy-{n}": GOOD.format(c, COLOURS[n - 1]) for n, c in enumerate(COLOURS)}
BAD = {
    "broken": "<g>",
    "left-arrow": ICONS["toy-1"],
    "plain": '<circle cx="8" cy="8" r="6" fill="red"/>',
    "grey-box": '<rect width="16" height="16" fill="#999"/>',
}


@pytest.fixture
def stub(monkeypatch):
    """Draws without resvg: a disc whose colours its file decides; counts what it drew."""
    drawn = []

    def draw(files: tuple[bytes, ...], side: int) -> Group:
        drawn.append(files)
        if b"<g></svg>" in files[0]:
            raise DrawingError("damaged")
        y, x = np.indices((side, side)) - side / 2
        disc = np.where(np.hypot(x, y) < side / 3, 1 + (x > 0), 0).astype(np.uint8)
        lines = np.where(np.abs(np.hypot(x, y) - side / 3) < 1, 0, 255).astype(np.uint8)
        palette = np.zeros((COLORS + 1, 3), np.uint8)
        palette[1:3] = np.frombuffer(hashlib.sha256(files[0]).digest()[:6], np.uint8).reshape(2, 3)
        measures = {"fill": 0.8, "asp": 1.0, "chr": 1.0, "ncol": 2, "ink": 0.1, "ncolors": 2}
        stack = functools.partial(np.repeat, repeats=len(files), axis=0)
        return Group(palette, stack(disc[None]), stack(lines[None]), measures)

    monkeypatch.setattr(build_art, "draw_group", draw)
    return drawn


@pytest.fixture
def args(tmp_path):
    return Args(out=tmp_path / "art.npz", work=tmp_path / "work", side=SIDE, processes=1)


def built(args: Args, sources: list[Source]) -> str:
    """What is printed."""
    console = Console(file=io.StringIO(), width=200)
    build_art.build(args, sources, console)
    return console.file.getvalue()  # pyright: ignore[reportAttributeAccessIssue]


def source_of(args: Args, icons: dict[str, str], **row) -> Source:
    licence = row.get("licence", MIT)
    content = iconify(icons, licence, ghost={"body": "", "hidden": True})
    package = pinned(args.work / "packages", content, f"@{row.get('name', 'toys')}/icons")
    return toys(package, licence=licence, **{k: v for k, v in row.items() if k != "licence"})


def test_packages_become_a_library_that_pages_are_composed_of(args):
    pytest.importorskip("resvg_py", reason="resvg draws SVG (extra `art`)")
    printed = built(args, [source_of(args, ICONS | BAD)])
    art = read_art(args.out)
    assert art.side == SIDE
    assert [entry["id"] for entry in art.meta] == [f"toys/{name}" for name in ICONS]
    assert {(e["src"], e["lic"], e["n"], e["ncolors"]) for e in art.meta} == {("toys", "MIT", 1, 3)}
    for group, paint in enumerate(COLOURS):
        shown = {tuple(c) for c in art.palettes[group][1:4].tolist()}
        assert tuple(int(digit * 2, 16) for digit in paint[1:]) in shown
    assert (art.indices[0] > 0).any(axis=1).sum() == SIDE - 8
    np.testing.assert_array_equal(art.lines[0], art.lines[3])
    rejected = json.loads(args.out.with_name("art_rejected.json").read_text())["toys"]
    assert rejected["toys/broken"] == "damaged" and rejected["toys/plain"] == "one colour"
    assert rejected["toys/grey-box"] == "a full rectangle"
    assert "damaged 1" in printed
    scene = ArtScenes(args.out)[3]
    assert scene.target.shape == (SIDE, SIDE, 3) and len(scene.masks) == len(scene.views)


def test_the_attribution_names_everybody(args, stub):
    sources = [
        source_of(args, ICONS),
        source_of(args, {"two": "<b/>", "three": "<c/>"}, name="prints", licence=CC_BY),
    ]
    built(args, sources)
    text = args.out.with_name("art_attribution.md").read_text()
    assert text.startswith("# Attribution") and f"{SIDE} x {SIDE}" in text
    for words in (
        "## Toy Icons",
        "- by A. Maker",
        "<https://toys.example/>",
        "[CC BY 4.0](https://creativecommons.org/licenses/by/4.0/)",
        "`prints`, 2 groups, 2 drawings",
        "`toys`, 7 groups, 7 drawings",
        "Copyright (c) A. Maker",
        "They were changed",
    ):
        assert words in text


def test_an_interrupted_run_goes_on(args, stub):
    one, two = source_of(args, ICONS), source_of(args, {"other": "<b/>"}, name="prints")
    gone = two._replace(packages=(Package("npm", "@none/none", "1", "0" * 64),))
    with pytest.raises(CaseError, match="pinned packages"):
        built(args, [one, gone])
    assert len(stub) == len(ICONS) and not args.out.exists()
    printed = built(args, [one, two])
    assert len(stub) == len(ICONS) + 1 and "toys: as drawn before" in printed
    whole = args.out.read_bytes()
    built(args, [one, two])
    assert len(stub) == len(ICONS) + 1 and args.out.read_bytes() == whole
    (part,) = (args.work / "parts").glob("prints_*")
    part.write_bytes(part.read_bytes()[:100])
    assert "damaged" in built(args, [one, two])
    assert len(stub) == len(ICONS) + 2 and args.out.read_bytes() == whole
    built(args, [one, two._replace(title="Another row")])
    assert len(stub) == len(ICONS) + 3, "a changed row is drawn again"


def test_several_processes_draw(args, monkeypatch):
    """In order; one that dies, as for want of memory, is missed."""
    asked = [Subject(str(number), ()) for number in range(3 * build_art.CHUNK)]
    two = dataclasses.replace(args, processes=2)
    monkeypatch.setattr(build_art, "_try", workers.refuses)
    drawn = list(build_art._drawn(asked, two))
    assert drawn == [f"{number} refused at {SIDE}" for number in range(len(asked))]
    monkeypatch.setattr(build_art, "_try", workers.dies)
    with pytest.raises(CaseError, match="fewer --processes"):
        list(build_art._drawn(asked, two))


def test_a_package_under_another_licence_is_refused(args, stub):
    source = source_of(args, ICONS)
    with pytest.raises(CaseError, match='expected \'"spdx": "CC-BY-4.0"\''):
        built(args, [source._replace(proof=(source.proof[0], '"spdx": "CC-BY-4.0"'))])
    with pytest.raises(CaseError, match="no such file"):
        built(args, [source._replace(proof=("package/LICENSE", "MIT"))])
    assert not stub


def test_a_package_of_another_kind_is_refused(args, stub):
    content = tgz({"package/info.json": b'"spdx": "MIT"', "package/icons.json": b'{"icons": 1}'})
    source = toys(pinned(args.work / "packages", content), licence=MIT)
    with pytest.raises(CaseError, match="a package holds what its kind holds"):
        built(args, [source])


@pytest.mark.parametrize("name", NEVER_TRAINED)
def test_what_is_never_trained_on_is_refused(args, stub, name):
    with pytest.raises(CaseError, match="some sources never are"):
        choose((name,))
    source = source_of(args, ICONS)
    with pytest.raises(CaseError, match="some sources never are"):
        built(args, [source._replace(name=f"{name}-extra")])
    word = name.removeprefix("dicebear-")
    package = source.packages[0]._replace(name=f"@iconify-json/{word}-emojis")
    with pytest.raises(CaseError, match="some sources never are"):
        built(args, [source._replace(packages=(package,))])
    empty = np.ones((1, SIDE, SIDE), np.uint8)
    meta = [{"id": "x", "src": name, "lic": "MIT", "first": 0, "n": 1}]
    with pytest.raises(CaseError, match="some sources never are"):
        write_library(args.out, Part(np.zeros((1, 64, 3), np.uint8), empty, empty, meta, {}))
    assert not stub and not args.out.exists()


def test_the_table_holds_nothing_that_is_never_trained_on():
    assert len(choose(())) == len(SOURCES) == 13
    assert [source.name for source in choose(("fluent", "noto"))] == ["noto", "fluent"]
    with pytest.raises(CaseError, match="one of dicebear-adventurer"):
        choose(("notto",))
    digests = [package.sha256 for source in SOURCES.values() for package in source.packages]
    assert all(len(digest) == 64 for digest in digests)


def test_an_unreadable_library_never_replaces_one(args):
    args.out.write_bytes(b"the old one")
    empty = np.zeros((1, SIDE, SIDE), np.uint8)
    meta = [{"id": "x", "src": "toys", "lic": "MIT", "first": 0, "n": 1}]
    with pytest.raises(CaseError, match="without a pixel"):
        write_library(args.out, Part(np.zeros((1, 64, 3), np.uint8), empty, empty, meta, {}))
    assert args.out.read_bytes() == b"the old one"
    assert [file.name for file in args.out.parent.iterdir() if file.is_file()] == ["art.npz"]


def test_small_libraries_take_some_of_each_source(args, stub):
    sources = [source_of(args, ICONS), source_of(args, {"a": "<b/>"}, name="prints")]
    built(dataclasses.replace(args, most=3), sources)
    art = read_art(args.out)
    assert [entry["src"] for entry in art.meta] == ["toys"] * 3 + ["prints"]
    built(args, sources)
    kept = {entry["id"] for entry in art.meta}
    assert kept < {entry["id"] for entry in read_art(args.out).meta}


def test_the_same_drawing_under_two_names_is_there_once(args, stub):
    printed = built(args, [source_of(args, ICONS | {"toy-0-again": ICONS["toy-0"]})])
    assert "there twice 1" in printed and len(read_art(args.out).meta) == len(ICONS)


def test_openclipart_says_who_drew_what_and_under_which_licence(args, stub):
    svg = (
        '<svg xmlns:c="c" xmlns:r="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><metadata>'
        '<c:creator><c:title>\n {} </c:title></c:creator><c:license r:resource="{}"/>'
        "</metadata></svg>"
    )
    free, gpl = "http://web.resource.org/cc/PublicDomain", "http://x/licenses/GPL/2.0/"
    root = "./usr/share/openclipart/svg/"
    files = {
        "./usr/share/doc/openclipart-svg/copyright": b"creative commons Public Domain Dedication",
        f"{root}animals/cat.svg": svg.format("Ann", free).encode(),
        f"{root}animals/dog.svg": svg.format("Bob", gpl).encode(),
        f"{root}food/pie.svg": b"<svg",
        f"{root}computer/icons/pc.svg": svg.format("Eve", "").encode(),
    }
    links = {f"{root}office/pc.svg": "../computer/icons/pc.svg"}
    package = pinned(args.work / "packages", deb(files, links), "openclipart-svg", "debian")
    source = SOURCES["openclipart"]._replace(packages=(package,))
    found = {s.id: (s.author, s.problem) for s in subjects(source, args.work / "packages")}
    assert found == {
        "ocal/animals/cat": ("Ann", ""),
        "ocal/animals/dog": ("", "another licence"),
        "ocal/food/pie": ("", "damaged"),
        "ocal/office/pc": ("Eve", ""),
    }
    built(args, [source])
    text = args.out.with_name("art_attribution.md").read_text()
    assert "named in their files: Ann, Eve" in text and PUBLIC_DOMAIN.title in text


def test_names_tell_what_is_left_out():
    def kept(source: str, *names: str) -> list[str]:
        return [name for name in names if not re.search(SOURCES[source].left_out, name)]

    things = ("mushroom", "handbag", "flying-saucer", "man-raising-hand", "vertical-traffic-light")
    signs = ("man-medium-dark", "flag-chad", "left-arrow", "ok-hand", "ten-oclock", "e-mail")
    assert kept("noto", *things, *signs) == list(things)
    assert kept("fxemoji", "blackrightwardsarrow", "blossom") == ["blossom"]


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ('<rect width="16" height="16" fill="red"/>', "a full rectangle"),
        ('<path d="M1 1L15 15" stroke="red" stroke-width=".6"/>', "thin"),
        ('<path d="M0 7h16v3l-15 1z" fill="red"/>', "aspect"),
        ('<circle cx="8" cy="8" r="6" fill="#999"/>', "grey"),
        ('<circle cx="8" cy="8" r="6" fill="red"/>', "one colour"),
        (GOOD.format("red", "#39f"), None),
        ('<circle cx="8" cy="8" r="7" fill="red"/><path d="M2 5h12v8H2z"/>',
         "ink all over"),
        ("".join(f'<circle cx="{x}" cy="{y}" r="3" fill="{c}"/>' for x, y, c in (
            (3, 3, "red"), (13, 3, "blue"), (3, 13, "lime"), (13, 13, "teal"))), "scattered"),
        ('<linearGradient id="g"><stop stop-color="red"/><stop offset="2" stop-color="blue" '
         'stop-opacity=".2"/></linearGradient><circle cx="8" cy="8" r="7" fill="url(#g)"/>'
         '<circle cx="8" cy="8" r="3" fill="lime"/>', "edges without lines"),
        ('<circle cx="8" cy="8" r=".5" fill="red"/>', "small"),
        ("", "empty"),
    ],
)  # fmt: skip
def test_drawings_that_are_no_good_say_why(body, why):
    pytest.importorskip("resvg_py", reason="resvg draws SVG (extra `art`)")
    svg = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 16 16">{body}</svg>'
    if why is None:
        assert draw_group((svg.encode(),), SIDE).measures["ncol"] == 3
        return
    with pytest.raises(DrawingError, match=why):
        draw_group((svg.encode(),), SIDE)


def test_the_drawings_of_a_group_share_a_palette():
    shades = np.stack(np.meshgrid(*[np.arange(0, 250, 50)] * 3), -1).reshape(1, -1, 3)
    pictures = np.full((2, 25, 10, 4), 255, np.uint8)
    pictures[0, :, :5, :3] = shades.reshape(25, 5, 3)
    pictures[1, 0, 0, 3] = 100
    palette, indices = art_drawing.shared_palette(pictures)
    assert palette.shape == (64, 3) and indices.max() == COLORS and not palette[0].any()
    assert indices[1, 0, 0] == 0 and (indices[0] > 0).all()
    assert len(np.unique(indices[1][indices[1] > 0])) == 1, "white is one colour"
    gap = np.abs(palette[indices].astype(int) - pictures[..., :3])[indices > 0]
    assert gap.max() < 80 and gap.mean() < 20
    pictures[1, :, :, 3] = 0
    with pytest.raises(DrawingError, match="empty"):
        art_drawing.shared_palette(pictures)


@pytest.mark.parametrize(
    "wrong", [{"side": 8}, {"processes": 0}, {"most": 0}, {"out": Path("art.zip")}]
)
def test_settings_are_checked(wrong):
    with pytest.raises(ValueError, match="expected"):
        Args(**wrong)


def test_permissive_leaves_out_what_asks_for_names(args):
    with pytest.raises(CaseError, match="leave out --permissive"):
        build_art.main(dataclasses.replace(args, sources=("twemoji",), permissive=True))
