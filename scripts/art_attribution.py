"""The file of names and licences that goes with a library, and with what is trained on it."""

from collections import Counter
from pathlib import Path
from typing import Any

from art_sources import MIT, SOURCES, Source, refuse_never_trained

from magiccolor_jax.data.pictures import CaseError

HEAD = """\
# Attribution

{drawings} drawings of {subjects} subjects, each by the artists named below and under the licence
named there. They were changed: SVG files were drawn as pictures of {side} x {side} pixels with at
most 63 colours, similar colours became one, and line art was made of their shapes. None of the
artists endorses this work.
"""

MIT_NOTICE = """\
## MIT licence

Copyright (c) {owner}

Permission is hereby granted, free of charge, to any person obtaining a copy of this software and
associated documentation files (the "Software"), to deal in the Software without restriction,
including without limitation the rights to use, copy, modify, merge, publish, distribute,
sublicense, and/or sell copies of the Software, and to permit persons to whom the Software is
furnished to do so, subject to the following conditions:

The above copyright notice and this permission notice shall be included in all copies or
substantial portions of the Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT
NOT LIMITED TO THE WARRANTIES OF MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND
NONINFRINGEMENT. IN NO EVENT SHALL THE AUTHORS OR COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM,
DAMAGES OR OTHER LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING FROM, OUT
OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE.
"""


def attribution(
    meta: list[dict[str, Any]], side: int, sources: dict[str, Source] | None = None
) -> str:
    """Markdown: of each source its title, authors, address, licence, and number of drawings.

    Args:
        meta: a library's.
        side: of its pictures, in pixels.
        sources: by name; None: those of art_sources.

    Raises:
        CaseError: the library has a source that is not known, is under another licence, or is
            never trained on.
    """
    known = SOURCES if sources is None else sources
    for name, licence in sorted({(entry["src"], entry["lic"]) for entry in meta}):
        refuse_never_trained(name)
        if name not in known or known[name].licence.name != licence:
            raise CaseError(
                Path(name),
                "who made what is published is known",
                expected=f"a source of scripts/art_sources.py under {licence}",
                got="none" if name not in known else known[name].licence.name,
                fix="add the source there, or leave its drawings out",
            )
    groups = Counter(entry["src"] for entry in meta)
    drawings = Counter({name: 0 for name in groups})
    artists: dict[str, set[str]] = {name: set() for name in groups}
    for entry in meta:
        drawings[entry["src"]] += entry["n"]
        artists[entry["src"]].update(filter(None, entry.get("authors", [])))
    text = HEAD.format(drawings=drawings.total(), subjects=len(meta), side=side)
    for name in (name for name in known if name in groups):
        text += _section(known[name], groups[name], drawings[name], sorted(artists[name]))
    owners = sorted({known[name].author for name in groups if known[name].licence == MIT})
    return text + "".join(f"\n{MIT_NOTICE.format(owner=owner)}" for owner in owners)


def _section(source: Source, groups: int, drawings: int, artists: list[str]) -> str:
    package = source.packages[-1]
    lines = [
        f"\n## {source.title}\n",
        f"- by {source.author}",
        f"- from <{source.url}>, as packaged in {package.registry}: {package.name} "
        f"{package.version}",
        f"- licence: [{source.licence.title}]({source.licence.url})",
        f"- in the library: `{source.name}`, {groups} groups, {drawings} drawings",
    ]
    if artists:
        lines.append(f"- named in their files: {', '.join(artists)}")
    return "\n".join(lines) + "\n"
