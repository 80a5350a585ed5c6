"""The report's page, in a browser."""

import os
import shutil
import subprocess
import sys

import pytest
from oracles.colored_cases import write_colored_case
from PIL import Image

from magiccolor_jax import cli
from magiccolor_jax.evaluation.page import _chosen

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)


def test_a_sheet_shows_each_case_once():
    assert [case for _, case in _chosen("abc")] == ["a", "b", "c"]
    many = [f"{i:02}" for i in range(40)]
    kinds = [kind for kind, _ in _chosen(many)]
    assert kinds == ["worst"] * 4 + ["middle"] * 4 + ["best"] * 4
    assert [case for _, case in _chosen(many)][:5] == ["00", "01", "02", "03", "18"]


@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium (.ci/run installs it)")
def test_the_page_in_a_browser(tmp_path):
    """Nothing is loaded from elsewhere, every picture is decoded, and something is to be seen."""
    for index in range(3):
        write_colored_case(tmp_path / "cases" / f"page <{index}>", 1 + index)
    words = ["--cases", tmp_path / "cases", "--out", tmp_path / "out", "--baselines", "all"]
    assert cli.run(["evaluate", *map(str, words)]) == 0
    page = tmp_path / "out" / "index.html"
    checked = tmp_path / "checked.html"
    script = (
        "<script>addEventListener('load', () => { const all = [...document.images];"
        "all.forEach(image => image.loading = 'eager');"
        "Promise.all(all.map(image => image.decode().then(() => 1, () => 0))).then(done =>"
        "document.title = `decoded ${done.reduce((a, b) => a + b)} of ${all.length}, `"
        "+ `${document.querySelectorAll('svg').length} drawings, `"
        "+ `${performance.getEntriesByType('resource')"
        ".filter(e => !e.name.startsWith('data:')).length} loads`)})</script>"
    )
    checked.write_text(page.read_text().replace("</body>", script + "</body>"))
    for _ in range(3):  # the browser's time does not wait for decoders on a busy machine
        found = browse(tmp_path, "--virtual-time-budget=20000", "--dump-dom", str(checked))
        if "<title>decoded" in found:
            break
    assert "<title>decoded 75 of 75, 11 drawings, 0 loads</title>" in found
    assert "page &lt;2&gt;" in found
    shot = tmp_path / "shot.png"
    browse(tmp_path, f"--screenshot={shot}", "--window-size=1200,1600", str(page))
    with Image.open(shot) as image:
        assert image.size == (1200, 1600) and len(image.convert("RGB").getcolors(2**24)) > 100


def browse(folder, *words):
    command = [CHROMIUM, "--headless", "--disable-gpu", f"--user-data-dir={folder / 'browser'}"]
    if sys.platform == "linux" and os.getuid() == 0:
        command.append("--no-sandbox")  # Chromium refuses root otherwise
    done = subprocess.run([*command, *words], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout
