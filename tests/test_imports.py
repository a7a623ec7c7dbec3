"""Which folder may import which, and what each may import of others: design kept by the parser."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "src" / "tlstm"

# A folder may import itself and these; commands, the files beside the folders, may import all
FOLDERS = {
    "ops": set(),
    "layers": {"ops", "utils"},
    "tasks": {"utils"},
    "records": {"utils"},
    "training": {"ops", "layers", "tasks", "records", "utils"},
    "sweeping": {"training", "records", "utils"},
    "reporting": {"records", "utils"},
    "bench": {"ops", "layers", "records", "utils"},
    "utils": set(),
}

# What a folder must do without, so that it stays usable without it
WITHOUT = {
    "utils": {"torch", "lightning", "hydra", "pandas", "pydantic", "wandb", "numpy"},
    "ops": {"lightning", "hydra", "omegaconf", "pandas", "pydantic", "wandb", "numpy"},
    "layers": {"lightning", "hydra", "omegaconf", "pandas", "pydantic", "wandb"},
    "records": {"torch", "lightning", "hydra", "wandb"},
    "reporting": {"torch", "lightning", "hydra", "wandb"},
}


def imported(file: Path) -> Iterator[str]:
    """Dotted names of the modules that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: a relative import"
            module = node.module or ""
            yield from (f"{module}.{alias.name}" for alias in node.names)


def folder_of(name: str) -> str:
    """The part of the package that a dotted name lies in: "ops" for "tlstm.ops.shapes"."""
    return name.split(".")[1]


def files(folder: str) -> list[Path]:
    place = PACKAGE / folder
    return sorted(place.rglob("*.py")) if place.is_dir() else [PACKAGE / f"{folder}.py"]


@pytest.mark.parametrize("folder", FOLDERS)
def test_imports_run_downwards_only(folder: str) -> None:
    allowed = {folder} | FOLDERS[folder]
    wrong = {
        f"{file.relative_to(PACKAGE)} imports {name}"
        for file in files(folder)
        for name in imported(file)
        if name.startswith("tlstm.") and folder_of(name) not in allowed
    }
    assert wrong == set()


@pytest.mark.parametrize("folder", WITHOUT)
def test_a_folder_does_without(folder: str) -> None:
    wrong = {
        f"{file.relative_to(PACKAGE)} imports {name}"
        for file in files(folder)
        for name in imported(file)
        if name.split(".")[0] in WITHOUT[folder]
    }
    assert wrong == set()


def test_every_folder_has_its_place() -> None:
    """And says in one sentence what it is for."""
    folders = {place.parent.name for place in PACKAGE.glob("*/__init__.py")}
    assert folders == set(FOLDERS) - {"utils"}
    for folder in folders:
        tree = ast.parse((PACKAGE / folder / "__init__.py").read_text(encoding="utf-8"))
        assert ast.get_docstring(tree), folder
