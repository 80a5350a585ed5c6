"""scripts/parity.py says what is true, and notices what is wrong."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

pytest.importorskip("torch")
pytest.importorskip("diffusers")
pytest.importorskip("transformers")

pytestmark = [pytest.mark.torch, pytest.mark.slow]

SCRIPT = Path(__file__).parents[2] / "scripts/parity.py"


def parity(work: Path, cache: Path, *arguments: object) -> tuple[int, dict[tuple[str, str], bool]]:
    """Exit code, and (network, what) -> whether it passed.

    Args:
        cache: of compiled programs; a wrong parameter changes none.
    """
    rows = work / "rows.json"
    options = ["--work", work, "--json", rows, "--page", "64x128", *arguments]
    command = [sys.executable, SCRIPT, *options]
    kept = {
        "JAX_COMPILATION_CACHE_DIR": str(cache),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    words = list(map(str, command))
    done = subprocess.run(words, env=os.environ | kept, capture_output=True, text=True)
    assert rows.exists(), done.stderr
    found = json.loads(rows.read_text())["rows"]
    return done.returncode, {(row["network"], row["what"]): row["passed"] for row in found}


@pytest.fixture(scope="module")
def work(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("parity")


@pytest.fixture(scope="module")
def passed(work) -> dict[tuple[str, str], bool]:
    samples = ("128x192:2:off", "128x128:2:release")
    code, rows = parity(work, work / "compiled", "--sample", *samples)
    assert code == 0, rows
    return rows


def test_every_network_and_sample_has_a_row(passed):
    assert all(passed.values())
    assert {network for network, _ in passed} == {
        *("denoiser", "reference", "sketch_guider", "instance_guider", "vae", "vgg19", "dinov2"),
        *("clip_vision", "clip_text", "text_encoder"),
        *("sample latents", "sample pixels", "sample neighbours"),
    }
    assert {what for network, what in passed if network == "denoiser"} == {
        *("plain", "residuals", "with bank"),
    }


SAMPLES = {
    ("sample latents", "1 steps, matching off"),
    ("sample pixels", "1 steps, matching off"),
}


@pytest.mark.nightly
@pytest.mark.parametrize(
    ("network", "parameter", "rows"),
    [
        (
            "denoiser",
            "conv_out/kernel",
            {("denoiser", what) for what in ("plain", "residuals", "with bank")} | SAMPLES,
        ),
        ("clip_vision", "visual_projection/kernel", {("clip_vision", "image_embeds")} | SAMPLES),
    ],
)
def test_a_wrong_parameter_is_noticed(passed, work, tmp_path, network, parameter, rows):
    model = tmp_path / "model"
    shutil.copytree(work / "model-nano", model)
    tensors = load_file(model / f"{network}.safetensors")
    tensors[parameter] = np.roll(tensors[parameter], 1, axis=-1)
    save_file(tensors, model / f"{network}.safetensors")
    folders = ("--release", work / "release-nano", "--model", model)
    code, found = parity(tmp_path, work / "compiled", *folders, "--sample", "64x128:1:off")
    assert code == 1
    assert {row for row, ok in found.items() if not ok} == rows
