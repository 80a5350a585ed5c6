"""The report as one HTML file that needs nothing else: table, distributions, groups, pictures."""

import html
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float

from magiccolor_jax.evaluation.methods import TRUTH, Method
from magiccolor_jax.evaluation.metrics import METRICS, PICTURE, REGION
from magiccolor_jax.evaluation.report import Result
from magiccolor_jax.evaluation.sheets import COLUMNS, Sheet, sheet_of
from magiccolor_jax.evaluation.summary import Mean, value_of
from magiccolor_jax.files import atomic_file

SHOWN = 4
"""Pages of each kind on a contact sheet: the worst, the middle, the best."""

WIDTH, LABEL, STRIP = 380, 110, 22
"""Pixels of a distribution's drawing: its width, of which names take so many, a method's height."""

CAPTION = 5
"""Numbers below a page's name on a sheet: the protocol's first."""

TICKS = 300
"""Most cases that a distribution shows one by one."""

UP, DOWN, DASH = "\u2191", "\u2193", "\u2013"

STYLE = """
:root { color-scheme: light dark; --line: #8884; --best: #2a7d4f22; --mark: #2a7d4f }
body { font: 15px/1.45 system-ui, sans-serif; max-width: 1200px; margin: 2rem auto;
  padding: 0 1rem }
h1 { font-size: 1.5rem; margin-bottom: 0 } h2 { font-size: 1.15rem; margin-top: 2.2rem }
p.about { color: #888; margin-top: .2rem }
.scroll { overflow-x: auto }
table { border-collapse: collapse; font-variant-numeric: tabular-nums }
th, td { padding: .3rem .7rem; text-align: right; border-bottom: 1px solid var(--line) }
th { vertical-align: bottom; max-width: 8rem } td { white-space: nowrap }
th:first-child, td:first-child { text-align: left; position: sticky; left: 0; background: Canvas }
td.best { background: var(--best); font-weight: 600 }
td small { display: block; color: #888; font-weight: 400 }
tr.truth td { color: #888; font-style: italic }
table.words td { text-align: left; white-space: normal }
.small { display: flex; flex-wrap: wrap; gap: 1rem 1.5rem } figure { margin: 0 }
figcaption { font-weight: 600; font-size: .9rem }
svg text { font: 12px system-ui, sans-serif; fill: currentColor }
details { margin: .5rem 0 } summary { cursor: pointer }
.sheet { display: grid; gap: .4rem .6rem; align-items: start; margin: 1rem 0; overflow-x: auto }
.sheet b { font-weight: 600; font-size: .85rem; color: #888 }
.sheet img { max-width: 100%; border: 1px solid var(--line); display: block }
.sheet .name { font-size: .8rem; overflow-wrap: anywhere }
"""


def write_page(
    path: Path, result: Result, cases: Mapping[str, Path], methods: Sequence[Method]
) -> None:
    """Writes the page.

    Args:
        cases: name -> case folder, for the pictures.
        methods: of the report, for theirs.

    Raises:
        OSError: the disk is full.
    """
    protocol = result.protocol
    title = f"magiccolor evaluate: {protocol.name}"
    about = [
        f"{len(result.cases)} cases",
        "at their own size" if protocol.size is None else f"at {protocol.size} x {protocol.size}",
        str(result.about["device"]),
        f"95 % intervals of {protocol.resamples} resamples",
    ]
    parts = [
        f"<h1>{_text(title)}</h1><p class=about>{_text(' · '.join(about))}</p>",
        _main_table(result),
        _meanings(result),
        "<h2>Distributions over the cases</h2>",
        "<div class=small>",
        *(_distribution(result, name) for name in protocol.metrics),
        "</div>",
        "<h2>By kind of page</h2>",
        *(_group_table(result, name) for name in protocol.metrics),
        *_sheets(result, cases, methods),
    ]
    head = f"<meta charset=utf-8><title>{_text(title)}</title><style>{STYLE}</style>"
    body = "".join(parts)
    with atomic_file(path) as temporary:
        content = f"<!doctype html><html lang=en><head>{head}</head><body>{body}</body></html>\n"
        temporary.write_text(content, encoding="utf-8", errors="backslashreplace")


