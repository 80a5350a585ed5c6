"""Who made a picture, and under which licence it may be used: every record says so."""

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from magiccolor_jax.data.listing import some_names
from magiccolor_jax.data.records import NO_LICENCES, PROVENANCE, Provenance, names_licence

CREATIVE_COMMONS = re.compile(r"creativecommons\.org/(licenses|publicdomain)/([a-z-]+)/([0-9.]+)")


class Credits(NamedTuple):
    """What is known of the origin of pictures."""

    given: Mapping[str, str]
    """Field of `Provenance` -> what the command line says of all pictures."""
    table: Mapping[str, Mapping[str, str]]
    """Name of a picture, or of a folder of such -> fields."""

    def of(self, name: str, path: str, own: Mapping[str, str] | None = None) -> Provenance:
        """Origin of a picture: the table has the first word, then the input itself.

        Args:
            name: of its unit.
            path: its source, where no other is known.
            own: fields that the input knows.
        """
        row = next((self.table[part] for part in _above(name) if part in self.table), {})
        known = {key: text for key, text in (own or {}).items() if text}
        filled = {"source": path, "author": "", "licence": "", "note": ""}
        return Provenance(**(filled | dict(self.given) | known | dict(row)))

    def unused(self, names: Iterable[str]) -> list[str]:
        """Entries of the table that are of none of some names, nor of a folder of theirs."""
        parts = {part for name in names for part in _above(name)}
        return [entry for entry in self.table if entry not in parts]


def _above(name: str) -> list[str]:
    """A name, and the folders that it is in."""
    return [name, *(parent.as_posix() for parent in PurePosixPath(name).parents)]


def read_credits(given: Mapping[str, str], path: Path | None) -> Credits:
    """Credits of the command line and of a file.

    Raises:
        ValueError: it is no such file, or cannot be read; the entry is named.
    """
    said = {field: text for field, text in given.items() if text}
    if path is None:
        return Credits(said, {})
    form = '{"NAME or FOLDER": {"source": "..", "author": "..", "licence": "..", "note": ".."}}'
    try:
        rows: Any = json.loads(path.read_bytes())
    except OSError as error:
        raise ValueError(
            f"--credits {path}: who made the pictures is read there: expected a file with {form}, "
            f"got {error.strerror or error}; check the path, or give --licence and --author"
        ) from None
    except ValueError as error:
        raise ValueError(f"{path}: must be JSON: {error}; mend it") from None
    if not isinstance(rows, dict):
        raise ValueError(f"{path}: expected {form}, got a {type(rows).__name__}; write it so")
    for name, row in rows.items():
        right = isinstance(row, dict) and set(row) <= set(PROVENANCE)
        if not right or not all(isinstance(text, str) for text in row.values()):
            raise ValueError(f"{path}: {name}: expected {form}, got {row!r}; write it so")
    return Credits(said, rows)


def spdx_of(text: str) -> str:
    """The SPDX id of a licence's address, or a LicenseRef of its name; empty where it
    says nothing."""
    if text.strip().lower() in NO_LICENCES:
        return ""
    found = CREATIVE_COMMONS.search(text.lower())
    if found is None:
        plain = re.sub(r"[^A-Za-z0-9.]+", "-", text).strip("-.")
        return plain if names_licence(text) else f"LicenseRef-{plain}" if plain else ""
    kind, name, version = found.groups()
    if kind == "licenses":
        return f"CC-{name.upper()}-{version.strip('.')}"
    return f"CC0-{version.strip('.')}" if name == "zero" else "LicenseRef-Public-Domain-Mark-1.0"


def check_credits(origins: Mapping[str, Provenance]) -> None:
    """Raises ValueError where the licence or the author of pictures is not known.

    Args:
        origins: by the name of what they are of.
    """
    lacking = {
        name: origin.licence
        for name, origin in origins.items()
        if not names_licence(origin.licence)
    }
    if lacking:
        got = ", ".join(
            sorted({repr(licence) if licence else "none" for licence in lacking.values()})
        )
        raise ValueError(
            "every record says under which licence its picture is used: expected an SPDX id "
            f"(spdx.org/licenses; LicenseRef-NAME for another), got {got} for {len(lacking)} of "
            f"{len(origins)}: {some_names([*lacking])}; give --licence, such as --licence "
            "CC-BY-4.0, or a file that tells them apart (--credits)"
        )
    if nameless := [name for name, origin in origins.items() if not origin.author.strip()]:
        raise ValueError(
            "every record says whom its licence wants to be named: expected an author, got none "
            f"for {len(nameless)} of {len(origins)}: {some_names(nameless)}; give --author, or a "
            "file that tells them apart (--credits)"
        )
