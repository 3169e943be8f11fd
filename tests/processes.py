"""Whole processes of the project, on a database of their own."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import psycopg

ROOT = Path(__file__).resolve().parent.parent


@dataclass
class Project:
    """The example project with a directory and a database of its own."""

    directory: Path
    environment: dict[str, str]

    def start(self, *command: str, **options: Any) -> subprocess.Popen[bytes]:
        """Start `python` with the arguments, in a process group of its own."""
        return subprocess.Popen(
            [sys.executable, *command],
            cwd=ROOT,
            env=self.environment,
            start_new_session=True,
            **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options},
        )

    def manage(self, *command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run manage.py to its end."""
        done = subprocess.run(
            [sys.executable, "manage.py", *command],
            cwd=ROOT,
            env=self.environment,
            capture_output=True,
            encoding="utf-8",
            timeout=180,
        )
        assert not check or done.returncode == 0, done.stderr
        return done

    def scalar(self, query: str) -> Any:
        """Run a query that returns one value."""
        url = self.environment["DATABASE_URL"]
        if url.startswith("sqlite"):
            path = url.removeprefix("sqlite:///")
            with closing(sqlite3.connect(path, timeout=20)) as database:
                return database.execute(query).fetchone()[0]
        with psycopg.connect(url, autocommit=True) as database:
            row = database.execute(query).fetchone()
            assert row is not None
            return row[0]


@contextmanager
def project(directory: Path) -> Iterator[Project]:
    """A migrated project in the directory: PostgreSQL where DATABASE_URL names one."""
    server = os.environ.get("DATABASE_URL", "")
    kept = {
        name: value
        for name, value in os.environ.items()
        if name not in {"REDIS_URL", "CELERY_BROKER_URL", "TEST_USER_MODEL", "PYTHONWARNINGS"}
    }
    environment = {
        **kept,
        "DJANGO_SETTINGS_MODULE": "example_project.settings",
        "DJANGO_READ_DOT_ENV": "0",
        "DATA_DIR": str(directory),
        "DATABASE_URL": f"sqlite:///{directory / 'db.sqlite3'}",
        "SECRET_KEY": "only-for-tests-" + "0" * 50,
        "PYTHONUNBUFFERED": "1",
    }
    name = None
    if server.startswith("postgres"):
        name = f"process_test_{uuid.uuid4().hex}"
        with psycopg.connect(server, autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")
        environment["DATABASE_URL"] = urlunsplit(urlsplit(server)._replace(path=f"/{name}"))
    made = Project(directory, environment)
    try:
        made.manage("migrate", "-v0", "--skip-checks")
        yield made
    finally:
        if name:
            with psycopg.connect(server, autocommit=True) as connection:
                connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


def wait_until(what: str, happened: Callable[[], Any], seconds: float = 60) -> None:
    """Ask until it is so; the deadline only turns a hang into a failure."""
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline, f"{what}: did not happen"
        time.sleep(0.05)


def end(process: subprocess.Popen[bytes], number: signal.Signals = signal.SIGTERM) -> None:
    """End the process and its group."""
    if process.poll() is None:
        os.killpg(process.pid, number)
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(15)
    for stream in (process.stdin, process.stdout, process.stderr):
        if stream is not None:
            stream.close()
