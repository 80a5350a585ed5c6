"""What was prepared, in numbers and as lists: statistics.json, records.jsonl, skipped.json."""

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from magiccolor_jax.files import atomic_file
from magiccolor_jax.prepare.chunks import HELD_OUT, TRAIN, Note
from magiccolor_jax.prepare.stills import Bad

STATISTICS, RECORDS, SKIPPED = "statistics.json", "records.jsonl", "skipped.json"

PERCENTILES = (0, 5, 25, 50, 75, 95, 100)


def write_reports(out: Path, notes: Sequence[Note], surveyed: Sequence[Bad]) -> dict[str, Any]:
    """Writes the three files.

    Args:
        surveyed: what was left out before there were chunks.

    Returns:
        The statistics.

    Raises:
        OSError: the disk is full.
    """
    records = [record for note in notes for record in note.records]
    bad = [*surveyed, *(each for note in notes for each in note.bad)]
    found = statistics(records, bad)
    _write(out / STATISTICS, json.dumps(found, indent=1))
    _write(out / RECORDS, "\n".join(json.dumps(r, ensure_ascii=False) for r in records))
    _write(out / SKIPPED, json.dumps([each._asdict() for each in bad], indent=1))
    return found


def _write(path: Path, text: str) -> None:
    with atomic_file(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8", errors="backslashreplace")


def statistics(records: Sequence[dict[str, Any]], bad: Sequence[Bad]) -> dict[str, Any]:
    """Numbers of both splits and of what was left out."""
    splits = {
        split: _of_split([record for record in records if record["split"] == split])
        for split in (TRAIN, HELD_OUT)
    }
    return {"records": len(records), "skipped": len(bad), **splits}


def _of_split(records: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Numbers of some records."""
    instances = [len(record["areas"]) for record in records]
    referred = sum(each > 0 for record in records for each in record["references"])
    return {
        "records": len(records),
        "clips": len({record["clip"] for record in records}),
        "bytes": sum(record["bytes"] for record in records),
        "instances": sum(instances),
        "instances_with_reference": referred,
        "records_by_instances": _counted(instances),
        "records_by_kind": _counted(record["kind"] for record in records),
        "records_by_masks": _counted(record["how"] for record in records),
        "records_by_licence": _counted(record["licence"] for record in records),
        "height": _spread([record["height"] for record in records]),
        "width": _spread([record["width"] for record in records]),
        "instance_area": _spread([area for record in records for area in record["areas"]]),
        "ink": _spread([record["ink"] for record in records]),
    }


def _counted(values: Any) -> dict[str, int]:
    """How often each occurs, in their order."""
    return {str(value): number for value, number in sorted(Counter(values).items())}


def _spread(values: Sequence[int | float]) -> dict[str, int | float]:
    """Percentiles; none of nothing."""
    if not values:
        return {}
    found = np.percentile(values, PERCENTILES, method="nearest")
    return {f"{p}%": round(value, 4) for p, value in zip(PERCENTILES, found.tolist(), strict=True)}
