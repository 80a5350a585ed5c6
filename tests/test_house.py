"""The rules of the house: who imports whom, how long code is, what loads late."""

import ast
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "magiccolor_jax"
TYPED = [
    path for folder in ("magiccolor_jax", "converters") for path in (ROOT / folder).rglob("*.py")
]
CODE = [*TYPED, *(ROOT / "scripts").rglob("*.py"), *(ROOT / "configs").rglob("*.py")]

ORDER = [
    "types",
    "recipe",
    "files",
    "presets",
    "embedded",
    "tensorfile",
    "trees",
    "precision",
    "nn",
    "encoders",
    "segment",
    "lineart",
    "models",
    "data",
    "conditioning",
    "diffusion",
    "losses",
    "parallel",
    "checkpoint",
    "tiny",
    "sampling",
    "prepare",
    "evaluation",
    "training",
    "serve",
    "cli",
]
"""Files and folders of the package; each imports from those before it, a folder from itself too."""

FOREIGN = {"torch", "torchvision", "diffusers", "transformers", "safetensors.torch"}
"""What only converters, scripts and tests may load."""

FUNCTION_LINES, FILE_LINES = 50, 400
LONG_FUNCTIONS: dict[str, str] = {}
"""`path:function` -> why it may be longer."""
LONG_FILES: dict[str, str] = {}
"""Path -> why it may be longer (never more than 500 lines)."""


class Import(NamedTuple):
    """One imported module."""

    module: str
    inside_function: bool


def imports_of(source: str) -> list[Import]:
    """Every module that a file imports, wherever the statement stands."""
    found = []

    def walk(node: ast.AST, inside: bool) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import):
                found.extend(Import(alias.name, inside) for alias in child.names)
            elif isinstance(child, ast.ImportFrom):
                base = child.module or ""
                assert not child.level, "imports are absolute"
                # `from magiccolor_jax.data import canvas` names a module as well.
                found.extend(Import(f"{base}.{alias.name}", inside) for alias in child.names)
            is_function = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            walk(child, inside or is_function)

    walk(ast.parse(source), False)
    return found


def upward_imports(unit: str, source: str) -> list[str]:
    """Modules of the package that a file of `unit` may not import."""
    modules = [i.module for i in imports_of(source) if i.module.startswith("magiccolor_jax.")]
    allowed = ORDER[: ORDER.index(unit) + 1]
    return [module for module in modules if module.split(".")[1] not in allowed]


def names(module: str, roots: set[str]) -> bool:
    return any(module == root or module.startswith(f"{root}.") for root in roots)


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=relative)
def test_imports_look_only_up_the_list(path):
    unit = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    if unit == "__init__":
        assert all(not i.module.startswith("magiccolor_jax") for i in imports_of(path.read_text()))
        return
    assert unit in ORDER, f"give {unit} a place in the README's file list and in ORDER"
    assert not upward_imports(unit, path.read_text())


def test_the_import_rule_sees_every_form_of_import():
    source = (
        "import magiccolor_jax.cli\n"
        "from magiccolor_jax.sampling.job import run\n"
        "from magiccolor_jax import training\n"
        "def later():\n    from magiccolor_jax.checkpoint import read_config\n"
        "from magiccolor_jax.nn.attention import attend\n"
    )
    assert len(upward_imports("models", source)) == 4


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=relative)
def test_the_package_imports_neither_torch_nor_converters(path):
    found = imports_of(path.read_text())
    assert not [i.module for i in found if names(i.module, FOREIGN)]
    converters = [i for i in found if names(i.module, {"converters"})]
    assert not converters or path == PACKAGE / "cli.py"
    assert all(i.inside_function for i in converters)


@pytest.mark.parametrize("path", sorted(TYPED), ids=relative)
def test_typed_modules_keep_their_annotations(path):
    """jaxtyping cannot read postponed annotations."""
    assert "__future__.annotations" not in [i.module for i in imports_of(path.read_text())]


@pytest.mark.parametrize("path", sorted(CODE), ids=relative)
def test_files_and_functions_are_short(path):
    source = path.read_text()
    lines = len(source.splitlines())
    assert lines <= (500 if relative(path) in LONG_FILES else FILE_LINES)
    functions = [n for n in ast.walk(ast.parse(source)) if isinstance(n, ast.FunctionDef)]
    long = {
        f"{relative(path)}:{node.name}": node.end_lineno - node.lineno + 1
        for node in functions
        if node.end_lineno - node.lineno + 1 > FUNCTION_LINES
    }
    assert not {name: size for name, size in long.items() if name not in LONG_FUNCTIONS}


HEAVY = ("jax", "flax", "torch", "cv2", "converters")


@pytest.mark.parametrize(
    "statement",
    [
        "import magiccolor_jax",
        "import magiccolor_jax; dir(magiccolor_jax)",
        "import magiccolor_jax.cli as cli; cli.sys.exit = lambda code: None; cli.main(['--help'])",
    ],
    ids=["import", "dir", "help"],
)
def test_the_front_door_is_light(statement):
    report = f"import sys; {statement}; print([m for m in {HEAVY} if m in sys.modules])"
    run = subprocess.run(
        [sys.executable, "-c", report], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert run.stdout.splitlines()[-1] == "[]"


def test_public_names_are_loaded_on_first_use():
    import magiccolor_jax

    for name in magiccolor_jax.__all__:
        assert getattr(magiccolor_jax, name).__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'Colouriser'"):
        magiccolor_jax.Colouriser  # noqa: B018
