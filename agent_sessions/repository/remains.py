"""Searches every table of a database for data that an erasure should have removed."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from django.apps import apps
from django.contrib.auth import get_user_model
from django.db import connections, transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.utils import CursorWrapper

from agent_sessions.ids import UserKey
from agent_sessions.message_format import is_storable


class Remain(NamedTuple):
    """A column that still has data of the user."""

    table: str
    column: str
    #: ``user`` for the user's key in a column that refers to users, ``text`` for a text.
    what: str
    rows: int


class _Column(NamedTuple):
    name: str
    is_user: bool


def find_remains(user_id: UserKey, texts: Iterable[str], using: str) -> list[Remain]:
    """Return the columns that still have the user's key, or one of the texts.

    Every table is read from beginning to end: those of all apps and, on PostgreSQL, those of
    every schema. The key is looked for in columns that refer to users, by a model, a foreign key
    or the name ``user_id``; the texts in all columns, as they are and as JSON writes them.
    """
    connection = connections[using]
    forms = dict.fromkeys(
        form
        for text in texts
        if text and is_storable(text)
        for form in (text, json.dumps(text)[1:-1])
    )
    users = get_user_model()._meta
    key = users.pk.get_db_prep_value(users.pk.to_python(user_id), connection)
    list_tables = _of_catalogue if connection.vendor == "postgresql" else _of_introspection
    found: list[Remain] = []
    with transaction.atomic(using=using), connection.cursor() as cursor:
        for table, columns in list_tables(connection, cursor):
            found += _look(table, columns, key, [*forms], connection, cursor)
    return found


def _look(
    table: str,
    columns: Sequence[_Column],
    key: Any,
    forms: Sequence[str],
    connection: BaseDatabaseWrapper,
    cursor: CursorWrapper,
) -> Iterator[Remain]:
    """Search a table once."""
    looked_for: list[tuple[str, str]] = []
    counts: list[str] = []
    params: list[Any] = []
    place = "strpos({}::text, %s) > 0"
    if connection.vendor != "postgresql":
        place = "INSTR(CAST({} AS TEXT), %s) > 0"
    for column in columns:
        name = connection.ops.quote_name(column.name).replace("%", "%%")
        if column.is_user:
            looked_for.append((column.name, "user"))
            counts.append(f"SUM(CASE WHEN {name} = %s THEN 1 ELSE 0 END)")
            params.append(key)
        if forms:
            looked_for.append((column.name, "text"))
            condition = " OR ".join([place.format(name)] * len(forms))
            counts.append(f"SUM(CASE WHEN {condition} THEN 1 ELSE 0 END)")
            params += forms
    if not counts:
        return
    source = table.replace("%", "%%")
    cursor.execute(f"SELECT {', '.join(counts)} FROM {source}", params)  # noqa: S608
    for (column_name, what), rows in zip(looked_for, cursor.fetchone(), strict=True):
        if rows:
            yield Remain(table.replace('"', ""), column_name, what, int(rows))


def _user_columns() -> set[tuple[str, str]]:
    """Return the table and the column of each field that refers to users."""
    user_model = get_user_model()
    return {
        (model._meta.db_table, str(field.column))
        for model in apps.get_models(include_auto_created=True)
        for field in model._meta.local_concrete_fields
        if field.remote_field is not None and field.related_model is user_model
    }


def _of_catalogue(
    connection: BaseDatabaseWrapper, cursor: CursorWrapper
) -> Iterator[tuple[str, list[_Column]]]:
    cursor.execute(_CATALOGUE, [get_user_model()._meta.db_table])
    known = _user_columns()
    tables: dict[str, list[_Column]] = {}
    for schema_and_table, table, column, refers in cursor.fetchall():
        is_user = refers or (table, column) in known
        tables.setdefault(schema_and_table, []).append(_Column(column, is_user))
    yield from tables.items()


# A user_id of another type than that of users is somebody else's.
_CATALOGUE = """
SELECT format('%%I.%%I', nspname, relname), relname, attname,
    EXISTS (
        SELECT FROM pg_constraint
        WHERE conrelid = pg_class.oid AND contype = 'f' AND confrelid = users.id
            AND conkey = ARRAY[attnum]
    ) OR (
        attname = 'user_id' AND atttypid = (
            SELECT atttypid FROM pg_attribute JOIN pg_index ON attrelid = indrelid
            WHERE attrelid = users.id AND indisprimary AND attnum = indkey[0]
        )
    )
FROM pg_class
    JOIN pg_namespace ON pg_namespace.oid = relnamespace
    JOIN pg_attribute ON attrelid = pg_class.oid
    CROSS JOIN (SELECT to_regclass(quote_ident(%s)) AS id) users
WHERE relkind IN ('r', 'p', 'm') AND NOT relispartition AND attnum > 0 AND NOT attisdropped
    AND nspname <> 'information_schema' AND nspname NOT LIKE 'pg\\_%%'
    AND has_table_privilege(pg_class.oid, 'SELECT')
    AND has_schema_privilege(pg_namespace.oid, 'USAGE') AND relispopulated
ORDER BY 1, attnum
"""


def _of_introspection(
    connection: BaseDatabaseWrapper, cursor: CursorWrapper
) -> Iterator[tuple[str, list[_Column]]]:
    users = get_user_model()._meta.db_table
    known = _user_columns()
    introspection = connection.introspection
    for table in introspection.table_names(cursor):
        relations = introspection.get_relations(cursor, table)
        names = [column.name for column in introspection.get_table_description(cursor, table)]
        yield (
            connection.ops.quote_name(table),
            [
                _Column(
                    name,
                    relations.get(name, ("", ""))[1] == users
                    or (table, name) in known
                    or name == "user_id",
                )
                for name in names
            ],
        )
