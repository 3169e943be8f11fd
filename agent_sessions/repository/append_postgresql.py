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
    WHERE id = %s AND status <> '{archived}'
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


def insert(session_id: UUID, rows: list[Message], using: str) -> int | None:
    """Insert the rows behind the last message and complete them with their numbers.

    Returns the session's count of messages; None if the session is missing or archived.
    """
    now = rows[0].created_at
    expiry = default_expiry()
    values: list[Any] = [now, now, now]
    if expiry is not None:
        values.append(expiry)
    values.append(session_id)
    if len(rows) == 1:
        values += _values(rows[0])
    else:
        values += map(list, zip(*map(_values, rows), strict=True))
    with connections[using].cursor() as cursor:
        cursor.execute(_statement(expiry is not None, len(rows)), values)
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
def _statement(expires: bool, number: int) -> str:
    return _STATEMENT.format(
        number=number,
        session=f'"{Session._meta.db_table}"',
        message=f'"{Message._meta.db_table}"',
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
