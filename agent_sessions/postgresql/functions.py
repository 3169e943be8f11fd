"""The PostgreSQL functions that a migrated database has."""

from __future__ import annotations

from django.apps import AppConfig
from django.db import connections, router
from django.db.backends.base.base import BaseDatabaseWrapper

from agent_sessions.postgresql import append_function, pop_function

_CREATE = {
    append_function.NAME: append_function.CREATE,
    pop_function.NAME: pop_function.CREATE,
}


def missing(connection: BaseDatabaseWrapper) -> list[str]:
    """Return the names of the functions that a migrated PostgreSQL database lacks."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT to_regclass('agent_sessions_message') IS NOT NULL")
        if not cursor.fetchone()[0]:
            return []
        cursor.execute(
            "SELECT proname FROM pg_proc WHERE proname = ANY(%s) AND pg_function_is_visible(oid)",
            [[*_CREATE]],
        )
        found = {name for (name,) in cursor.fetchall()}
    return [name for name in _CREATE if name not in found]


def create_missing(sender: AppConfig, using: str, **kwargs: object) -> None:
    """Create the functions after a migration, if the tables were created without migrations.

    Some test runners create them so, and so does a dump of the tables only.
    """
    connection = connections[using]
    if connection.vendor != "postgresql" or not router.allow_migrate_model(
        using, sender.get_model("message")
    ):
        return
    for name in missing(connection):
        with connection.cursor() as cursor:
            cursor.execute(_CREATE[name])
