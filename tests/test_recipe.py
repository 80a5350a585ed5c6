"""Presets and choices; and each field is read in the one file that its docstring names."""

import ast
import dataclasses
import re
import typing
from pathlib import Path

import pytest

from magiccolor_jax import recipe
from magiccolor_jax.recipe import Recipe

PACKAGE = Path(__file__).parents[1] / "magiccolor_jax"
FIELDS = [field.name for field in dataclasses.fields(Recipe)]


def declared_readers() -> dict[str, str]:
    """Field -> the file that its docstring names."""
    body = ast.parse((PACKAGE / "recipe.py").read_text()).body
    owner = next(node for node in body if isinstance(node, ast.ClassDef) and node.name == "Recipe")
    readers = {}
    for field, text in zip(owner.body, owner.body[1:], strict=False):
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
            docstring = ast.literal_eval(text.value)  # pyright: ignore
            readers[field.target.id] = re.findall(r"Read in\s+(\S+\.py)", docstring)
    return {name: found[0] for name, found in readers.items() if len(found) == 1}


def actual_readers() -> dict[str, set[str]]:
    """Field -> the files with `recipe.<field>` or `<anything>.recipe.<field>` in them."""
    readers: dict[str, set[str]] = {name: set() for name in FIELDS}
    for file in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Attribute) and node.attr in readers:
                owner = node.value
                name = owner.attr if isinstance(owner, ast.Attribute) else getattr(owner, "id", "")
                if name == "recipe":
                    readers[node.attr].add(str(file.relative_to(PACKAGE)))
    return readers


def test_every_field_names_its_reader():
    assert list(declared_readers()) == FIELDS


@pytest.mark.parametrize("name", FIELDS)
def test_field_is_read_in_one_file(name: str):
    assert actual_readers()[name] == {declared_readers()[name]}


@pytest.mark.parametrize("preset", ["paper", "release"])
def test_presets_travel_by_name(preset: str):
    chosen = Recipe.from_json(preset)
    assert chosen.to_json() == preset
    assert Recipe.from_json(dataclasses.asdict(chosen)) == chosen


def test_own_choices_travel_as_fields():
    recipe = Recipe(canvas_fit="release", uncond_drops=("bank",))
    value = recipe.to_json()
    assert (
        isinstance(value, dict) and Recipe.from_json({**value, "uncond_drops": ["bank"]}) == recipe
    )


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ("papper", "expected one of"),
        ({"contxt": "clip"}, "unknown fields"),
        ({"token_drop": 1.5}, "token_drop is a share"),
        ({"finish_reach": 0}, "finish_reach must be a whole number of pixels, 1 to 64, got 0"),
        ({"finish_reach": 65}, "finish_reach must be .* 1 to 64, got 65"),
        ({"masks_on": "canvas"}, "expected page_fit='squeeze512'"),
    ],
)
def test_bad_recipes(value: str | dict, says: str):
    with pytest.raises(ValueError, match=says):
        Recipe.from_json(value)


@pytest.mark.parametrize(
    ("name", "value"),
    [("context", "clap"), ("uncond_drops", ("bank", "banks")), ("mask_threshold", 50)],
)
def test_bad_choices(name: str, value: object):
    # Asked of the check itself: in the tests beartype refuses them at __init__ already.
    with pytest.raises(ValueError, match=f"{name} must be one of"):
        recipe._check_choice(name, value, typing.get_type_hints(Recipe)[name])


@pytest.mark.parametrize(
    ("name", "value"),
    [("finish_reach", value) for value in (True, 2.5, "8", None)] + [("token_drop", "a")],
)
def test_numbers_of_another_type(name: str, value: object):
    with pytest.raises(ValueError, match=f"{name} (must be a whole number|is a share)"):
        recipe._check_choice(name, value, typing.get_type_hints(Recipe)[name])


def test_a_training_does_not_see_how_pictures_are_finished():
    text = Recipe.paper().of_training()
    finished = dataclasses.replace(Recipe.paper(), finish="lines", finish_reach=8)
    assert text == finished.of_training()
    assert text != dataclasses.replace(Recipe.paper(), token_drop=0.2).of_training()
    assert text.startswith("Recipe(context='clip', reference_bank=True") and "finish" not in text
