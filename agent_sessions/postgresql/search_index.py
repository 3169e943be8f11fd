"""The search index of messages on PostgreSQL. Migrations name this module.

One index of trigrams answers for whole words, beginnings and parts of words, in any script (see
search.SPACED_SQL). The user's key in front of it keeps one user's search from reading the matches
of others. It needs the extensions pg_trgm and btree_gin. A database owner may create them; where
the migration may not, search answers without the index (slower) and a check of the database tells
what is missing.

A change of the indexed expression takes a new name: nothing compares what is there with it.
"""

from __future__ import annotations

from typing import Any

from django.db import DatabaseError, transaction
from django.db.backends.base.base import BaseDatabaseWrapper

from agent_sessions.postgresql.indexes import find_index
from agent_sessions.search.lookups import SPACED_SQL

NAME = "agent_message_text"
DEFINITION = f"""gin ("user_id", ({SPACED_SQL.format(column='"content"')}) gin_trgm_ops)"""
_FIRST = "agent_message_search"
EXTENSIONS = ("pg_trgm", "btree_gin")
EXTENSIONS_SQL = " ".join(f"CREATE EXTENSION IF NOT EXISTS {name};" for name in EXTENSIONS)


def create(connection: BaseDatabaseWrapper, concurrently: bool = False) -> None:
    """Create the extensions and the index where they are missing.

    ``concurrently`` does not block writers while a filled table is indexed; it cannot run
    inside a transaction. The partitions of a partitioned table are then indexed one by one.
    Raises DatabaseError if the database does not allow it.
    """
    with connection.cursor() as cursor:
        cursor.execute(EXTENSIONS_SQL)
        if not is_missing(connection):
            return
        partitions = _partitions(cursor) if concurrently else []
        for number, partition in partitions:
            _create(cursor, f"{NAME}_{number}", partition, concurrently=True)
        # On a table with partitions this takes up their indexes and builds nothing.
        _create(cursor, NAME, _table(), concurrently and not partitions)


def is_missing(connection: BaseDatabaseWrapper) -> bool:
    """Tell whether the index is not there, or not valid."""
    with connection.cursor() as cursor:
        index = find_index(cursor, _table(), NAME)
    return index is None or not index.is_valid


def create_if_possible(apps: Any, schema_editor: Any) -> None:
    """Create the index in a migration; go on without it where that is not allowed."""
    connection = schema_editor.connection
    if connection.vendor != "postgresql":
        return
    try:
        if connection.in_atomic_block:
            with transaction.atomic(using=connection.alias):
                create(connection)
        else:
            create(connection, concurrently=True)
    except DatabaseError:
        # The database check names what is missing and how to add it.
        return


def replace(apps: Any, schema_editor: Any) -> None:
    """In a migration that is not atomic: create the index and drop the one of the first version."""
    create_if_possible(apps, schema_editor)
    connection = schema_editor.connection
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            if found := find_index(cursor, _table(), _FIRST):
                # An index of all partitions cannot be dropped without a lock.
                how = "" if _partitions(cursor) else "CONCURRENTLY"
                cursor.execute(f"DROP INDEX {how} {found.name}")


def drop(apps: Any, schema_editor: Any) -> None:
    """Drop the index as the migration is unapplied; the extensions may have other users."""
    if schema_editor.connection.vendor == "postgresql":
        with schema_editor.connection.cursor() as cursor:
            if found := find_index(cursor, _table(), NAME):
                cursor.execute(f"DROP INDEX {found.name}")


def _table() -> str:
    from agent_sessions.models import Message

    return f'"{Message._meta.db_table}"'


def _create(cursor: Any, name: str, table: str, concurrently: bool) -> None:
    how = "CONCURRENTLY" if concurrently else ""
    found = find_index(cursor, table, name)
    if found and not found.is_valid:
        # What an interrupted build leaves behind would count as present.
        cursor.execute(f"DROP INDEX {how} {found.name}")
    cursor.execute(f"CREATE INDEX {how} IF NOT EXISTS {name} ON {table} USING {DEFINITION}")


def _partitions(cursor: Any) -> list[tuple[int, str]]:
    cursor.execute(
        "SELECT relid::oid::bigint, relid::text FROM pg_partition_tree(%s) "
        "WHERE isleaf AND level > 0 ORDER BY relid::text",
        [_table()],
    )
    return [(int(number), str(name)) for number, name in cursor.fetchall()]
