"""Gradients of the whole training step against PyTorch's autograd, at nano size."""

import re

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("diffusers")
pytest.importorskip("transformers")

from oracles.gradients import (  # noqa: E402
    SETTINGS,
    Both,
    Gradients,
    differences,
    draw,
    pictures,
    vanishing,
)

pytestmark = pytest.mark.torch

TERM, SLOPE = 1e-5, 1e-4
"""Relative to each term, and to each gradient's largest value. Float32 makes up to 2e-5 of the
latter: so far is PyTorch's own from its float64, and so far is ours. (Not with quickly compiled
code, whose long sums are naive: 1.4e-4.)"""

IDLE = r"[a-z_]+/.*/attn2/to_[qk]/kernel|[a-z_]+/.*/transformer_blocks/0/norm2/(scale|bias)"
"""Cross-attention to CLIP's one token gives its value, whatever the query and the key are."""


@pytest.fixture(scope="module")
def both() -> Both:
    return Both()


@pytest.mark.slow
@pytest.mark.parametrize("name", SETTINGS)
def test_every_gradient_is_autograds(both, name):
    setting, shown = SETTINGS[name], pictures()
    theirs = both.their_gradients(setting, shown)
    ours = both.our_gradients(setting, shown)
    assert all(theirs.terms.values())
    assert ours.terms == pytest.approx(theirs.terms, rel=TERM)
    assert ours.slopes.keys() == both.trainable.keys()
    idle = {path for path in both.trainable if re.fullmatch(IDLE, path)}
    assert vanishing(theirs) == idle and idle
    assert not any(ours.slopes[path].any() for path in idle)
    wrong = {path: x for path, x in differences(ours, theirs).items() if x > SLOPE}
    assert not wrong


def test_the_settings_show_what_they_are_named_after():
    """One case is too noisy for the terms on pictures; dropped cases count and do not count."""
    for name, setting in SETTINGS.items():
        drawn = draw(setting)
        counts = drawn.timesteps < 1000 * setting.losses.picture_below
        assert drawn.looks and drawn.tokens.any() and counts.sum() == 2, name
        dropped = np.array(drawn.dropped)
        assert len(set(dropped[counts.numpy()])) == (1 if name == "epsilon" else 2), name
        assert name != "epsilon" or not dropped.any()


def test_differences_are_relative_to_each_gradient():
    exact = {"a/one": np.array([8.0, -4.0]), "a/two": np.array([2.0]), "a/idle": np.array([1e-13])}
    found = {"a/one": np.array([8.0, -3.0]), "a/two": np.array([2.5]), "a/idle": np.array([4.0])}
    expected = {"a/one": 0.125, "a/two": 0.25, "a/idle": 0.5}
    assert differences(Gradients({}, found), Gradients({}, exact)) == pytest.approx(expected)
    assert vanishing(Gradients({}, exact)) == {"a/idle"}
