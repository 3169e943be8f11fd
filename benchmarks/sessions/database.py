"""A scratch database on the server that DATABASE_URL names, and Django on it."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
import warnings
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import psycopg

Dsn = dict[str, Any]


def configure(name: str) -> Dsn:
    """Set Django up on the database *name*; return how to connect to it."""
    os.environ["BENCH_DATABASE"] = name
    os.environ["DJANGO_SETTINGS_MODULE"] = "benchmarks.settings"
    import django
    from django.apps import apps

    if not apps.ready:
        warnings.simplefilter("ignore")
        django.setup()
        # What contestants have to say is not part of the tables.
        logging.disable(logging.CRITICAL)
    from django.db import connection

    return {**dsn_of(connection.settings_dict), "dbname": name}


def dsn_of(settings: dict[str, Any]) -> Dsn:
    """Return what psycopg connects with to a database of Django's settings."""
    return {
        "host": settings["HOST"],
        "port": settings["PORT"] or 5432,
        "user": settings["USER"],
        "password": settings["PASSWORD"] or None,
        "dbname": settings["NAME"],
    }


def url(dsn: Dsn, scheme: str) -> str:
    """The same database as a URL, as SQLAlchemy has them."""
    password = f":{quote(dsn['password'])}" if dsn["password"] else ""
    return f"{scheme}://{quote(dsn['user'])}{password}@{dsn['host']}:{dsn['port']}/{dsn['dbname']}"


@contextlib.contextmanager
def scratch() -> Iterator[Dsn]:
    """A migrated database of this run's own, dropped at the end."""
    # An end by a signal is an end in order: the database goes.
    signal.signal(signal.SIGTERM, lambda *args: sys.exit(1))
    name = f"bench_{os.getpid()}"
    dsn = configure(name)
    server = {**dsn, "dbname": "postgres"}
    with psycopg.connect(**server, autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {name}")
    try:
        from django.core.management import call_command
        from django.db import connections

        call_command("migrate", verbosity=0)
        # The plain pair has no migrations; its tables need those of the users first.
        call_command("migrate", verbosity=0, run_syncdb=True)
        yield dsn
        connections.close_all()
    finally:
        with psycopg.connect(**server, autocommit=True) as admin:
            admin.execute(f"DROP DATABASE {name} WITH (FORCE)")
