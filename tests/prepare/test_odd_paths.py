"""Paths that stop nobody: links to themselves, closed folders, odd and long names, by command."""

from pathlib import Path

import numpy as np
import pytest
from oracles.case_folders import block_mask, save

from magiccolor_jax import cli

COMMANDS = {"segment": "overlays", "lineart": "lines"}
"""Command -> a folder of its results, with a picture of each name."""


@pytest.fixture
def pictures(tmp_path):
    """A folder with one good picture."""
    picture = np.full((60, 80, 3), 255, np.uint8)
    picture[block_mask((60, 80), 10, 20, 40, 50) > 0] = (200, 40, 40)
    save(tmp_path / "in/good.png", picture)
    return tmp_path / "in"


def run(command, *words):
    return cli.run([command, *map(str, words)])


def said(capsys):
    return " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(
    ("spoil", "got"),
    [
        (lambda path: path.symlink_to(path.name), "Too many levels of symbolic links"),
        (lambda path: path.symlink_to("nowhere.png"), "No such file or directory"),
        (Path.mkdir, "Is a directory"),
    ],
    ids=["loop", "dangling", "folder"],
)
def test_a_path_that_cannot_be_read_fails_alone(pictures, tmp_path, capsys, command, spoil, got):
    spoil(pictures / "bad.png")
    out = tmp_path / "out"
    assert run(command, pictures, "--out", out) == 1
    assert (out / COMMANDS[command] / "good.png").is_file()
    rule = f"bad.png: a picture can be read: expected a file that may be read, got {got}; check"
    assert rule in said(capsys)


def test_links_to_one_picture_are_one_name(pictures, tmp_path):
    (tmp_path / "other").mkdir()
    (tmp_path / "other/good.png").symlink_to(pictures / "good.png")
    assert run("segment", pictures, tmp_path / "other", "--out", tmp_path / "out") == 0
