"""The search index of messages on PostgreSQL. The first migration names this module.

A trigram index finds words and parts of words in any script; the user's key in front of it
keeps one user's search from reading the matches of others. It needs the extensions pg_trgm
and btree_gin. A database owner may create them; where the migration may not, search answers
without the index (slower) and a check of the database tells what is missing.
"""

from __future__ import annotations

from typing import Any

from django.db import DatabaseError, transaction
from django.db.backends.base.base import BaseDatabaseWrapper

NAME = "agent_message_search"
EXTENSIONS = ("pg_trgm", "btree_gin")
EXTENSIONS_SQL = " ".join(f"CREATE EXTENSION IF NOT EXISTS {name};" for name in EXTENSIONS)

_CREATE = (
    "CREATE INDEX {concurrently} IF NOT EXISTS {name} ON {table} "
    'USING gin ("user_id", UPPER("content"::text) gin_trgm_ops)'
)


def create(connection: BaseDatabaseWrapper, concurrently: bool = False) -> None:
    """Create the extensions and the index where they are missing.

    ``concurrently`` does not block writers while a filled table is indexed; it cannot run
    inside a transaction. Raises DatabaseError if the database does not allow it.
    """
    from agent_sessions.models import Message

    with connection.cursor() as cursor:
        cursor.execute(EXTENSIONS_SQL)
        if concurrently:
            # What an interrupted build leaves behind is invalid and would count as present.
            cursor.execute(
                "SELECT 1 FROM pg_index WHERE indexrelid = to_regclass(%s) AND NOT indisvalid",
                [NAME],
            )
            if cursor.fetchone():
                cursor.execute(f"DROP INDEX CONCURRENTLY {NAME}")
        cursor.execute(
            _CREATE.format(
                concurrently="CONCURRENTLY" if concurrently else "",
                name=NAME,
                table=connection.ops.quote_name(Message._meta.db_table),
            )
        )


def exists(connection: BaseDatabaseWrapper) -> bool:
    """Tell whether the index is there and valid."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT 1 FROM pg_index WHERE indexrelid = to_regclass(%s) AND indisvalid", [NAME]
        )
        return cursor.fetchone() is not None


def create_if_possible(apps: Any, schema_editor: Any) -> None:
    """Create the index in a migration; go on without it where that is not allowed."""
    connection = schema_editor.connection
    if connection.vendor != "postgresql":
        return
    try:
        with transaction.atomic(using=connection.alias):
            create(connection)
    except DatabaseError:
        # The database check names what is missing and how to add it.
        return


def drop(apps: Any, schema_editor: Any) -> None:
    """Drop the index as the migration is unapplied; the extensions may have other users."""
    if schema_editor.connection.vendor == "postgresql":
        schema_editor.execute(f"DROP INDEX IF EXISTS {NAME}")
