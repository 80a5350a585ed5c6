"""DiceBear's characters: one look, several expressions, put together by the style's own code."""

import shutil

import pytest
from art_readers import EXPRESSIONS, subjects
from art_sources import CC_BY, Source
from oracles.packages import pinned, tgz

from magiccolor_jax.data.pictures import CaseError

CORE = b"""
// Stands in for the real one: the parts that the seed's letters choose, where no option does.
export function createAvatar(style, options) {
  const sum = [...options.seed].reduce((all, letter) => all * 31 + letter.charCodeAt(0) | 0, 7);
  const pick = (part, n) => (options[part] ?? style.schema.properties[part].default).at(
    Math.abs(sum >> n) % (options[part] ?? style.schema.properties[part].default).length);
  const hat = (options.hatProbability ?? (sum & 1) * 100) ? pick('hat', 2) : undefined;
  const made = { eyes: pick('eyes', 4), hat, skinColor: '#' + pick('skinColor', 6) };
  return {
    toString: () => `<svg viewBox="0 0 4 4"><!--${JSON.stringify(made)}--></svg>`,
    toJson: () => ({ extra: { ...made, primaryBackgroundColor: 'transparent' } }),
  };
}
"""
STYLE = b"""
const of = (...names) => ({ default: names });
export const schema = { properties: {
  eyes: of('wide', 'shut', 'wink', 'sad', 'angry'), hat: of('cap', 'bow'), hatProbability: {},
  skinColor: of('aa5500', 'eecc99', '773311'),
} };
"""


@pytest.fixture
def source(tmp_path):
    def packed(name: str, code: bytes):
        files = {"package/lib/index.js": code, "package/package.json": b'{"type": "module"}'}
        files["package/LICENSE"] = b"License: CC BY 4.0 (https://...)"
        return pinned(tmp_path, tgz(files), f"@dicebear/{name}")

    packages = (packed("core", CORE), packed("toys", STYLE))
    proof = ("package/LICENSE", "License: CC BY 4.0 (")
    words = ("Toys", "A. Maker", "https://toys.example/")
    row = Source("dicebear-toys", "dicebear", *words, CC_BY, packages, proof)
    return row._replace(characters=12, expression=("eyes",))


@pytest.mark.skipif(shutil.which("node") is None, reason="DiceBear needs Node.js")
def test_only_the_expression_differs(source, tmp_path):
    found = subjects(source, tmp_path)
    assert [subject.id for subject in found] == [f"toys-{number}" for number in range(12)]
    looks = set()
    for subject in found:
        parts = [drawing.decode().split('"', 7) for drawing in subject.drawings]
        assert len(parts) == EXPRESSIONS
        (look,) = {drawing.split(b",", 1)[1] for drawing in subject.drawings}
        looks.add(look)
    eyes = {drawing.split(b",")[0] for subject in found for drawing in subject.drawings}
    assert len(looks) > 3 and len(eyes) > 3
    assert any(b"hat" in look for look in looks) and any(b"hat" not in look for look in looks)
    assert subjects(source, tmp_path) == found


@pytest.mark.skipif(shutil.which("node") is None, reason="DiceBear needs Node.js")
def test_a_style_that_fails_is_named(source, tmp_path):
    with pytest.raises(CaseError, match="run in Node.js"):
        subjects(source._replace(packages=source.packages[:1] * 2), tmp_path)


def test_a_node_that_dies_is_told(source, tmp_path, monkeypatch):
    node = tmp_path / "node"
    node.write_text("#!/bin/sh\nexit 3\n")
    node.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin")
    with pytest.raises(CaseError, match="got exit code 3"):
        subjects(source, tmp_path)


def test_without_node_the_error_says_so(source, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(CaseError, match="leave the dicebear"):
        subjects(source, tmp_path)
