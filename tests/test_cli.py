"""The command as its users meet it: help, mistakes, whole runs, kills."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from oracles.case_folders import write_our_case

from magiccolor_jax import cli
from magiccolor_jax.sampling.outputs import read_made_by

COMMAND = [sys.executable, "-c", "from magiccolor_jax.cli import main; main()"]
HEAVY = ("jax", "flax", "torch", "numpy", "cv2")


@pytest.fixture(scope="session")
def compiled(tmp_path_factory) -> Path:
    """Compiled programs that these tests share."""
    return tmp_path_factory.mktemp("compiled")


@pytest.fixture(scope="module")
def cases(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("cases")
    for name in "abcde":
        write_our_case(root / name, 1)
    return root


def arguments(cases, model, out, compiled, *more) -> list[str]:
    options = ["--model", model, "--out", out, "--compilation-cache", compiled]
    options += ["--steps", 1, "--batch-size", 1, *more]
    given = cases if isinstance(cases, list) else [cases]
    return ["colorize", *map(str, given + options)]


def ended(given: list[str]) -> int:
    """Exit code of the command, run in this process."""
    with pytest.raises(SystemExit) as exit_:
        cli.main(given)
    return int(exit_.value.code or 0)


@pytest.mark.parametrize("given", [[], ["--help"], ["-h"]])
def test_help_lists_the_commands(given, capsys):
    assert ended(given) == 0
    printed = capsys.readouterr().out
    assert all(n in printed and c.summary in printed for n, c in cli.COMMANDS.items())


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_help_of_a_command_loads_nothing_heavy(name):
    """Neither does importing the package."""
    code = (
        "import sys, magiccolor_jax.cli as cli\n"
        f"try: cli.main([{name!r}, '--help'])\n"
        f"finally: print('LOADED', [m for m in {HEAVY} if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert f"magiccolor {name}" in done.stdout and "LOADED []" in done.stdout


def test_unknown_command(capsys):
    assert ended(["paint"]) == 2
    known = ", ".join(cli.COMMANDS)
    assert f"unknown command 'paint'; known are {known}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--guidance", "-1"], "guidance must be a number of at least 0, got -1"),
        (["--guidance", "nan"], "got nan"),
        (["--steps", "0"], "steps must be in 1..1000, got 0"),
        (["--steps", "1001"], "steps must be in 1..1000, got 1001"),
        (["--seed", "-3"], "seed must be in"),
        (["--sampler", "euler"], "sampler must be one of ['ddim', 'dpmpp_2m'], got 'euler'"),
        (["--recipe", "best"], "expected one of ['paper', 'release'], got 'best'"),
        (["--precision", "int4"], "precision must be one of"),
        (["--batch-size", "0"], "batch_size must be at least 1, got 0"),
        (["--process", "2/2"], "process must be I/N with 0 <= I < N (such as 0/4), got '2/2'"),
        (["--process", "one"], "got 'one'"),
        (["--steps", "1000"], "take fewer steps"),
    ],
)
def test_a_bad_argument_is_one_line(cases, nano_model, tmp_path, compiled, capsys, more, message):
    given = arguments(cases, nano_model, tmp_path / "out", compiled)
    kept = [a for i, a in enumerate(given) if more[0] not in (a, given[i - 1])]
    assert ended([*kept, *more]) == 1
    complaint = [line for line in capsys.readouterr().err.splitlines() if "magiccolor:" in line]
    assert len(complaint) == 1 and message in complaint[0]
    assert not list((tmp_path / "out").glob("*.png"))


@pytest.mark.parametrize("bad", ["no folder", "empty", "pytorch", "cut config", "no weights"])
def test_a_bad_model_is_one_line(cases, nano_model, tmp_path, compiled, capsys, bad):
    model = tmp_path / "model"
    if bad != "no folder":
        model.mkdir()
    if bad == "pytorch":
        (model / "config.json").write_text('{"_class_name": "UNet2DConditionModel"}')
    if bad == "cut config":
        (model / "config.json").write_text((nano_model / "config.json").read_text()[:50])
    if bad == "no weights":
        shutil.copy(nano_model / "config.json", model)
    assert ended(arguments(cases, model, tmp_path / "out", compiled)) == 1
    printed = capsys.readouterr().err
    assert f"magiccolor: {model}" in printed and "Traceback" not in printed
    if bad != "cut config":
        assert "convert" in printed


@pytest.mark.parametrize("given", [["colorize"], ["colorize", "x"], ["colorize", "--nonsense"]])
def test_wrong_usage(given, capsys):
    assert ended(given) == 2
    assert "Traceback" not in capsys.readouterr().err


def test_no_case_is_named(nano_model, tmp_path, capsys):
    assert ended(["colorize", "--model", str(nano_model), "--out", str(tmp_path)]) in (1, 2)
    assert "case" in capsys.readouterr().err


def test_an_output_folder_that_is_a_file(cases, nano_model, tmp_path, compiled, capsys):
    (tmp_path / "file").write_text("")
    assert ended(arguments(cases, nano_model, tmp_path / "file", compiled)) == 1
    assert "magiccolor: out must be a folder that can be written to" in capsys.readouterr().err


def test_a_whole_run_and_a_rerun(cases, nano_model, tmp_path, compiled, capsys):
    bad = tmp_path / "[red]bad"
    bad.mkdir()
    given = arguments([cases, bad], nano_model, tmp_path / "out", compiled)
    assert ended(given) == 1
    first = capsys.readouterr().err
    assert "6 cases on 1 x cpu" in first and "5 coloured, 0 done before, 1 failed" in first
    assert "failed [red]bad: " in first
    assert ended(given) == 1
    assert "0 coloured, 5 done before, 1 failed" in capsys.readouterr().err
    made_by = read_made_by(tmp_path / "out/a.png")
    assert made_by is not None and made_by["settings"]["steps"] == 1


def test_interrupting_is_no_traceback(cases, nano_model, tmp_path, compiled, capsys, monkeypatch):
    from magiccolor_jax.sampling import job

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(job, "run", interrupted)
    assert ended(arguments(cases, nano_model, tmp_path, compiled)) == 130
    assert "the same command goes on from here" in capsys.readouterr().err


def test_a_full_device_says_what_to_do(cases, nano_model, tmp_path, compiled, capsys, monkeypatch):
    from magiccolor_jax.sampling import job

    def full(*_):
        raise RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 1 bytes")

    monkeypatch.setattr(job, "run", full)
    assert ended(arguments(cases, nano_model, tmp_path, compiled)) == 1
    assert "use a smaller --batch-size" in capsys.readouterr().err


@pytest.mark.slow
def test_a_killed_run_leaves_whole_pictures(cases, nano_model, tmp_path, compiled):
    out = tmp_path / "out"
    given = arguments(cases, nano_model, out, compiled)
    environment = os.environ | {"JAX_PLATFORMS": "cpu"}
    process = subprocess.Popen(COMMAND + given, stderr=subprocess.DEVNULL, env=environment)
    deadline = time.monotonic() + 300
    while not list(out.glob("*.png")) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    pictures = list(out.glob("*.png"))
    assert pictures and all(read_made_by(path) is not None for path in pictures)
    assert ended(given) == 0
    assert {p.name for p in out.glob("*.png")} == {f"{name}.png" for name in "abcde"}


@pytest.mark.slow
def test_two_processes_make_the_pictures_of_one(cases, nano_model, tmp_path, compiled):
    assert ended(arguments(cases, nano_model, tmp_path / "one", compiled)) == 0
    two = [
        subprocess.Popen(
            COMMAND
            + arguments(cases, nano_model, tmp_path / "two", compiled, "--process", f"{index}/2"),
            stderr=subprocess.DEVNULL,
        )
        for index in range(2)
    ]
    assert [process.wait() for process in two] == [0, 0]
    for name in "abcde":
        one, other = (tmp_path / folder / f"{name}.png" for folder in ("one", "two"))
        assert one.read_bytes() == other.read_bytes()
    parts = sorted((tmp_path / "two").glob("manifest-*.json"))
    done = [set(json.loads(part.read_text())["cases"]) for part in parts]
    assert done == [{"a", "c", "e"}, {"b", "d"}]


def test_convert_is_the_converters_command(tmp_path, capsys):
    assert ended(["convert", str(tmp_path / "none"), str(tmp_path / "out")]) == 1
    assert "no such file or folder" in capsys.readouterr().err


def test_a_full_disk_says_what_to_do(tmp_path, monkeypatch, capsys):
    def full(args):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(cli, "_run_colorize", full)
    given = ["colorize", "case", "--model", "model", "--out", str(tmp_path / "out")]
    assert ended(given) == 1
    assert f"{tmp_path}/out: the disk is full; make room" in capsys.readouterr().err