def _text(text: str) -> str:
    return html.escape(text)


def _table(head: Iterable[str], body: Iterable[str], kind: str = "numbers") -> str:
    return (
        f"<div class=scroll><table class={kind}><thead><tr>{''.join(head)}</tr></thead>"
        f"<tbody>{''.join(body)}</tbody></table></div>"
    )


def _heading(name: str) -> str:
    metric = METRICS[name]
    arrow = UP if metric.better == "higher" else DOWN
    return f'<th title="{_text(metric.about)}">{_text(metric.label)} {arrow}</th>'


def _main_table(result: Result) -> str:
    """Methods against metrics, with intervals; the best of the methods is marked."""
    names = result.protocol.metrics
    head = ["<th>method</th>", *map(_heading, names)]
    columns = [
        _column(name, {method: means[i] for method, means in result.means.items()})
        for i, name in enumerate(names)
    ]
    if result.fid:
        head.append(f"<th>FID {DOWN}</th>")
        best = min((x for m, x in result.fid.items() if m != TRUTH), default=math.nan)
        columns.append(
            {
                method: f"<td{' class=best' * (value == best and method != TRUTH)}>{value:.2f}</td>"
                for method, value in result.fid.items()
            }
        )
    body = [
        f"<tr{' class=truth' if method == TRUTH else ''}><td>{_text(method)}</td>"
        + "".join(column.get(method, "<td></td>") for column in columns)
        + "</tr>"
        for method in result.means
    ]
    return _table(head, body)


def _column(name: str, means: Mapping[str, Mean | None]) -> dict[str, str]:
    """Method -> its cell; the truth is nobody's rival."""
    metric = METRICS[name]
    values = {m: mean.value for m, mean in means.items() if mean is not None and m != TRUTH}
    choose = max if metric.better == "higher" else min
    best = choose(values.values(), default=math.nan)
    cells = {}
    for method, mean in means.items():
        if mean is None:
            cells[method] = f"<td>{DASH}</td>"
            continue
        mark = " class=best" if values.get(method) == best else ""
        value, low, high = (f"{x:.{metric.digits}f}" for x in (mean.value, mean.low, mean.high))
        cells[method] = f"<td{mark}>{value}<small>{low} {DASH} {high}</small></td>"
    return cells


def _meanings(result: Result) -> str:
    rows = [
        f"<tr><td>{_text(METRICS[name].label)}</td><td>{_text(METRICS[name].about)}</td></tr>"
        for name in result.protocol.metrics
    ]
    table = _table(["<th>number</th>", "<th>meaning</th>"], rows, "words")
    return f"<details><summary>What the numbers mean</summary>{table}</details>"


def _distribution(result: Result, name: str) -> str:
    """A strip per method: a tick per case, a box from quartile to quartile, the median."""
    values = {
        method: np.array([value_of(entry.row, name) for entry in entries])
        for method, entries in result.rows.items()
        # The truth at its best would leave the others no room.
        if method != TRUTH or name not in (*PICTURE, *REGION)
    }
    values = {method: np.sort(found[~np.isnan(found)]) for method, found in values.items()}
    values = {method: found for method, found in values.items() if len(found)}
    if not values:
        return ""
    low = min(found[0] for found in values.values())
    high = max(found[-1] for found in values.values())
    scale = (WIDTH - LABEL - 20) / max(high - low, 1e-9)
    strips = [
        f'<g transform="translate(0 {STRIP * index})"><text y="15">{_text(method[:18])}</text>'
        f'<g transform="translate({LABEL} 0)">{_strip((found - low) * scale)}</g></g>'
        for index, (method, found) in enumerate(values.items())
    ]
    bottom, digits = len(values) * STRIP + 16, METRICS[name].digits
    ends = (
        f'<text x="{LABEL}" y="{bottom}">{low:.{digits}f}</text>'
        f'<text x="{WIDTH - 20}" y="{bottom}" text-anchor="end">{high:.{digits}f}</text>'
    )
    size = f'width="{WIDTH}" height="{bottom + 4}"'
    drawing = f"<svg {size} role=img>{''.join(strips)}{ends}</svg>"
    return f"<figure><figcaption>{_text(METRICS[name].label)}</figcaption>{drawing}</figure>"


