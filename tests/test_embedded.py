"""What comes with the package is found by its name, and may be given on."""

from pathlib import Path

from magiccolor_jax.data.cases import find_cases
from magiccolor_jax.embedded import CASES, case_folder


def test_a_name_leads_to_what_is_embedded(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert case_folder("concert_36") == case_folder(Path("concert_36")) == CASES / "concert_36"
    for other in ("elsewhere/concert_36", str(tmp_path / "concert_36"), "unknown", ".", ".."):
        assert case_folder(other) == Path(other)
    (tmp_path / "concert_36").mkdir()
    assert case_folder("concert_36") == Path("concert_36"), "what the user has goes first"


def test_every_case_has_its_licence():
    cases = find_cases([CASES])
    assert len(cases) == 4 and all((case / "LICENSE.txt").is_file() for case in cases)
