"""`magiccolor train`: presets, help, wrong words."""

import subprocess
import sys
from pathlib import Path

import pytest
from oracles.runs import write_pages, write_start

from magiccolor_jax.cli import run
from magiccolor_jax.embedded import MODELS
from magiccolor_jax.training.command import ALONE, main
from magiccolor_jax.training.config import TrainConfig
from magiccolor_jax.training.export import start_folder
from magiccolor_jax.training.presets import PRESETS, load_preset, preset_names

ABLATIONS = {
    "no_edge": lambda stage: not stage.losses.edge,
    "no_color_matching": lambda stage: stage.losses.color == 0,
    "no_instance_guider": lambda stage: not stage.instance_guider,
}


@pytest.mark.parametrize("name", preset_names())
def test_presets_are_whole_and_say_what_they_are(name, tmp_path):
    preset = load_preset(name)
    alone = [kind for mark, (kind, _) in ALONE.items() if mark in preset]
    if alone:
        alone[0](out=tmp_path, sources=("art:x",), **preset)
    else:
        config = TrainConfig(out=tmp_path, init=tmp_path, **preset)
        assert config.stage.name in (name.removeprefix("tiny/"), "stage2")
    header = (PRESETS / f"{name}.py").read_text().split('"""')[1]
    for word in ("Reproduces: ", f"Command: magiccolor train {name} ", "Expected: "):
        assert word in header


@pytest.mark.parametrize("name", ABLATIONS)
def test_ablations_leave_out_what_they_say(name):
    stage = load_preset(name)["stage"]
    assert ABLATIONS[name](stage)
    assert sum(without(stage) for without in ABLATIONS.values()) == 1


def test_help_lists_presets(capsys):
    assert run(["train"]) == run(["train", "--help"]) == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in preset_names())


def test_a_wrong_preset_is_guessed(capsys, tmp_path):
    assert main(["stgae1"]) == 2
    assert "perhaps you meant stage1" in capsys.readouterr().err
    (tmp_path / "mine.py").write_text("CONFG = {}\n")
    assert main([str(tmp_path / "mine.py")]) == 2
    assert "must define CONFIG" in capsys.readouterr().err


def test_a_preset_of_ones_own(tmp_path):
    (tmp_path / "mine.py").write_text("CONFIG = {'steps': 7}\n")
    assert load_preset(str(tmp_path / "mine.py")) == {"steps": 7}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--out", "x"], "--init"),
        (["--out", "x", "--init", "y", "--optim.lrr", "1"], "--optim.lr"),
        (["--out", "x", "--init", "y", "--batch", "two"], "two"),
    ],
)
def test_wrong_flags_end_with_2(words, said, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["stage1", *words])
    assert stop.value.code == 2 and said in capsys.readouterr().err


def test_errors_are_told_without_a_traceback(tmp_path, capsys):
    words = ["--out", str(tmp_path / "out"), "--init", str(tmp_path / "none")]
    assert main(["stage1", *words]) == 1
    assert "must hold config.json" in capsys.readouterr().err
    assert main(["stage1", *words, "--mesh", "3", "1", "1"]) == 1
    assert "must use every device" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_the_embedded_model_is_a_start_by_its_name(tmp_path, capsys):
    page = write_pages(tmp_path / "pages", 1)
    words = ["tiny/stage2", "--out", str(tmp_path / "out"), "--data.sources", str(page)]
    assert main([*words, "--init", "tiny", "--dry-run"]) == 0
    assert "denoiser/conv_in/kernel" in capsys.readouterr().out
    assert start_folder(Path("tiny")) == MODELS / "tiny"


@pytest.mark.parametrize("mesh", ["-1 1 1", "2 4 8"])
def test_a_dry_run_shows_and_allocates_nothing(tmp_path, capsys, mesh):
    start, pages = write_start(tmp_path / "start"), write_pages(tmp_path / "pages", 1)
    for file in start.glob("*.safetensors"):
        file.unlink()
    words = ["debug", "--out", str(tmp_path / "out"), "--init", str(start), "--dry-run"]
    words += ["--batch", "8"]
    assert main([*words, "--data.sources", str(pages), "--mesh", *mesh.split()]) == 0
    shown = capsys.readouterr().out
    rows = {
        line.split("│")[1].strip(): line.split("│")[2:]
        for line in shown.splitlines()
        if "│" in line
    }
    assert "fsdp" in rows["denoiser/conv_in/kernel"][3]
    ways = 1 if mesh == "-1 1 1" else 64
    whole, each = (float(cell) for cell in rows["frozen networks"][:2])
    assert whole == pytest.approx(ways * each, rel=0.01)
    assert not (tmp_path / "out").exists()


def test_the_command_is_found(tmp_path):
    words = [sys.executable, "-c", "from magiccolor_jax.cli import main; main(['train'])"]
    run = subprocess.run(words, capture_output=True, text=True, cwd=tmp_path, check=True)
    assert "stage2" in run.stdout
