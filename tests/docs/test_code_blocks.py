"""Every code block of the README and of docs/ is executed, or its command shown to exist."""

from __future__ import annotations

import ast
import inspect
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.contrib.auth import get_user_model
from django.db import connection

from cache_layer.backends import observe_calls

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted((ROOT / "docs").rglob("*.md")),
]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
PROJECT_FILE = re.compile(r"# ((?:\w+/)?\w+)\.py\n")


@dataclass(frozen=True)
class Block:
    document: Path
    line: int
    language: str
    code: str

    @property
    def project_file(self) -> str | None:
        match = PROJECT_FILE.match(self.code)
        return match[1] if match else None


def blocks(document: Path) -> list[Block]:
    text = document.read_text(encoding="utf-8")
    return [
        Block(document, text.count("\n", 0, match.start()) + 2, match[1], match[2])
        for match in FENCE.finditer(text)
    ]


def identify(document: Path) -> str:
    return str(document.relative_to(ROOT))


@pytest.mark.parametrize("document", DOCUMENTS, ids=identify)
def test_every_block_has_a_language_that_is_executed(document: Path) -> None:
    unknown = [
        f"{identify(document)}:{block.line} {block.language!r}"
        for block in blocks(document)
        if block.language not in {"python", "sh", "text", "ts", "sql", "nginx", "yaml"}
    ]
    assert unknown == []


@pytest.fixture
def unobserved() -> Iterator[None]:
    """What a page instruments ends with it."""
    yield
    observe_calls(None)


@pytest.mark.usefixtures("unobserved")
@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("document", DOCUMENTS, ids=identify)
async def test_python_blocks_run(document: Path) -> None:
    """In order, in one namespace a document, with `user`, a saved user, as the only given name."""
    user = await sync_to_async(get_user_model().objects.create_user)("reader")
    namespace: dict[str, Any] = {"__name__": "document", "user": user}
    for block in blocks(document):
        if block.language != "python" or block.project_file:
            continue
        # The blank lines make a traceback name the line in the document.
        code = compile(
            "\n" * (block.line - 1) + block.code,
            str(document),
            "exec",
            flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT,
            dont_inherit=True,
        )
        if code.co_flags & inspect.CO_COROUTINE:
            await eval(code, namespace)
        else:
            await sync_to_async(exec)(code, namespace)


@pytest.mark.postgres
@pytest.mark.django_db
@pytest.mark.parametrize("document", DOCUMENTS, ids=identify)
def test_sql_blocks_run(document: Path) -> None:
    with connection.cursor() as cursor:
        for block in blocks(document):
            if block.language == "sql":
                cursor.execute(block.code)


@pytest.fixture
def project(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """What `django-admin startproject` makes, with the document's settings and urls added."""
    document: Path = request.param
    environment = {**os.environ, "PYTHONPATH": ""}
    environment.pop("DJANGO_SETTINGS_MODULE", None)
    subprocess.run(
        [sys.executable, "-m", "django", "startproject", "mysite", str(tmp_path)],
        check=True,
        env=environment,
    )
    for block in blocks(document):
        if block.project_file:
            add_to_project(tmp_path, block)
    return tmp_path


def add_to_project(folder: Path, block: Block) -> None:
    """Append the block to its file, which is the project's, or that of an app when it says so."""
    file = Path(f"{block.project_file}.py")
    if len(file.parts) == 1:
        file = Path("mysite") / file
    path = folder / file
    if not path.parent.exists():
        path.parent.mkdir()
        (path.parent / "__init__.py").touch()
    with path.open("a", encoding="utf-8") as opened:
        opened.write(f"\n{block.code}")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("project", "document"),
    [(document, document) for document in DOCUMENTS],
    ids=[identify(document) for document in DOCUMENTS],
    indirect=["project"],
)
def test_shell_blocks_work(document: Path, project: Path) -> None:
    for block in blocks(document):
        if block.language != "sh":
            continue
        for line in block.code.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if words:
                run(words, project, f"{identify(document)}:{block.line}: {line}")


def run(words: list[str], project: Path, where: str) -> None:
    match words:
        case ["make", target, *_]:
            # The demo has its own test; the tests are running. Here: does the command exist?
            listed = subprocess.run(
                ["make", "-n", target], cwd=ROOT, capture_output=True, text=True, check=False
            )
            assert listed.returncode == 0, f"{where}\n{listed.stderr}"
        case ["python", "-m", module, *_]:
            assert find_spec(module) is not None, where
        case ["pip", "install", requirement]:
            name, _, extras = requirement.rstrip("]").partition("[")
            known = metadata(name).get_all("Provides-Extra") or []
            assert set(filter(None, extras.split(","))) <= set(known), where
        case ["python", "manage.py", *_]:
            environment = {**os.environ, "PYTHONWARNINGS": "default"}
            for name in ("DJANGO_SETTINGS_MODULE", "DATABASE_URL"):
                environment.pop(name, None)
            done = subprocess.run(
                [sys.executable, *words[1:]],
                cwd=project,
                env=environment,
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == 0, f"{where}\n{done.stdout}{done.stderr}"
        case ["npm", "install", *packages]:
            pinned = json.loads((ROOT / "tests/docs/package.json").read_text(encoding="utf-8"))
            known = {**pinned["dependencies"], **pinned["devDependencies"]}
            assert {name for name in packages if not name.startswith("-")} <= set(known), where
        case ["curl" | "npx", *_]:
            pass  # They need a server: test_http_blocks.py runs them.
        case ["uvicorn" | "gunicorn" | "daphne", *_]:
            pass  # They do not end: test_deployment.py starts and ends them.
        case ["celery", "--app", _, command]:
            assert find_spec(f"celery.bin.{command}") is not None, where
        case _:
            pytest.fail(f"no way to execute this line is known: {where}")
