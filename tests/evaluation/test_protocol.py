"""Protocols, as files and as objects."""

import pytest

from magiccolor_jax.evaluation.protocol import Protocol, load_protocol, protocol_names


def test_those_that_came_with_the_package_load():
    assert protocol_names() == ["ours", "paper", "swapped"]
    assert [load_protocol(name).name for name in protocol_names()] == protocol_names()
    paper = load_protocol("paper")
    assert (paper.cases, paper.size, paper.judges) == (1000, 512, ("lpips_alex", "inception"))
    assert load_protocol("ours").judges == ()
    assert load_protocol("swapped").judges == ("dinov2", "clip_vision", "lpips_alex")


def test_an_own_file(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(
        "from magiccolor_jax.evaluation.protocol import Protocol\n"
        "PROTOCOL = Protocol(name='mine', metrics=('psnr',))\n"
    )
    assert load_protocol(str(path)) == Protocol(name="mine", metrics=("psnr",))


@pytest.mark.parametrize(
    ("text", "message"),
    [("1 / 0", "must run, got ZeroDivisionError"), ("PROTOCOL = 3", "must define PROTOCOL")],
)
def test_a_file_that_is_none(tmp_path, text, message):
    path = tmp_path / "mine.py"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        load_protocol(str(path))


def test_a_name_that_is_none():
    with pytest.raises(ValueError, match="known are ours, paper, swapped; perhaps you meant paper"):
        load_protocol("papr")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"metrics": ("psnr", "psnrr")}, "got psnrr"),
        ({"metrics": ("psnr", "psnr")}, "got one twice"),
        ({"size": 16}, "size must be at least 32, got 16"),
        ({"cases": 0}, "cases must be at least 1"),
        ({"resamples": 0}, "resamples must be at least 1"),
    ],
)
def test_impossible_protocols_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        Protocol(**{"name": "x", "metrics": ("psnr",)} | changes)
