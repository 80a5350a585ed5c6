"""Runs of `magiccolor prepare`, and what they leave."""

import json

from oracles.drawn_clips import (
    NIGHT,
    shot,
    write_video,
)

from magiccolor_jax import cli
from magiccolor_jax.data.shards import Records

ORIGIN = ("--licence", "CC0-1.0", "--author", "A. Painter")
ALL = ("--held-out", 0)


def prepare(*words):
    return cli.run(["prepare", *map(str, words)])


def records(out, split="train"):
    if not (out / split).exists():
        return {}
    source = Records(out / split)
    found = [source.record(number) for number in range(len(source))]
    return {record.scene.name: record for record in found}


def skipped(out):
    return {row["name"]: row["reason"] for row in json.loads((out / "skipped.json").read_text())}


def write_clips(folder, count):
    for number in range(count):
        ground = (255, 255, 200 + number)
        write_video(folder / f"clip{number}.mp4", [*shot(8, ground), *shot(8, NIGHT)])
    return folder
