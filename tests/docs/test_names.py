"""Names, paths, links, settings and check ids that the documents mention exist."""

from __future__ import annotations

import ast
import builtins
import importlib
import re
import subprocess
from functools import cache
from pathlib import Path

import pytest

from agent_sessions.conf import Settings as SessionSettings
from cache_layer.conf import Settings as CacheSettings
from tests.docs.test_code_blocks import FENCE, ROOT, identify

PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
PACKAGES = ("agent_sessions", "cache_layer", "benchmarks", "example_project", "tests")

SPAN = re.compile(r"`([^`\n]+)`")
PATH = re.compile(r"^(?:\.ci|docs|compose|" + "|".join(PACKAGES) + r")/[\w./-]*$")
DOTTED = re.compile(r"^(?:" + "|".join(PACKAGES) + r")(?:\.\w+)+$")
CHECK_ID = re.compile(r"^(agent_sessions|cache_layer)\.([EWI]\d{3})$")
PERMISSION = re.compile(r"^agent_sessions\.(?:view|add|change|delete)_(?:session|message)$")
SETTING = re.compile(r"^(?:AGENT_SESSIONS|CACHE_LAYER)_[A-Z_]+$")
NAMED = re.compile(r"^@?(?:[\w.]*\.)?(\w+)\(.*\)$|^([A-Z]\w*[a-z]\w*)$")
LINK = re.compile(r"\]\((?!https?:)([^)#\s]*)(?:#([^)\s]+))?\)")

#: Names of Django, of Python and of other programs that the documents mention.
FOREIGN = {
    *("DoesNotExist", "DummyCache", "EventSource", "ImproperlyConfigured", "QuerySet"),
    *(
        "CommonMiddleware",
        "ValidationError",
        "atomic",
        "fetch",
        "on_commit",
        "only",
        "defer",
        "refresh_from_db",
    ),
    *(
        "ETag",
        "bulk_create",
        "bulk_update",
        "get_or_create",
        "save",
        "update",
        "DefaultRouter",
        "HerdClient",
        "run",
    ),
}
#: Words in backticks that begin with a capital and are no names of code.
WORDS = {"Accept", "Location", "Retry", "Redis", "UNIQUE", "False", "None", "True", "Django"}


def prose(page: Path) -> str:
    """The text of a page, with the same lines, without its code blocks."""
    return FENCE.sub(lambda match: "\n" * match[0].count("\n"), page.read_text(encoding="utf-8"))


def spans(page: Path) -> list[tuple[str, str]]:
    """Every text in backticks, with the place where it stands."""
    text = prose(page)
    return [
        (f"{identify(page)}:{text.count(chr(10), 0, match.start()) + 1}", match[1])
        for match in SPAN.finditer(text)
    ]


@cache
def defined() -> set[str]:
    """Names of all classes, functions, arguments and class attributes of the repository."""
    names = set(dir(builtins)) | FOREIGN
    for package in PACKAGES:
        for file in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                match node:
                    case ast.ClassDef() | ast.FunctionDef() | ast.AsyncFunctionDef():
                        names.add(node.name)
                    case ast.Name(ctx=ast.Store()):
                        names.add(node.id)
                    case ast.alias():
                        names.add(node.asname or node.name)
    return names


def defined_on(page: Path) -> set[str]:
    """Names of functions that the code blocks of a page define."""
    return set(
        re.findall(r"^\s*(?:async )?def (\w+)", page.read_text(encoding="utf-8"), re.MULTILINE)
    )


@cache
def sources() -> str:
    """The text of the two packages."""
    return "\n".join(
        file.read_text(encoding="utf-8")
        for package in ("agent_sessions", "cache_layer")
        for file in (ROOT / package).rglob("*.py")
    )


@cache
def settings() -> set[str]:
    return {
        *(f"AGENT_SESSIONS_{name}" for name in SessionSettings.__annotations__),
        *(f"CACHE_LAYER_{name}" for name in CacheSettings.__annotations__),
    }


def resolves(dotted: str) -> bool:
    """Whether the name is a module, what a module has under that name, a logger or a task."""
    if PERMISSION.match(dotted):
        return True
    parts = dotted.split(".")
    for length in range(len(parts), 0, -1):
        try:
            found: object = importlib.import_module(".".join(parts[:length]))
        except ModuleNotFoundError:
            continue
        for name in parts[length:]:
            found = getattr(found, name, None)
        if found is not None:
            return True
    return f'"{dotted}"' in sources()


def is_known(text: str, page: Path) -> bool:
    """Whether what stands in backticks exists, as far as its form tells what it is."""
    if check := CHECK_ID.match(text):
        return f"{check[1]}.{check[2]}" in sources() or f'"{check[2]}"' in sources()
    if SETTING.match(text):
        return text in settings() or text.endswith("_")
    if PATH.match(text):
        return (ROOT / text).exists()
    if DOTTED.match(text):
        return resolves(text)
    if (named := NAMED.match(text)) and text not in WORDS:
        return (named[1] or named[2]) in defined() | defined_on(page)
    return True


@pytest.mark.parametrize("page", PAGES, ids=identify)
def test_names_in_backticks_exist(page: Path) -> None:
    assert [f"{place} {text}" for place, text in spans(page) if not is_known(text, page)] == []


@pytest.mark.parametrize("page", PAGES, ids=identify)
def test_make_targets_in_backticks_exist(page: Path) -> None:
    targets = {text.split()[1] for _place, text in spans(page) if text.startswith("make ")}
    for target in targets:
        done = subprocess.run(
            ["make", "--dry-run", target], cwd=ROOT, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr


def anchors(page: Path) -> set[str]:
    """The addresses of a page's headings, as code hosts make them."""
    headings = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-") for text in headings}


@pytest.mark.parametrize("page", PAGES, ids=identify)
def test_links_lead_somewhere(page: Path) -> None:
    broken = []
    for target, anchor in LINK.findall(prose(page)):
        file = (page.parent / target).resolve() if target else page
        if not file.exists() or (anchor and anchor not in anchors(file)):
            broken.append(f"{target}#{anchor}")
    assert broken == []