def _strip(places: Float[np.ndarray, "N"]) -> str:
    """One method's marks.

    Args:
        places: of the cases along the strip, in pixels, sorted.
    """
    chosen = np.unique(np.linspace(0, len(places) - 1, TICKS).astype(int))
    ticks = "".join(f"M{x:.1f} 5v12" for x in places[chosen])
    first, middle, last = np.percentile(places, (25, 50, 75))
    return (
        f'<path d="{ticks}" stroke="currentColor" stroke-opacity=".25"/>'
        f'<rect x="{first:.1f}" y="4" width="{last - first:.1f}" height="14" '
        'fill="var(--mark)" fill-opacity=".25" stroke="var(--mark)"/>'
        f'<path d="M{middle:.1f} 4v14" stroke="var(--mark)" stroke-width="2"/>'
    )


def _group_table(result: Result, name: str) -> str:
    index = result.protocol.metrics.index(name)
    head = ["<th>pages</th>", "<th>cases</th>", *(f"<th>{_text(m)}</th>" for m in result.means)]
    body = []
    for group, (count, means) in result.groups.items():
        cells = _column(name, {method: found[index] for method, found in means.items()})
        body.append(f"<tr><td>{_text(group)}</td><td>{count}</td>{''.join(cells.values())}</tr>")
    content = _table(head, body)
    return f"<details><summary>{_text(METRICS[name].label)}</summary>{content}</details>"


def _sheets(result: Result, cases: Mapping[str, Path], methods: Sequence[Method]) -> Iterable[str]:
    """A contact sheet per method."""
    name = result.protocol.metrics[0]
    for method in methods:
        if method.name == TRUTH:
            continue
        chosen = _chosen(_sorted_cases(result, method.name, name))
        sheets = [sheet_of(case, cases[case], method) for _, case in chosen]
        texts = [_caption(result, method.name, kind, case) for kind, case in chosen]
        yield f"<h2>{_text(method.name)}, sorted by {_text(METRICS[name].label)}</h2>"
        yield _sheet(sheets, texts)


def _sorted_cases(result: Result, method: str, name: str) -> list[str]:
    """Cases from the worst to the best; those without the number are left out."""
    sign = 1 if METRICS[name].better == "higher" else -1
    values = {entry.case: sign * value_of(entry.row, name) for entry in result.rows[method]}
    known = [case for case, value in values.items() if not math.isnan(value)]
    return sorted(known, key=values.__getitem__)


def _chosen(order: Sequence[str]) -> list[tuple[str, str]]:
    """Kind and case of what a sheet shows, each case once."""
    middle = max(len(order) // 2 - SHOWN // 2, 0)
    parts = {
        "worst": order[:SHOWN],
        "middle": order[middle : middle + SHOWN],
        "best": order[-SHOWN:],
    }
    found: dict[str, str] = {}
    for kind, chosen in parts.items():
        for case in chosen:
            found.setdefault(case, kind)
    return [(kind, case) for case, kind in found.items()]


def _caption(result: Result, method: str, kind: str, case: str) -> str:
    row = next(entry.row for entry in result.rows[method] if entry.case == case)
    lines = [f"<b>{kind}</b>", _text(case)]
    for name in result.protocol.metrics[:CAPTION]:
        value = value_of(row, name)
        if not math.isnan(value):
            lines.append(f"{_text(METRICS[name].label)} {value:.{METRICS[name].digits}f}")
    return "<br>".join(lines)


def _sheet(sheets: Sequence[Sheet], texts: Sequence[str]) -> str:
    cells = [f"<b>{name}</b>" for name in ("", *COLUMNS)]
    for sheet, text in zip(sheets, texts, strict=True):
        cells.append(f"<div class=name>{text}</div>")
        for name, source in zip(COLUMNS, sheet, strict=True):
            image = f'<img src="{source}" alt="{name}" loading=lazy>' if source else ""
            cells.append(f"<div>{image}</div>")
    columns = f"minmax(8rem, 11rem) repeat({len(COLUMNS)}, minmax(6rem, 1fr))"
    return f'<div class=sheet style="grid-template-columns: {columns}">{"".join(cells)}</div>'
