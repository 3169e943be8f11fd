"""Each host project runs the whole tour, in a process of its own on databases of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import psycopg
import pytest
from psycopg import sql

from tests import services
from tests.processes import ROOT

pytestmark = pytest.mark.slow

#: What a step prints is in the log of a failure; a host that hangs is ended.
SECONDS = 240


@pytest.fixture
def server() -> str:
    url = os.environ.get("DATABASE_URL", "")
    if not url.startswith("postgres"):
        services.missing("PostgreSQL", "set DATABASE_URL=postgres://user@host:5432/name")
    return url


@contextmanager
def database(server: str, *options: str) -> Iterator[str]:
    """A new database, with settings of its own; its URL."""
    name = f"host_test_{uuid.uuid4().hex}"
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        for option in options:
            connection.execute(f"ALTER DATABASE {name} SET {option}".encode())
    try:
        yield urlunsplit(urlsplit(server)._replace(path=f"/{name}"))
    finally:
        with psycopg.connect(server, autocommit=True) as connection:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


def run(host: str, url: str, **environment: str) -> None:
    """Run the tour of a host; fail with what it printed."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if name not in {"REDIS_URL", "CELERY_BROKER_URL", "TEST_USER_MODEL", "PYTHONWARNINGS"}
    }
    done = subprocess.run(
        [sys.executable, "-m", "tests.projects.tour"],
        cwd=ROOT,
        env={
            **kept,
            "DJANGO_SETTINGS_MODULE": f"tests.projects.{host}.settings",
            "DATABASE_URL": url,
            **environment,
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        timeout=SECONDS,
    )
    assert done.returncode == 0, done.stdout[-6000:]


HOSTS = (
    *("atomic_requests", "strict_policy", "captured_mount", "own_router", "custom_admin"),
    *("manual_commit", "uuid_subclass", "gzip_cache"),
)


@pytest.mark.parametrize("host", HOSTS)
def test_the_apps_are_at_home_in(host: str, server: str) -> None:
    with database(server) as url:
        run(host, url)


def test_the_apps_are_at_home_with_local_times(server: str) -> None:
    with database(server) as url:
        run("naive_times", url)


def test_the_apps_are_at_home_with_local_times_in_sqlite(tmp_path: Path) -> None:
    run("naive_times", f"sqlite:///{tmp_path / 'local.sqlite3'}")


@pytest.mark.parametrize(("host", "package"), [("unfold_admin", "unfold"), ("third_party", "axes")])
def test_the_apps_are_at_home_beside_other_apps(
    host: str, package: str, server: str, redis_url: str
) -> None:
    pytest.importorskip(package)
    with database(server) as url:
        run(host, url, REDIS_URL=redis_url)


@pytest.mark.parametrize("level", ["repeatable read", "serializable"])
def test_the_apps_are_at_home_on_a_server_that_isolates_more(level: str, server: str) -> None:
    with database(server, f"default_transaction_isolation TO '{level}'") as url:
        run(level.replace(" ", "_"), url)


def test_the_apps_are_at_home_where_reads_go_to_a_replica_that_lags(server: str) -> None:
    with database(server) as primary, database(server) as replica:
        run("replica", primary, REPLICA_DATABASE_URL=replica)


@pytest.mark.parametrize("public_first", ["1", "0"], ids=["public first", "tenant first"])
def test_the_apps_are_at_home_in_schemas_of_tenants(
    public_first: str, server: str, redis_url: str
) -> None:
    pytest.importorskip("django_tenants")
    with database(server) as url:
        run("tenants", url, PUBLIC_FIRST=public_first, REDIS_URL=redis_url)


def test_the_apps_are_at_home_with_a_role_that_creates_nothing(server: str) -> None:
    role, password = f"host_role_{uuid.uuid4().hex}", uuid.uuid4().hex
    with database(server) as url:
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(f"CREATE ROLE {role} LOGIN PASSWORD '{password}'".encode())
            connection.execute(b"REVOKE CREATE ON SCHEMA public FROM PUBLIC")
            rights = "SELECT, INSERT, UPDATE, DELETE"
            for target, granted in (("TABLES", rights), ("SEQUENCES", "USAGE, SELECT")):
                connection.execute(
                    f"ALTER DEFAULT PRIVILEGES GRANT {granted} ON {target} TO {role}".encode()
                )
        try:
            parts = urlsplit(url)
            place = f"{role}:{password}@{parts.hostname}:{parts.port or 5432}"
            limited = urlunsplit(parts._replace(netloc=place))
            run("limited_role", url, LIMITED_DATABASE_URL=limited)
        finally:
            with psycopg.connect(url, autocommit=True) as connection:
                connection.execute(f"DROP OWNED BY {role}".encode())
                connection.execute(f"DROP ROLE {role}".encode())


def test_the_apps_are_at_home_in_forked_workers_with_time_limits(
    server: str, redis_url: str
) -> None:
    with database(server) as url:
        broker = os.environ.get("CELERY_BROKER_URL") or redis_url
        queue = f"test_{uuid.uuid4().hex}"
        run("prefork", url, REDIS_URL=redis_url, CELERY_BROKER_URL=broker, CELERY_QUEUE=queue)
