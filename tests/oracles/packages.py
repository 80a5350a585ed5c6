"""Hand-made packages, as npm's and Debian's registries serve them."""

import hashlib
import io
import json
import tarfile
from pathlib import Path

from art_packages import Package
from art_sources import APACHE, Licence, Source


def _tar(mode: str, files: dict[str, bytes], links: dict[str, str]) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode=mode) as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
        for name, target in links.items():
            member = tarfile.TarInfo(name)
            member.type, member.linkname = tarfile.SYMTYPE, target
            archive.addfile(member)
    return made.getvalue()


def tgz(files: dict[str, bytes]) -> bytes:
    """An npm package; names begin with `package/`."""
    return _tar("w:gz", files, {})


def deb(files: dict[str, bytes], links: dict[str, str] | None = None) -> bytes:
    """A Debian package; names begin with `./`."""
    data = _tar("w:xz", files, links or {})
    made = b"!<arch>\n"
    for name, content in (
        ("debian-binary", b"2.0\n"),
        ("control.tar.xz", b"odd"),
        ("data.tar.xz", data),
    ):
        made += f"{name:16}{'0':12}{'0':6}{'0':6}{'100644':8}{len(content):<10}`\n".encode()
        made += content + b"\n" * (len(content) % 2)
    return made


def iconify(icons: dict[str, str], licence: Licence = APACHE, **other: dict) -> bytes:
    """A set of icons of 16 units: name -> body.

    Args:
        other: name -> a whole entry.
    """
    entries = {name: {"body": body} for name, body in icons.items()} | other
    set_ = {"prefix": "toys", "width": 16, "height": 16, "icons": entries}
    info = {"name": "Toys", "license": {"spdx": licence.name}}
    return tgz(
        {
            "package/icons.json": json.dumps(set_).encode(),
            "package/info.json": json.dumps(info, indent=1).encode(),
        }
    )


def pinned(folder: Path, content: bytes, name: str = "@toys/icons", registry="npm") -> Package:
    """The package of this content, laid into a folder of packages."""
    package = Package(registry, name, "1.0.0", hashlib.sha256(content).hexdigest())
    folder.mkdir(parents=True, exist_ok=True)
    (folder / package.file).write_bytes(content)
    return package


def toys(package: Package, name: str = "toys", licence: Licence = APACHE) -> Source:
    """The source of a set of icons."""
    return Source(
        name,
        "iconify",
        "Toy Icons",
        "A. Maker",
        "https://toys.example/",
        licence,
        (package,),
        ("package/info.json", f'"spdx": "{licence.name}"'),
    )
