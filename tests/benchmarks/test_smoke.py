"""The benchmarks run, with our own rows and the raw ones: nothing about how fast."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from django.db import connection

from benchmarks import report
from benchmarks.report import Report, Table
from tests import services

ROOT = Path(__file__).resolve().parents[2]


def printed(module: str, *arguments: str) -> str:
    """Run a benchmark to its end; return what it printed."""
    environment = {**os.environ, "PYTHONWARNINGS": "default"}
    environment.pop("DJANGO_SETTINGS_MODULE", None)
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout


def run(module: str, path: Path, *arguments: str) -> dict[str, dict[str, list[Any]]]:
    """Run a benchmark on its smallest scale; return the rows of its tables, by table."""
    printed(module, "--smoke", "--json", str(path), *arguments)
    tables = json.loads(path.read_text(encoding="utf-8"))["tables"]
    return {table["name"]: table["rows"] for table in tables}


def failures(tables: dict[str, dict[str, list[Any]]]) -> list[str]:
    return [
        f"{name}, {row}: {cells}"
        for name, rows in tables.items()
        for row, cells in rows.items()
        if not cells or str(cells[0]).startswith("failed")
    ]


@pytest.mark.slow
@pytest.mark.xdist_group("benchmarks")
def test_the_benchmarks_of_the_cache_run(tmp_path: Path) -> None:
    if not shutil.which("redis-server"):
        services.missing("redis-server", "install Redis")
    suites = ("calls", "products", "near", "invalidation", "stampede", "loops")
    tables = run("benchmarks.cache", tmp_path / "cache.json", "--only", *suites)
    assert failures(tables) == []
    assert {"get", "crowd", "many-hits", "generator-hit", "near-hit", "stampede", "loops"} <= set(
        tables
    )
    for rows in tables.values():
        assert any(row.startswith("cache_layer") for row in rows)


@pytest.mark.slow
@pytest.mark.postgres
@pytest.mark.xdist_group("benchmarks")
def test_the_benchmarks_of_the_stores_run(tmp_path: Path) -> None:
    settings = connection.settings_dict
    address = f"{settings['HOST']}:{settings['PORT'] or 5432}"
    assert os.environ.get("DATABASE_URL"), address
    tables = run("benchmarks.sessions", tmp_path / "sessions.json")
    assert failures(tables) == []
    assert {
        "size",
        "append",
        "pages",
        "shared",
        "cleanup",
        "contexts",
        "bulk",
        "shares",
        "shares-100",
    } <= set(tables)
    # What is right or wrong is no matter of speed.
    _, errors, lost, behind = tables["shared"]["agent_sessions"]
    assert (errors, lost, behind) == (0, 0, 0)
    assert tables["contexts"]["agent_sessions"][0] == 0
    assert tables["bulk"]["agent_sessions"][0] == 0


@pytest.mark.slow
@pytest.mark.postgres
@pytest.mark.xdist_group("benchmarks")
def test_the_benchmarks_of_the_api_run() -> None:
    lines = printed("benchmarks.api", "--rounds", "1", "--seconds", "0.2").splitlines()
    appends = [line for line in lines if line.startswith("| append |")]
    assert len(appends) == 2


def test_docs_are_written_between_the_marks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = tmp_path / "benchmarks.md"
    page.write_text("before\n<!-- cache: begin -->\nold\n<!-- cache: end -->\nafter\n")
    monkeypatch.setattr(report, "DOCS", page)
    made = Report("cache", ["django"], {})
    made.tables = [Table("get", ["ms"], {"a": [1234.5], "c": [0.05]})]
    made.write_docs([])
    text = page.read_text()
    assert text.startswith("before\n<!-- cache: begin -->\n")
    assert text.endswith("\n<!-- cache: end -->\nafter\n")
    assert "old" not in text
    assert "| c | 0.050 |" in text


def test_the_page_has_the_marks() -> None:
    text = report.DOCS.read_text(encoding="utf-8")
    for mark in ("cache: begin", "cache: end", "sessions: begin", "sessions: end"):
        assert f"<!-- {mark} -->" in text
