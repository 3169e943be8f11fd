"""A worker: a copy of the tree in which the tests of one mutant after the other are run.

Starting Python with everything that the tests import takes longer than most of the tests. So a
worker imports what is not ours once, and forks: a session that has collected all tests (`warm`),
and a new session for each mutant of what imports run.
"""

from __future__ import annotations

import compileall
import contextlib
import importlib
import multiprocessing
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit, urlunsplit

import pytest

from tests.mutants.plan import ROOT, Suite
from tests.mutants.warm import Change, Record, Warm, Watch

OURS = ("agent_sessions", "cache_layer", "example_project", "tests")


class Job(NamedTuple):
    """A mutant and the tests to run, with their usual seconds."""

    name: str
    change: Change
    #: Imports run what is changed, so that a session begins anew.
    imported: bool
    #: Migrations use it, so that the database is made anew.
    migrated: bool


class Worker:
    """One copy of the tree with databases and a Redis of its own, in a process of its own."""

    def __init__(self, number: int, suite: Suite) -> None:
        from tests.services import RedisServer

        self._suite = suite
        self._folder = copy_of_tree()
        self._redis = RedisServer()
        self._redis.start()
        base = urlsplit(os.environ["DATABASE_URL"])
        self._base = os.environ["DATABASE_URL"]
        self._name = f"{base.path[1:]}_mutants{number}"
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
        self._preload()
        self._connection, far = multiprocessing.Pipe()
        self._warm = self._fork(lambda: self._serve(far))
        far.close()
        #: The names of all tests, and the lines that importing them runs.
        self.collected: tuple[list[str], dict[str, set[int]]] = self._connection.recv()
        self._sql(f"DROP DATABASE IF EXISTS test_{self._name}_made WITH (FORCE)")
        self._sql(f"CREATE DATABASE test_{self._name}_made TEMPLATE test_{self._name}")

    def record(self, job: Record) -> Any:
        """Return seconds, failures and lines of a part of the tests."""
        self._connection.send(job)
        found = self._connection.recv()
        self._restore_database()
        return found

    def noticed(self, job: Job) -> str | None:
        """Return the test that fails with the mutant in place, if one does."""
        if not job.change.tests:
            return None
        module = self._folder / job.change.path
        compiled = list(module.parent.glob(f"__pycache__/{module.stem}.*"))
        for each in compiled:
            each.unlink()
        # Processes that tests start read it.
        module.write_text(job.change.new, encoding="utf-8")
        failed: str | None = "(another closure)"
        try:
            if not (job.imported or job.migrated):
                self._connection.send(job.change)
                failed = self._connection.recv()
            if failed == "(another closure)":
                failed = self._anew(job)
        finally:
            module.write_text(job.change.old, encoding="utf-8")
        if failed:
            self._restore_database()
        return failed

    def close(self) -> None:
        """Give the copy, Redis and the databases back."""
        self._connection.close()
        os.waitpid(self._warm, 0)
        self._redis.close()
        for ending in ("", "_made", "_migrated"):
            self._sql(f"DROP DATABASE IF EXISTS test_{self._name}{ending} WITH (FORCE)")
        shutil.rmtree(self._folder, ignore_errors=True)

    def _preload(self) -> None:
        """Import what the tests import, but for our own packages."""
        listed = self._folder / "modules"

        def collect() -> int:
            self._pytest("", ["--collect-only", *self._suite.tests])
            listed.write_text("\n".join(sys.modules))
            return 0

        os.waitpid(self._fork(collect), 0)
        # What wants settings, or is made up, is left to the children, with all that belongs to it.
        refused = set(OURS)
        for name in listed.read_text().split():
            packages = name.split(".")
            if not any(".".join(packages[:depth]) in refused for depth in range(1, 9)):
                try:
                    importlib.import_module(name)
                except BaseException:  # noqa: BLE001
                    refused.add(name)
        assert not [each for each in sys.modules if each.startswith(("agent_sessions", "cache_"))]

    def _serve(self, connection: Any) -> int:
        self._connection.close()
        return self._pytest("", ["--create-db", *self._suite.tests], Warm(connection, self._folder))

    def _anew(self, job: Job) -> str | None:
        """Return the test that fails in a new session."""
        watch = Watch(job.change.tests)
        files = list(dict.fromkeys(name.partition("::")[0] for name in job.change.tests))
        failed = self._folder / "failed"
        failed.unlink(missing_ok=True)

        def run() -> int:
            option = "--create-db" if job.migrated else "--reuse-db"
            code = self._pytest(
                "_migrated" if job.migrated else "",
                [option, "--maxfail=1", *files],
                watch,
                Chosen(job.change.tests),
            )
            failed.write_text("".join(watch.failed[:1]))
            return code

        child = self._fork(run)
        _, status = os.waitpid(child, 0)
        # What tests started and a mutant left behind.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child, signal.SIGKILL)
        code = os.waitstatus_to_exitcode(status)
        assert code != pytest.ExitCode.NO_TESTS_COLLECTED, job.name
        if code == 0:
            return None
        if not failed.exists():
            return "(hangs)"
        return failed.read_text() or "(cannot be imported)"

    def _restore_database(self) -> None:
        """Take away what a mutant left in the database."""
        self._sql(f"DROP DATABASE IF EXISTS test_{self._name} WITH (FORCE)")
        self._sql(f"CREATE DATABASE test_{self._name} TEMPLATE test_{self._name}_made")

    def _sql(self, statement: str) -> None:
        if self._suite.on_sqlite:
            return
        import psycopg

        with psycopg.connect(self._base, autocommit=True) as connection:
            connection.execute(statement.encode())

    def _pytest(self, database: str, arguments: list[str], *plugins: Any) -> int:
        os.environ["DJANGO_SETTINGS_MODULE"] = "tests.settings"
        base = urlsplit(self._base)
        os.environ["DATABASE_URL"] = urlunsplit(base._replace(path=f"/{self._name}{database}"))
        if self._suite.on_sqlite:
            # Its file goes with the copy, and tests of PostgreSQL skip.
            del os.environ["DATABASE_URL"]
            os.environ.pop("REQUIRE_SERVICES", None)
            tempfile.tempdir = str(self._folder)
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

    @staticmethod
    def _fork(run: Callable[[], int]) -> int:
        child = os.fork()
        if child == 0:
            os.setsid()
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            code = 1
            try:
                code = run()
            finally:
                os._exit(code)
        return child


