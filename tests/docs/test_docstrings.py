"""Docstrings of both apps follow one convention, Google's."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MODULES = sorted(
    path for app in ("agent_sessions", "cache_layer") for path in (ROOT / app).rglob("*.py")
)

#: Forms of other conventions, by their names.
FOREIGN = {
    "errors within the text": re.compile(r"(?<![a-z] )\bRaises [A-Z]\w+"),
    "fields of Sphinx": re.compile(r":(param|raises|returns?|rtype)\b"),
    "roles of Sphinx": re.compile(r":(attr|class|data|exc|func|meth|mod):`"),
    "emphasized arguments": re.compile(r"(?<![*\w])\*[a-z_]{2,}\*(?!\w)"),
}


def docstrings(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield ast.get_docstring(node) or ""


def texts_behind_assignments(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        body = getattr(node, "body", [])
        for before, text in pairwise(body) if isinstance(body, list) else ():
            if (
                isinstance(before, ast.Assign | ast.AnnAssign)
                and isinstance(text, ast.Expr)
                and isinstance(text.value, ast.Constant)
            ):
                yield str(text.value.value)


@pytest.mark.parametrize("form", FOREIGN)
def test_docstrings_have_no_form_of_another_convention(form: str) -> None:
    found = [
        f"{path.relative_to(ROOT)}: {text[:60]}"
        for path in MODULES
        for text in docstrings(ast.parse(path.read_text("utf-8")))
        if FOREIGN[form].search(text)
    ]
    assert not found


def test_attributes_are_described_by_comments_before_them() -> None:
    found = [
        f"{path.relative_to(ROOT)}: {text[:60]}"
        for path in MODULES
        for text in texts_behind_assignments(ast.parse(path.read_text("utf-8")))
    ]
    assert not found
