"""Docstrings begin with a verb or with the name of a thing, not with an open question."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "src" / "tlstm"
OPENERS = {"What", "How", "Whether", "Those", "Of", "That"}


def openers(source: str) -> list[str]:
    """Return the docstrings that begin with one of `OPENERS`, by name and line."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            words = (ast.get_docstring(node) or "").split()
            if words and words[0].rstrip(",.:;?!") in OPENERS:
                place = node.body[0].lineno
                found.append(f"{getattr(node, 'name', 'module')}, line {place}: {words[0]}")
    return found


def test_docstrings_begin_plainly():
    modules = sorted(PACKAGE.rglob("*.py"))
    assert modules
    found = [
        f"{module.relative_to(PACKAGE)}: {each}"
        for module in modules
        for each in openers(module.read_text(encoding="utf-8"))
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize("opener", sorted(OPENERS))
def test_each_opener_is_found(opener):
    function = f'    def f():\n        """{opener} b."""\n'
    text = f'"""{opener} it is."""\nclass A:\n    """{opener}: a."""\n{function}'
    assert len(openers(text)) == 3