class Chosen:
    """A plugin of pytest that runs some of the tests, in their order."""

    def __init__(self, tests: dict[str, float]) -> None:
        self._place = {name: place for place, name in enumerate(tests)}

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        chosen = [item for item in items if item.nodeid in self._place]
        items[:] = sorted(chosen, key=lambda item: self._place[item.nodeid])


def copy_of_tree() -> Path:
    """Return a directory with what the tests need, compiled."""
    folder = Path(tempfile.mkdtemp(prefix="mutants-")).resolve()
    for name in (*OURS, "docs", ".ci"):
        ignored = shutil.ignore_patterns("__pycache__", "node_modules")
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, ignore=ignored)
    for path in ROOT.glob("*.*"):
        if path.is_file():
            shutil.copy2(path, folder)
    compileall.compile_dir(folder, quiet=2)
    return folder


def work(number: int, suite: Suite, jobs: Any, results: Any) -> None:
    """Do jobs until the process is ended; put what came of each, and its seconds."""
    # Ended early, it still gives back what it has.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    worker = Worker(number, suite)
    try:
        results.put(("collected", worker.collected, 0.0))
        while True:
            job = jobs.get()
            started = time.monotonic()
            if isinstance(job, Record):
                results.put(("recorded", worker.record(job), time.monotonic() - started))
            else:
                results.put((job.name, worker.noticed(job), time.monotonic() - started))
    finally:
        worker.close()
