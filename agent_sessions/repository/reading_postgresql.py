"""Reading messages on PostgreSQL. The ORM compiles such a query longer than it takes to answer."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from django.db.backends.base.base import BaseDatabaseWrapper

from agent_sessions.models import Message
from agent_sessions.repository.owners import column_value

_FIELDS: Any = Message._meta.concrete_fields
_NAMES = [field.attname for field in _FIELDS]
_METADATA = _NAMES.index("metadata")
_SEQUENCE: Any = Message._meta.get_field("sequence")
_MESSAGES = f"SELECT {', '.join(_NAMES)} FROM agent_sessions_message WHERE session_id = %s"  # noqa: S608
_OWNED = (
    " AND EXISTS (SELECT FROM agent_sessions_session AS session"
    " WHERE session.id = session_id AND session.user_id = %s)"
)


def window(
    session_id: UUID,
    after: int | None,
    before: int | None,
    limit: int | None,
    owner: Any,
    connection: BaseDatabaseWrapper,
) -> list[Message]:
    """Return the first messages behind a number, in order, or the last ones from the end."""
    statement = _MESSAGES
    values: list[Any] = [session_id]
    if owner is not None:
        user_id = column_value(owner, connection)
        if user_id is None:
            return []
        statement += _OWNED
        values.append(user_id)
    for number, condition in ((before, " AND sequence < %s"), (after, " AND sequence > %s")):
        if number is not None:
            statement += condition
            values.append(_SEQUENCE.get_prep_value(number))
    way = "DESC" if after is None else ""
    statement += f" ORDER BY session_id {way}, sequence {way}"
    if limit is not None:
        statement += " LIMIT %s"
        values.append(limit)
    with connection.cursor() as cursor:
        cursor.execute(statement, values)
        rows = cursor.fetchall()
    return [_message(list(row), connection) for row in rows]


def _message(row: list[Any], connection: BaseDatabaseWrapper) -> Message:
    row[_METADATA] = _FIELDS[_METADATA].from_db_value(row[_METADATA], None, connection)
    return Message.from_db(connection.alias, _NAMES, row)
