"""Runs the tests of one mutant after the other, in a copy of the tree.

Starting Python with everything that the tests import takes longer than most of the tests. So a
worker imports what is not ours once, and forks a child for each mutant.
"""

from __future__ import annotations

import compileall
import contextlib
import importlib
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit, urlunsplit

from tests.mutants.plan import ROOT

OURS = ("agent_sessions", "cache_layer", "example_project", "tests")
LONGEST_UNCHANGED = 900.0
"""Seconds that the tests of a group may take as the code is."""


class Unchanged(NamedTuple):
    """The tests of a group, to be run as the code is."""

    name: str
    tests: list[str]
    migrated: bool


class Job(NamedTuple):
    """A mutant and the tests to run; after ``longest`` seconds it hangs, and counts as noticed."""

    name: str
    path: Path
    code: str
    tests: list[str]
    migrated: bool
    longest: float


class Failures:
    """A plugin of pytest that writes the names of tests that fail."""

    def __init__(self, write: int) -> None:
        self._write = write

    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.failed:
            os.write(self._write, f"{report.nodeid}\n".encode())


def copy_of_tree() -> Path:
    """Return a directory with what the tests need, compiled."""
    folder = Path(tempfile.mkdtemp(prefix="mutants-"))
    for name in (*OURS, "docs", ".ci"):
        ignored = shutil.ignore_patterns("__pycache__", "node_modules")
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, ignore=ignored)
    for path in ROOT.glob("*.*"):
        if path.is_file():
            shutil.copy2(path, folder)
    compileall.compile_dir(folder, quiet=2)
    return folder


class Worker:
    """One copy of the tree with a database and a Redis of its own, in a process of its own."""

    def __init__(self, number: int) -> None:
        from tests.services import RedisServer

        self._folder = copy_of_tree()
        self._redis = RedisServer()
        self._redis.start()
        base = urlsplit(os.environ["DATABASE_URL"])
        self._database = urlunsplit(base._replace(path=f"{base.path}_mutants{number}"))
        os.environ["REDIS_URL"] = self._redis.url
        os.environ["PYTHONPATH"] = str(self._folder)
        os.environ.pop("CELERY_BROKER_URL", None)
        os.chdir(self._folder)
        for name in [name for name in sys.modules if name.partition(".")[0] in OURS]:
            if not name.startswith("tests.mutants") and name != "tests":
                del sys.modules[name]
        sys.path.insert(0, str(self._folder))
        sys.modules["tests"].__path__ = [str(self._folder / "tests")]
        sys.dont_write_bytecode = True

    def preload(self, tests: list[str]) -> None:
        """Import what the tests import, but for our own packages."""
        read, write = os.pipe()
        child = os.fork()
        if child == 0:
            self._pytest(["--collect-only", *tests])
            with os.fdopen(write, "w") as stream:
                stream.write("\n".join(sys.modules))
            os._exit(0)
        os.close(write)
        with os.fdopen(read) as stream:
            names = stream.read().split()
        os.waitpid(child, 0)
        # What wants settings, or is made up, is left to the children, with all that belongs to it.
        refused = set(OURS)
        for name in names:
            packages = name.split(".")
            if not any(".".join(packages[:depth]) in refused for depth in range(1, 9)):
                try:
                    importlib.import_module(name)
                except BaseException:  # noqa: BLE001
                    refused.add(name)
        assert not [each for each in sys.modules if each.startswith(("agent_sessions", "cache_"))]

    def failures(self, tests: list[str], migrated: bool) -> list[str]:
        """Return the names of the tests that fail as the code is."""
        self._choose_database(migrated)
        read, write = os.pipe()
        arguments = ["--create-db", "--maxfail=20", *tests]
        self._fails(arguments, LONGEST_UNCHANGED, Failures(write))
        os.close(write)
        with os.fdopen(read) as stream:
            return stream.read().splitlines()

    def notices(self, job: Job, tests: list[str], longest: float) -> bool:
        """Return whether the tests fail with the mutant in place."""
        self._choose_database(job.migrated)
        module = self._folder / job.path
        kept = module.read_bytes()
        for compiled in module.parent.glob(f"__pycache__/{module.stem}.*"):
            compiled.unlink()
        module.write_text(job.code, encoding="utf-8")
        try:
            option = "--create-db" if job.migrated else "--reuse-db"
            return self._fails([option, "--maxfail=1", *tests], longest)
        finally:
            module.write_bytes(kept)

    def _choose_database(self, migrated: bool) -> None:
        os.environ["DATABASE_URL"] = self._database + ("_migrated" if migrated else "")

    def close(self) -> None:
        """Give the copy and Redis back."""
        self._redis.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _fails(self, arguments: list[str], longest: float, *plugins: Any) -> bool:
        child = os.fork()
        if child == 0:
            os.setsid()
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            os._exit(self._pytest(arguments, *plugins))
        deadline = time.monotonic() + longest
        done, status = 0, 1
        try:
            while not done and time.monotonic() < deadline:
                time.sleep(0.02)
                done, status = os.waitpid(child, os.WNOHANG)
        finally:
            if not done:
                os.killpg(child, signal.SIGKILL)
                os.waitpid(child, 0)
        if not done:
            return True
        # What tests started and a mutant left behind.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child, signal.SIGKILL)
        return os.waitstatus_to_exitcode(status) != 0

    @staticmethod
    def _pytest(arguments: list[str], *plugins: Any) -> int:
        import pytest

        os.environ["DJANGO_SETTINGS_MODULE"] = "tests.settings"
        random.seed(0)
        silent = os.open(
            os.environ.get("MUTANTS_LOG", os.devnull), os.O_RDWR | os.O_CREAT | os.O_APPEND
        )
        os.dup2(silent, 1)
        os.dup2(silent, 2)
        # Plugins are imported before pytest can rewrite them.
        rewritten = ("-W", "ignore::pytest.PytestAssertRewriteWarning")
        usual = ["-q", "-m", "not slow", "-p", "no:cacheprovider", *rewritten]
        return int(pytest.main([*usual, *arguments], plugins=list(plugins)))


def work(number: int, jobs: Any, results: Any, tests: list[str]) -> None:
    """Do jobs until there are none; put what came of each, and how many seconds it took."""
    # Ended early, it still gives back what it has.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    worker = Worker(number)
    try:
        worker.preload(tests)
        while (job := jobs.get()) is not None:
            started = time.monotonic()
            found: Any
            if isinstance(job, Unchanged):
                found = worker.failures(job.tests, job.migrated)
            else:
                found = worker.notices(job, job.tests, job.longest)
            results.put((job.name, found, time.monotonic() - started))
    finally:
        worker.close()
