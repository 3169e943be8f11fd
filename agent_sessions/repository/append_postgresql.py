"""Appending on PostgreSQL: one statement, hence one round trip, and atomic in autocommit."""

from __future__ import annotations

import json
from functools import lru_cache
from typing import Any
from uuid import UUID

from django.db import connections

from agent_sessions.choices import FINISHED_STATUSES, SessionStatus
from agent_sessions.messages import clean_text, storable_json, text_of
from agent_sessions.models import Message, Session, default_expiry

_STATEMENT = """
WITH s AS (
    UPDATE {session} SET
        last_sequence = last_sequence + {number},
        message_count = message_count + {number},
        last_message_at = %s,
        last_activity_at = %s,
        updated_at = %s,
        status = CASE WHEN status IN ({finished}) THEN '{active}' ELSE status END,
        expires_at = {expiry}
    WHERE id = %s AND status <> '{archived}'{conditions}
    RETURNING id, user_id, last_sequence, message_count, last_message_at
), m AS (
    INSERT INTO {message} (
        session_id, user_id, sequence, created_at,
        role, content, metadata, payload, idempotency_key
    )
    {rows}
    RETURNING id, sequence
)
SELECT m.id, m.sequence, s.user_id, s.message_count FROM m CROSS JOIN s ORDER BY m.sequence
"""

_ONE_ROW = """
    SELECT id, user_id, last_sequence, last_message_at,
        %s::text, %s::text, %s::jsonb, %s::text, %s::text
    FROM s
"""

_ROWS = """
    SELECT s.id, s.user_id, s.last_sequence - {number} + r.number, s.last_message_at,
        r.role, r.content, r.metadata::jsonb, r.payload, r.idempotency_key
    FROM s CROSS JOIN unnest(%s::text[], %s::text[], %s::text[], %s::text[], %s::text[])
        WITH ORDINALITY AS r(role, content, metadata, payload, idempotency_key, number)
    ORDER BY r.number
"""


_OF_OWNER = " AND user_id = %s"

_WITHOUT_KEYS = """
        AND NOT EXISTS (
            SELECT FROM {message} AS k
            WHERE k.session_id = {session}.id
                AND k.idempotency_key IS NOT NULL AND k.idempotency_key = ANY(%s)
        )"""


def insert(session_id: UUID, rows: list[Message], owner: Any, using: str) -> int | None:
    """Insert the rows behind the last message and complete them with their numbers.

    Returns the session's count of messages; None if the session is missing, archived, not
    the owner's (where one is given) or has a message with one of the idempotency keys. Raises
    IntegrityError if, outside a transaction, such a message came at that moment.
    """
    connection = connections[using]
    keys = [row.idempotency_key for row in rows if row.idempotency_key is not None]
    if keys and not connection.get_autocommit():
        # A message that another writer adds meanwhile would spoil the caller's transaction.
        # Behind the lock the statement sees it.
        session = Session.objects.using(using).filter(pk=session_id)
        session.select_for_update(no_key=True).values_list("pk", flat=True).first()
    now = rows[0].created_at
    expiry = default_expiry()
    values: list[Any] = [now, now, now]
    if expiry is not None:
        values.append(expiry)
    values.append(session_id)
    if owner is not None:
        values.append(Session._meta.get_field("user").get_db_prep_value(owner, connection))
    if keys:
        values.append(keys)
    if len(rows) == 1:
        values += _values(rows[0])
    else:
        values += map(list, zip(*map(_values, rows), strict=True))
    statement = _statement(len(rows), expiry is not None, owner is not None, bool(keys))
    with connection.cursor() as cursor:
        cursor.execute(statement, values)
        written = cursor.fetchall()
    if not written:
        return None
    for row, (pk, sequence, user_id, _count) in zip(rows, written, strict=True):
        row.pk = pk
        row.sequence = sequence
        row.user_id = user_id
        row._state.adding = False
    return int(written[0][3])


@lru_cache(maxsize=64)
def _statement(number: int, expires: bool, owned: bool, keyed: bool) -> str:
    tables = {
        "session": f'"{Session._meta.db_table}"',
        "message": f'"{Message._meta.db_table}"',
    }
    return _STATEMENT.format(
        **tables,
        number=number,
        conditions=_OF_OWNER * owned + _WITHOUT_KEYS.format(**tables) * keyed,
        finished=", ".join(f"'{status}'" for status in FINISHED_STATUSES),
        active=SessionStatus.ACTIVE,
        archived=SessionStatus.ARCHIVED,
        expiry=(
            "CASE WHEN expires_at IS NOT NULL THEN GREATEST(expires_at, %s) END"
            if expires
            else "NULL"
        ),
        rows=_ONE_ROW if number == 1 else _ROWS.format(number=number),
    )


def _values(row: Message) -> tuple[str | None, ...]:
    return (
        row.role,
        clean_text(text_of(row.content)),
        json.dumps(storable_json(row.metadata)) if row.metadata else "{}",
        row.payload,
        row.idempotency_key,
    )
