"""A pytest session that has collected its tests and runs some of them in a fork for each mutant.

Starting Python, setting Django up and collecting takes longer than most of the tests. So functions
get the code of the mutant in the fork. What an import runs cannot be changed like that.
"""

from __future__ import annotations

import contextlib
import faulthandler
import gc
import os
import pickle
import signal
import time
import types
import warnings
from collections import defaultdict
from collections.abc import Generator, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

import coverage
import pytest

PACKAGES = ("agent_sessions", "cache_layer")


class Record(NamedTuple):
    """Run the tests in some files, and tell what they cover."""

    files: list[str]


class Change(NamedTuple):
    """Run tests, with their usual seconds, on a module's changed code."""

    path: str
    old: str
    new: str
    tests: dict[str, float]


class Watch:
    """A plugin of pytest that notes failures and seconds, and ends the process if a test hangs."""

    def __init__(self, usual: dict[str, float] | None = None) -> None:
        self.seconds: dict[str, float] = {}
        self.failed: list[str] = []
        self._usual = usual
        self._null = os.open(os.devnull, os.O_WRONLY)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, object, object]:
        started = time.monotonic()
        if self._usual is not None:
            # Counts as a failure: processes that end in that way have exit code 1.
            limit = 15 + 5 * self._usual[item.nodeid]
            faulthandler.dump_traceback_later(limit, exit=True, file=self._null)
        try:
            return (yield)
        finally:
            faulthandler.cancel_dump_traceback_later()
            self.seconds[item.nodeid] = time.monotonic() - started

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self.failed.append(report.nodeid)


class Warm:
    """The plugin of pytest that does what the other end of a connection asks for."""

    def __init__(self, connection: Connection, folder: Path) -> None:
        self._connection = connection
        self._folder = folder
        self._coverage = _coverage(folder)
        self._coverage.start()

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        self._coverage.stop()
        imported = {
            path: set(lines) for path, lines in _lines(self._coverage, self._folder).items()
        }
        self._make_database(session)
        self._functions = self._all_functions()
        gc.collect()
        gc.freeze()
        self._connection.send(([item.nodeid for item in session.items], imported))
        with contextlib.suppress(EOFError):
            while True:
                self._connection.send(self._forked(session, self._connection.recv()))
        os._exit(0)

    def _forked(self, session: pytest.Session, job: Record | Change) -> Any:
        if isinstance(job, Change):
            unknown = set(job.tests) - {item.nodeid for item in session.items}
            assert not unknown, unknown
        result = self._folder / "result.pickle"
        result.unlink(missing_ok=True)
        child = os.fork()
        if child == 0:
            os.setsid()
            code = 1
            try:
                answer = (
                    self._record(session, job)
                    if isinstance(job, Record)
                    else (self._failed(session, job))
                )
                result.write_bytes(pickle.dumps(answer))
                code = 0
            finally:
                os._exit(code)
        os.waitpid(child, 0)
        # What tests started and a mutant left behind.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child, signal.SIGKILL)
        return pickle.loads(result.read_bytes()) if result.exists() else "(hangs)"

    def _record(self, session: pytest.Session, job: Record) -> Any:
        items = [item for item in session.items if item.nodeid.partition("::")[0] in job.files]
        watch = Watch()
        session.config.pluginmanager.register(watch)
        measured = _coverage(self._folder)
        measured.start()
        for item, following in _in_turn(session, items) if items else ():
            measured.switch_context(item.nodeid)
            session.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
        measured.stop()
        return watch.seconds, watch.failed, _lines(measured, self._folder)

    def _failed(self, session: pytest.Session, job: Change) -> str | None:
        """Return the first test that fails, if any does.

        Raises:
            ValueError: A function's code does not fit its closure any more.
        """
        codes = _new_codes(job.old, job.new, str(self._folder / job.path))
        for function in self._functions[str(self._folder / job.path)]:
            code = function.__code__
            if (new := codes.get((code.co_qualname, code.co_firstlineno))) is not None:
                try:
                    function.__code__ = new
                except ValueError:
                    return "(another closure)"
        by_name = {item.nodeid: item for item in session.items}
        watch = Watch(job.tests)
        session.config.pluginmanager.register(watch)
        for item, following in _in_turn(session, [by_name[name] for name in job.tests]):
            session.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
            if watch.failed:
                return watch.failed[0]
        return None

    def _make_database(self, session: pytest.Session) -> None:
        """Run one test that wants the database, so that the forks find it made."""
        from django.db import connections

        item = next(each for each in session.items if each.get_closest_marker("django_db"))
        for each, following in _in_turn(session, [item]):
            session.config.hook.pytest_runtest_protocol(item=each, nextitem=following)
        connections.close_all()

    def _all_functions(self) -> dict[str, list[types.FunctionType]]:
        found = defaultdict(list)
        for each in gc.get_objects():
            # Asking a lazy object for its class would make it.
            if type(each) is types.FunctionType:
                found[each.__code__.co_filename].append(each)
        return found


def _in_turn(
    session: pytest.Session, items: list[pytest.Item]
) -> Iterator[tuple[pytest.Item, pytest.Item]]:
    """Yield each with the next. The last has one, too, so that the session's fixtures stay."""
    session._setupstate.teardown_exact(items[0])
    last = next(each for each in session.items if each is not items[-1])
    yield from zip(items, [*items[1:], last], strict=True)


def _coverage(folder: Path) -> coverage.Coverage:
    return coverage.Coverage(
        data_file=None, config_file=False, source=[str(folder / each) for each in PACKAGES]
    )


def _lines(measured: coverage.Coverage, folder: Path) -> dict[str, dict[int, list[str]]]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        data = measured.get_data()
    names: dict[str, str] = {}
    return {
        str(Path(path).relative_to(folder)): {
            line: [names.setdefault(name, name) for name in contexts if name]
            for line, contexts in data.contexts_by_lineno(path).items()
        }
        for path in data.measured_files()
    }


def _new_codes(old: str, new: str, path: str) -> dict[tuple[str, int], types.CodeType]:
    """Return the new code of each function, by its old name and first line."""
    numbered: dict[tuple[str, int], types.CodeType] = {}
    for code, number in _codes(compile(new, path, "exec", dont_inherit=True)):
        numbered[code.co_qualname, number] = code
    return {
        (code.co_qualname, code.co_firstlineno): numbered[code.co_qualname, number]
        for code, number in _codes(compile(old, path, "exec", dont_inherit=True))
        if (code.co_qualname, number) in numbered
    }


def _codes(module: types.CodeType) -> Iterator[tuple[types.CodeType, int]]:
    """Yield all code in a module, each with its number among those of the same name."""
    seen: dict[str, int] = defaultdict(int)
    waiting = [module]
    while waiting:
        code = waiting.pop(0)
        yield code, seen[code.co_qualname]
        seen[code.co_qualname] += 1
        waiting += [each for each in code.co_consts if isinstance(each, types.CodeType)]
