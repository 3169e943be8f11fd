from __future__ import annotations

import inspect
import os
import shutil
from collections.abc import Iterator
from io import StringIO
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import pytest
from asgiref.sync import async_to_sync
from django.core.management import call_command
from django.db import connection

from agent_sessions.postgresql.partitioning import is_partitioned
from tests import services
from tests.faults.proxy import Proxy

MISSED: set[str] = set()


@pytest.fixture(scope="session")
def django_db_setup(django_db_setup: None, django_db_blocker: Any) -> None:
    """With TEST_PARTITIONED=1 the messages of the test database lie in partitions."""
    with django_db_blocker.unblock():
        partition()


@pytest.fixture
def migrated_again() -> Iterator[None]:
    """For tests that undo migrations: the tables are as before when the test is over."""
    yield
    call_command("migrate", "agent_sessions", verbosity=0)
    partition()


def partition() -> None:
    if os.environ.get("TEST_PARTITIONED") == "1" and not is_partitioned(connection):
        call_command("partition_messages", partitions=4, stdout=StringIO())


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run `async def` tests so that their ORM calls happen in the test's own thread.

    An event loop of a plugin would put them on another thread and another connection: SQLite
    locks, and rows written by the test outlive it.
    """
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    names = pyfuncitem._fixtureinfo.argnames
    async_to_sync(pyfuncitem.obj)(**{name: pyfuncitem.funcargs[name] for name in names})
    return True


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        # Browser tests and tests of whole processes write from other connections.
        if "redis_url" in getattr(item, "fixturenames", ()):
            item.add_marker("redis")


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("postgres") and connection.vendor != "postgresql":
        services.missing("PostgreSQL", "set DATABASE_URL=postgres://user@host:5432/name")


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    # With xdist the workers' skips arrive here, in the process that prints the summary.
    if report.skipped and isinstance(report.longrepr, tuple):
        reason = report.longrepr[2].removeprefix("Skipped: ")
        if reason.startswith("NO "):
            MISSED.add(reason.removeprefix("NO "))


def pytest_terminal_summary(terminalreporter: Any) -> None:
    if MISSED:
        terminalreporter.section("SERVICES MISSING: the tests that need them did not run", "!")
        for line in sorted(MISSED):
            terminalreporter.line(line)


@pytest.fixture
def redis_url(worker_id: str) -> Iterator[str]:
    """The URL of an empty database of the real Redis named by REDIS_URL.

    Databases 1 to 15 of that server belong to the suite, one a worker; they are flushed.
    """
    base = os.environ.get("REDIS_URL")
    if not base:
        services.missing("Redis", "set REDIS_URL=redis://127.0.0.1:6379/0")
    import redis

    number = 1 if worker_id == "master" else 1 + int(worker_id.removeprefix("gw")) % 15
    url = urlunsplit(urlsplit(base)._replace(path=f"/{number}"))
    with redis.Redis.from_url(url, socket_timeout=5) as client:
        try:
            client.flushdb()
        except redis.ConnectionError as error:
            services.missing("Redis", f"{base} does not answer ({error})")
        yield url
        client.flushdb()


@pytest.fixture
def redis_server() -> Iterator[services.RedisServer]:
    """A started redis-server process of the test's own."""
    if shutil.which("redis-server") is None:
        services.missing("redis-server", "install the program redis-server")
    server = services.RedisServer()
    server.start()
    yield server
    server.close()


@pytest.fixture
def proxy(redis_server: services.RedisServer) -> Iterator[Proxy]:
    """A proxy before the test's own redis-server."""
    proxy = Proxy(redis_server.port)
    proxy.start()
    yield proxy
    proxy.close()


@pytest.fixture
def default_timeouts(settings: Any) -> None:
    """The timeouts that users have; tests/settings.py is more patient with a busy machine."""
    from cache_layer.conf import Settings

    for name in ("OPERATION_TIMEOUT", "CONNECT_TIMEOUT"):
        setattr(settings, f"CACHE_LAYER_{name}", Settings.defaults[name])
