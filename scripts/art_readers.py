"""What each kind of package holds: subjects, each with one or several drawings as SVG.

Licences are checked against the package's own word, and OpenClipart's against each file's.
"""

import json
import re
import subprocess
import tempfile
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from art_packages import bring, contents, need_node, unpack
from art_sources import Source

from magiccolor_jax.data.pictures import CaseError

EXPRESSIONS = 3
"""Drawings of each of DiceBear's characters."""

MOST_BYTES = 600_000
"""Larger SVG files hold traced photographs."""

OPENCLIPART = "usr/share/openclipart/svg/"
DICEBEAR_SCRIPT = Path(__file__).with_name("art_dicebear.mjs")
DICEBEAR_MINUTES = 10

RDF = "{http://www.w3.org/1999/02/22-rdf-syntax-ns#}"
FREE = re.compile(r"public\s*domain", re.IGNORECASE)
"""In the address of a licence that a file of OpenClipart's names."""


class Subject(NamedTuple):
    """What a group of drawings shows."""

    id: str
    drawings: tuple[bytes, ...]
    """SVG files."""
    author: str = ""
    """Where its file names one."""
    problem: str = ""
    """Why it cannot be used, where that is known before it is drawn."""


def subjects(source: Source, folder: Path, npm_registry: str | None = None) -> list[Subject]:
    """All subjects of a source, in an order of their own.

    Args:
        folder: where its packages are, or are brought to.

    Raises:
        CaseError: a package cannot be had or read, or names another licence.
    """
    paths = [bring(package, folder, npm_registry) for package in source.packages]
    try:
        found = list(READERS[source.kind](source, paths))
    except (KeyError, TypeError, AttributeError, json.JSONDecodeError) as error:
        raise _unlike(paths[-1], f"the files of {source.kind}", repr(error)) from error
    if not found:
        raise _unlike(paths[-1], "drawings", "none")
    return found


def _check_licence(source: Source, path: Path, content: bytes | None) -> None:
    """The package itself says what the table says."""
    file, words = source.proof
    if content is None or words not in content.decode(errors="replace"):
        raise CaseError(
            path,
            "a source is used under the licence that its package names",
            expected=f"{words!r} in {file}",
            got="no such file" if content is None else "other words",
            fix="read the licence, and correct or remove the source in scripts/art_sources.py",
        )


def _iconify(source: Source, paths: list[Path]) -> Iterator[Subject]:
    """Iconify's JSON: name -> body of an SVG, its size beside it or in common."""
    (path,) = paths
    files = contents(path)
    _check_licence(source, path, files.get(source.proof[0]))
    common = json.loads(files["package/icons.json"])
    width = common.get("width", 16)
    sizes = {"left": 0, "top": 0, "width": width, "height": common.get("height", width)}
    for name, icon in common["icons"].items():
        if icon.get("hidden") or re.search(source.left_out, name):
            continue
        box = " ".join(str(icon.get(part, default)) for part, default in sizes.items())
        svg = (
            '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
            f'viewBox="{box}">{icon["body"]}</svg>'
        )
        yield Subject(f"{source.name}/{name}", (svg.encode(),))


def _openclipart(source: Source, paths: list[Path]) -> Iterator[Subject]:
    """Debian's tree of SVG files; many are links from one theme to another."""
    (path,) = paths
    files = contents(path)
    _check_licence(source, path, files.get(source.proof[0]))
    found = {
        name.removeprefix(OPENCLIPART).removesuffix(".svg"): content
        for name, content in files.items()
        if name.startswith(OPENCLIPART) and name.endswith(".svg")
    }
    for name, content in sorted(found.items()):
        if re.search(source.left_out, name):
            continue
        author, problem = _what_it_says(content)
        if len(content) > MOST_BYTES:
            problem = "too large a file"
        yield Subject(f"ocal/{name}", (content,), author, problem)


def _what_it_says(content: bytes) -> tuple[str, str]:
    """Author and problem, of an OpenClipart file's own record."""
    try:
        root = ET.fromstring(content)
    except ET.ParseError:
        return "", "damaged"
    author = ""
    for element in root.iter():
        if not isinstance(element.tag, str):
            continue
        name = element.tag.rpartition("}")[2]
        licence = element.get(f"{RDF}resource", "")
        if name == "license" and licence and not FREE.search(licence):
            return "", "another licence"
        if name == "creator":
            author = " ".join("".join(element.itertext()).split())
    return author, ""


def _dicebear(source: Source, paths: list[Path]) -> Iterator[Subject]:
    """Characters that DiceBear makes up, each with several expressions; runs its packages."""
    style = source.packages[-1].name.rpartition("/")[2]
    _check_licence(source, paths[-1], contents(paths[-1]).get(source.proof[0]))
    with tempfile.TemporaryDirectory(prefix="dicebear.") as name:
        for package, path in zip(source.packages, paths, strict=True):
            unpack(path, Path(name, "node_modules", package.name))
        words = [need_node(), str(DICEBEAR_SCRIPT), name, style, str(source.characters)]
        words += [str(EXPRESSIONS), ",".join(source.expression)]
        try:
            run = subprocess.run(
                words, capture_output=True, encoding="utf-8", timeout=60 * DICEBEAR_MINUTES
            )
            said = run.stderr.strip()[-500:] or f"exit code {run.returncode}"
            problem, text = said if run.returncode else "", run.stdout
        except (OSError, subprocess.TimeoutExpired) as error:
            problem, text = str(error), ""
    if problem or not text:
        raise CaseError(
            paths[-1],
            "DiceBear's packages run in Node.js 18 or later",
            expected=f"the characters of {style}",
            got=problem or "none",
            fix="see what `node --version` tells, or leave the dicebear-* out of --sources",
        )
    for line in text.splitlines():
        made = json.loads(line)
        yield Subject(made["id"], tuple(drawing.encode() for drawing in made["drawings"]))


READERS: dict[str, Callable[[Source, list[Path]], Iterator[Subject]]] = {
    "iconify": _iconify,
    "openclipart": _openclipart,
    "dicebear": _dicebear,
}


def _unlike(path: Path, expected: str, got: str) -> CaseError:
    return CaseError(
        path,
        "a package holds what its kind holds",
        expected=expected,
        got=got,
        fix="correct its row in scripts/art_sources.py",
    )
