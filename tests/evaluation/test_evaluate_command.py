"""`magiccolor evaluate` from the command line."""

import json

import numpy as np
import pytest
from oracles.case_folders import save
from oracles.colored_cases import write_colored_case

from magiccolor_jax import cli
from magiccolor_jax.data.cases import read_case


@pytest.fixture
def cases(tmp_path):
    for index in range(3):
        write_colored_case(tmp_path / "cases" / f"page{index}", 1 + index)
    return tmp_path / "cases"


def evaluate(cases, out, *words):
    cache = out.parent / "compiled"
    given = ["--cases", cases, "--out", out, "--compilation-cache", cache, *words]
    return cli.run(["evaluate", *map(str, given)])


def test_folders_and_baselines_side_by_side(cases, tmp_path, capsys):
    folder = tmp_path / "theirs"
    for path in sorted(cases.iterdir()):
        save(folder / f"{path.name}.png", read_case(path).target)
    words = ("--pred", folder, f"other={folder}", "--baselines", "grey", "mean_color")
    assert evaluate(cases, tmp_path / "out", *words) == 0
    printed = capsys.readouterr()
    assert "ours, 3 cases" in printed.out and "mean_color" in printed.out
    assert "own reference closest" in printed.out and "index.html" in printed.err
    methods = json.loads((tmp_path / "out/report.json").read_text())["methods"]
    assert list(methods) == ["truth", "grey", "mean_color", "theirs", "other"]
    assert methods["theirs"] == methods["other"] and methods["theirs"]["psnr"]["value"] == 100
    page = (tmp_path / "out/index.html").read_text()
    assert page.count("<img") == 4 * 3 * 5 and "http" not in page


def test_cases_without_truth_are_judged_by_colour_alone(cases, tmp_path, capsys):
    for path in cases.iterdir():
        (path / "target.png").unlink()
    protocol = tmp_path / "colors.py"
    protocol.write_text(
        "from magiccolor_jax.evaluation.protocol import Protocol\n"
        "PROTOCOL = Protocol(name='colors', metrics=('own_closest', 'swapped'), size=None)\n"
    )
    words = ("--baselines", "mean_color", "--protocol", protocol)
    assert evaluate(cases, tmp_path / "out", *words) == 0
    methods = json.loads((tmp_path / "out/report.json").read_text())["methods"]
    assert list(methods) == ["mean_color"], methods
    assert methods["mean_color"]["swapped"]["value"] == 1
    assert "truth" not in capsys.readouterr().out


@pytest.mark.slow
def test_a_model_colours_first(cases, nano_model, tmp_path, capsys):
    """Its two parts are coloured by two processes, and a third run adds the report."""
    protocol = tmp_path / "short.py"
    protocol.write_text(
        "from magiccolor_jax.evaluation.protocol import Protocol\n"
        "from magiccolor_jax.sampling.colorizer import Settings\n"
        "PROTOCOL = Protocol(name='short', metrics=('psnr', 'swapped'), size=None,\n"
        "    settings=Settings(steps=1))\n"
    )
    words = ("--model", f"nano={nano_model}", "--protocol", protocol)
    for index in range(2):
        assert evaluate(cases, tmp_path / "out", *words, "--process", f"{index}/2") == 0
    assert evaluate(cases, tmp_path / "out", *words) == 0
    assert "3 done before" in capsys.readouterr().err.replace("0 coloured, ", "")
    rows = json.loads((tmp_path / "out/report.json").read_text())["rows"]["nano"]
    assert [row.get("swapped") is not None for row in rows.values()] == [False, True, True]
    pictures = tmp_path / "out/pictures/nano"
    own, swapped = (read_picture(path / "page1.png") for path in (pictures, pictures / "swapped"))
    assert np.any(own != swapped)


def read_picture(path):
    from magiccolor_jax.data.pictures import read_picture

    return read_picture(path)[0]


def test_swapped_cases_for_others(cases, tmp_path, capsys):
    words = ("--write-swapped", tmp_path / "swapped")
    assert evaluate(cases, tmp_path / "out", *words) == 0
    assert "2 cases" in capsys.readouterr().err and not (tmp_path / "out").exists()
    assert len(list((tmp_path / "swapped").iterdir())) == 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "nothing to judge"),
        (("--baselines", "grey", "grey"), "got ['grey'] more than once"),
        (("--baselines", "gray"), "no baseline 'gray'"),
        (("--pred", "truth=."), "is the target's own"),
        (("--pred", "a/b=."), "called by one word"),
        (("--pred", "x=nowhere", "y=neither"), "neither is no folder"),
        (("--baselines", "grey", "--protocol", "papr"), "perhaps you meant paper"),
        (("--baselines", "grey", "--protocol", "paper"), "inception: download https://"),
        (("--baselines", "grey", "--batch-size", "0"), "batch-size must be at least 1"),
        (("--baselines", "grey", "--process", "2/2"), "process must be I/N"),
        (("--baselines", "grey", "--networks", "nowhere"), "must hold config.json"),
    ],
)
def test_errors(cases, tmp_path, capsys, words, message):
    if "--networks" in words:
        words = (*words, "--protocol", "paper")
    assert evaluate(cases, tmp_path / "out", *words) == 1
    assert message in capsys.readouterr().err


def test_a_full_disk_says_so(cases, tmp_path, capsys, monkeypatch):
    import errno

    from magiccolor_jax.evaluation.rows import Rows

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Rows, "add", full)
    assert evaluate(cases, tmp_path / "out", "--baselines", "grey") == 1
    assert "the disk is full; make room, the same command goes on" in capsys.readouterr().err


def test_no_cases(tmp_path, capsys):
    words = ["--cases", "--out", tmp_path / "out", "--baselines", "grey"]
    assert cli.run(["evaluate", *map(str, words)]) == 1
    assert "no cases: expected case folders" in capsys.readouterr().err


def test_names_are_shown_as_they_are(cases, tmp_path, capsys):
    folder = tmp_path / "ours [v2]=a"
    for path in sorted(cases.iterdir()):
        save(folder / f"{path.name}.png", read_case(path).target)
    assert evaluate(cases, tmp_path / "out", "--pred", folder) == 0
    assert "[v2]=a" in capsys.readouterr().out
