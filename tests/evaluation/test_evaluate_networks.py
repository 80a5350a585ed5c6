"""Whole protocols with networks, from the command line, on one device and on eight."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from oracles.case_folders import save
from oracles.colored_cases import write_colored_case
from seeded_network import seeded_network

from converters import maps
from magiccolor_jax import cli
from magiccolor_jax.checkpoint import ModelConfig, save_network, write_config
from magiccolor_jax.data.cases import read_case
from magiccolor_jax.encoders.inception import Inception, InceptionConfig
from magiccolor_jax.encoders.lpips import LPIPS, LPIPSConfig
from magiccolor_jax.evaluation.metrics import METRICS

KINDS = {
    "inception": (Inception, InceptionConfig.nano(), maps.INCEPTION),
    "lpips_alex": (LPIPS, LPIPSConfig.nano(), maps.LPIPS),
}

SMALL = """
from magiccolor_jax.evaluation.metrics import COLOR, REGION
from magiccolor_jax.evaluation.protocol import Protocol
PROTOCOL = Protocol(
    name="small", metrics=("psnr", "ssim", "lpips_alex", "dino", *REGION, *COLOR), size=64, fid=True
)
"""

EIGHT = "import sys; from magiccolor_jax import cli; sys.exit(cli.run(sys.argv[1:]))"


@pytest.fixture(scope="module")
def networks(tmp_path_factory):
    """A folder with the networks that only judge, all small."""
    folder = tmp_path_factory.mktemp("networks")
    for stem, (kind, config, weight_map) in KINDS.items():
        save_network(folder / f"{stem}.safetensors", seeded_network(kind, config, weight_map))
    write_config(folder, ModelConfig(networks={stem: each[1] for stem, each in KINDS.items()}))
    return folder


@pytest.fixture(scope="module")
def cases(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cases")
    for index in range(3):
        write_colored_case(folder / f"page{index}", 1 + index)
    return folder


@pytest.fixture
def command(networks, nano_model, cases, tmp_path):
    """The command but for --out and what is judged."""
    given = ["evaluate", "--cases", cases, "--networks", networks, nano_model]
    return [*map(str, given), "--compilation-cache", str(tmp_path / "compiled")]


def report(folder):
    return json.loads((folder / "report.json").read_text())


@pytest.mark.parametrize("protocol", ["paper", "swapped"])
def test_protocols_from_end_to_end(command, cases, tmp_path, protocol):
    """A folder with the truth, and one with noise, whose exchanged pages are the same pages."""
    random = np.random.default_rng(0)
    for path in cases.iterdir():
        target = read_case(path).target
        save(tmp_path / f"best/{path.name}.png", target)
        noisy = (target.astype(int) + random.integers(-60, 60, target.shape)).clip(0, 255)
        for folder in ("noisy", "noisy/swapped")[: 1 + (path.name != "page0")]:
            save(tmp_path / folder / f"{path.name}.png", noisy.astype(np.uint8))
    words = ["--protocol", protocol, "--out", str(tmp_path / "out"), "--pred"]
    folders = [str(tmp_path / name) for name in ("best", "noisy")]
    assert cli.run([*command, *words, *folders, "--baselines", "mean_color"]) == 0
    found = report(tmp_path / "out")
    assert set(found["methods"]) == {"truth", "mean_color", "best", "noisy"}
    best, noisy = (found["methods"][name] for name in ("best", "noisy"))
    for name in set(best) - {"cases", "fid", "swapped", "own_closest"}:
        sign = {"higher": 1, "lower": -1}[METRICS[name].better]
        assert sign * best[name]["value"] > sign * noisy[name]["value"], name
    if protocol == "paper":
        assert noisy["fid"] > 1 and best["fid"] == pytest.approx(0, abs=1e-3)
    else:
        assert found["methods"]["mean_color"]["swapped"]["value"] == 1
        assert noisy["swapped"]["value"] == 0 and best["swapped"] is None


@pytest.mark.slow
def test_eight_devices_measure_the_same(command, tmp_path):
    (tmp_path / "small.py").write_text(SMALL)
    words = ["--protocol", str(tmp_path / "small.py"), "--baselines", "grey", "reinhard", "--out"]
    assert cli.run([*command, *words, str(tmp_path / "one")]) == 0
    flags = "--xla_force_host_platform_device_count=8"
    made = subprocess.run(
        [sys.executable, "-c", EIGHT, *command, *words, str(tmp_path / "eight")],
        env=os.environ | {"XLA_FLAGS": flags},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "3 cases on 8 x" in made.stderr
    one, eight = (report(tmp_path / name) for name in ("one", "eight"))
    for method in one["rows"]:
        if method != "truth":
            fid = one["methods"][method]["fid"]
            assert eight["methods"][method]["fid"] == pytest.approx(fid, rel=1e-4)
        for page, expected in one["rows"][method].items():
            row = eight["rows"][method][page]
            assert row["leakage"] == expected["leakage"]
            for name in ("psnr", "ssim", "lpips_alex", "dino"):
                assert row[name] == pytest.approx(expected[name], rel=1e-5, abs=1e-6), name
            for mine, other in zip(row["instances"], expected["instances"], strict=True):
                assert mine == pytest.approx(other, rel=1e-5)
