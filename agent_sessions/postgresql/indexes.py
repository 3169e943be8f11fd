"""Finding the indexes of one table on PostgreSQL."""

from __future__ import annotations

from typing import Any, NamedTuple


class Index(NamedTuple):
    """An index that is there."""

    name: str
    """As a statement can name it: quoted and with its schema where that is needed."""
    is_valid: bool
    """False for what an interrupted build has left behind."""


def find_index(cursor: Any, table: str, name: str) -> Index | None:
    """Return the index of the table (a quoted name), if it has one of that name.

    Names of indexes are names in a schema. Where the search path has several schemas with these
    tables, a name alone may mean the index of another table.
    """
    cursor.execute(
        "SELECT indexrelid::regclass::text, indisvalid FROM pg_index "
        "JOIN pg_class ON pg_class.oid = indexrelid "
        "WHERE indrelid = to_regclass(%s) AND relname = %s",
        [table, name],
    )
    found = cursor.fetchone()
    return found and Index(*found)
