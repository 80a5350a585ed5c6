"""Origin and licence of every picture."""

import json

import pytest

from magiccolor_jax.prepare.credits import Credits, check_credits, read_credits, spdx_of


def test_the_nearest_word_counts(tmp_path):
    rows = {"a": {"author": "B", "note": "n"}, "a/deep/2": {"licence": "MIT"}}
    (tmp_path / "credits.json").write_text(json.dumps(rows))
    credits = read_credits(
        {"licence": "CC0-1.0", "author": "", "source": ""}, tmp_path / "credits.json"
    )
    assert credits.of("x", "x.png") == ("x.png", "", "CC0-1.0", "")
    assert credits.of("a/1", "p") == ("p", "B", "CC0-1.0", "n")
    assert credits.of("a/deep/2", "p") == ("p", "", "MIT", "")
    own = {"licence": "CC-BY-4.0", "source": "", "author": "C"}
    assert credits.of("x", "p", own) == ("p", "C", "CC-BY-4.0", "")
    assert credits.of("a/1", "p", own).author == "B"
    assert credits.unused(["a/1", "x"]) == ["a/deep/2"] and credits.unused(["a/deep/2"]) == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("http://creativecommons.org/licenses/by-nc-sa/2.0/", "CC-BY-NC-SA-2.0"),
        ("https://creativecommons.org/licenses/by/4.0", "CC-BY-4.0"),
        ("http://creativecommons.org/publicdomain/zero/1.0/", "CC0-1.0"),
        ("MIT", "MIT"),
        ("United States Government Work", "LicenseRef-United-States-Government-Work"),
        ("", ""),
        ("Unknown", ""),
        ("none", ""),
    ],
)
def test_spdx(text, expected):
    assert spdx_of(text) == expected


@pytest.mark.parametrize(
    "text", ["[", "[]", '{"a": 1}', '{"a": {"licence": 1}}', '{"a": {"by": ""}}']
)
def test_bad_files(tmp_path, text):
    (tmp_path / "credits.json").write_text(text)
    with pytest.raises(ValueError, match=r"credits\.json"):
        read_credits({}, tmp_path / "credits.json")


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(
        ValueError, match=r"none\.json: .*: expected a file with .*, got No such file"
    ):
        read_credits({}, tmp_path / "none.json")
    with pytest.raises(ValueError, match="got Is a directory; check the path, or give --licence"):
        read_credits({}, tmp_path)


def test_what_is_missing_is_asked_for():
    credits = Credits({"author": "A"}, {"b": {"licence": "CC0-1.0"}, "c": {"licence": "unknown"}})
    origins = {name: credits.of(name, name) for name in "abc"}
    with pytest.raises(ValueError, match="got 'unknown', none for 2 of 3: a, c; give --licence"):
        check_credits(origins)
    nameless = {"b": origins["b"]._replace(author=" ")}
    with pytest.raises(ValueError, match="got none for 1 of 1: b; give --author"):
        check_credits(nameless)
