"""Packages that drawings come in: brought by the registries' own clients, pinned, read as archives.

A package is kept in a folder under a name that tells its version, and is brought only where it is
not there yet: whoever has the file can put it there. Nothing in a package is run by reading it.
"""

import lzma
import posixpath
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path, PurePosixPath
from typing import IO, Literal, NamedTuple

from magiccolor_jax.data.pictures import CaseError
from magiccolor_jax.files import sha256_of

MINUTES = 20
"""After which a client is given up."""

AR_START, AR_HEADER = b"!<arch>\n", 60
"""How a Debian package begins, and bytes before each of its members."""


class Package(NamedTuple):
    """One version of a package."""

    registry: Literal["npm", "debian"]
    name: str
    version: str
    sha256: str
    """Of the file, hexadecimal."""

    @property
    def file(self) -> str:
        """Its name in a folder of packages."""
        stem = f"{self.name.removeprefix('@')}-{self.version}".replace("/", "-").replace(":", "_")
        return stem + (".tgz" if self.registry == "npm" else ".deb")


def bring(package: Package, folder: Path, npm_registry: str | None = None) -> Path:
    """The package's file, which is downloaded where `folder` does not have it.

    Args:
        npm_registry: address of an npm registry; None: the one that npm is set up with.

    Raises:
        CaseError: it cannot be had, or is not the file that was pinned.
    """
    path = folder / package.file
    if not path.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix=".download.") as name:
            found = _download(package, path, Path(name), npm_registry)
            _check(package, found)
            found.replace(path)
    _check(package, path)
    return path


def _download(package: Package, path: Path, empty: Path, npm_registry: str | None) -> Path:
    """Runs the registry's client in an empty folder."""
    if package.registry == "npm":
        words = ["npm", "pack", "--silent", "--ignore-scripts", f"{package.name}@{package.version}"]
        words += [] if npm_registry is None else ["--registry", npm_registry]
    else:
        words = ["apt-get", "download", f"{package.name}={package.version}"]
    try:
        run = subprocess.run(words, cwd=empty, capture_output=True, text=True, timeout=60 * MINUTES)
        found = [] if run.returncode else sorted(empty.iterdir())
        problem = run.stderr.strip().rpartition("\n")[2] or f"exit code {run.returncode}"
    except (OSError, subprocess.TimeoutExpired) as error:
        found, problem = [], str(error)
    if len(found) != 1:
        raise CaseError(
            path,
            "drawings come from pinned packages",
            expected=f"one file from `{' '.join(words)}`",
            got=problem if not found else ", ".join(file.name for file in found),
            fix="run it again where the registry is reached, or put the file there by hand "
            f"(SHA-256 {package.sha256})",
        )
    return found[0]


def _check(package: Package, path: Path) -> None:
    found = sha256_of(path)
    if found != package.sha256:
        raise CaseError(
            path,
            "a package is the very file that its source was read in",
            expected=f"SHA-256 {package.sha256} ({package.name} {package.version})",
            got=found,
            fix="remove the file and run again; where the registry serves another one, look at "
            "what changed and at its licence before pinning it in scripts/art_sources.py",
        )


def contents(path: Path) -> dict[str, bytes]:
    """Name -> content of the files in an npm or a Debian package, links followed.

    Raises:
        CaseError: the archive cannot be read.
    """
    found, links = {}, {}
    try:
        with path.open("rb") as file:
            data = file if path.suffix == ".tgz" else _data_of_deb(file)
            with tarfile.open(fileobj=data, mode="r|*") as archive:
                for member in archive:
                    name = posixpath.normpath(member.name)
                    if member.issym():
                        folder = posixpath.dirname(name)
                        links[name] = posixpath.normpath(posixpath.join(folder, member.linkname))
                    elif member.isfile() and (content := archive.extractfile(member)):
                        found[name] = content.read()
    except (tarfile.TarError, lzma.LZMAError, EOFError, OSError, ValueError) as error:
        raise CaseError(
            path,
            "a package is an archive",
            expected="a gzipped tar file of npm's, or a Debian package",
            got=f"{type(error).__name__}: {error}",
            fix="remove the file and run again",
        ) from error
    return found | {name: found[target] for name, target in links.items() if target in found}


def _data_of_deb(file: IO[bytes]) -> IO[bytes]:
    """The file at its `data.tar.*`: a Debian package is an `ar` archive of three members."""
    if file.read(len(AR_START)) != AR_START:
        raise ValueError("it does not begin as a Debian package does")
    while header := file.read(AR_HEADER):
        name, size = header[:16].decode("ascii").strip(" /"), int(header[48:58])
        if name.startswith("data.tar"):
            return file
        file.seek(size + size % 2, 1)
    raise ValueError("no member data.tar.*")


def unpack(path: Path, folder: Path) -> None:
    """Writes an npm package's files; its own folder, `package/`, becomes `folder`.

    Raises:
        CaseError: the archive cannot be read, or a file would lie elsewhere.
    """
    for name, content in contents(path).items():
        top, *parts = PurePosixPath(name).parts
        if top != "package" or not parts:
            raise CaseError(
                path,
                "a package's files lie in its folder",
                expected="paths below package/",
                got=name,
                fix="do not use this package",
            )
        target = folder.joinpath(*parts)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)


def need_node() -> str:
    """Node's path.

    Raises:
        CaseError: it is not installed.
    """
    found = shutil.which("node")
    if found is None:
        raise CaseError(
            Path("node"),
            "DiceBear's drawings are put together by its own JavaScript",
            expected="Node.js 18 or later on the PATH",
            got="none",
            fix="install it, or leave the dicebear-* out of --sources",
        )
    return found
