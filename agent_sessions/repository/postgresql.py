"""Appending on PostgreSQL: one call of a function, hence one round trip, and atomic."""

from __future__ import annotations

import json
from typing import Any
from uuid import UUID

from django.core.exceptions import ValidationError
from django.db.backends.base.base import BaseDatabaseWrapper
from django.utils.translation import gettext as _

from agent_sessions.message_format import clean_text, storable_json, text_of
from agent_sessions.models import Message, default_expiry
from agent_sessions.postgresql.append_function import NAME
from agent_sessions.repository.owners import column_value, key_field

_CALL = f"SELECT {NAME}(%s, %s, %s, %s, %s, %s)"
LARGEST_CALL = 2**28 - 1
"""Bytes of messages in one call: what an array in PostgreSQL's binary JSON can have."""

# Made once: json.dumps would make one for each message.
_encode = json.JSONEncoder(ensure_ascii=False).encode


def insert(
    session_id: UUID, rows: list[Message], owner: Any, connection: BaseDatabaseWrapper
) -> int | None:
    """Insert the rows behind the last message and complete them with their numbers.

    Returns the session's count of messages; None if the session is missing, archived, not
    the owner's (where one is given) or has a message with one of the idempotency keys.

    Raises ValidationError if PostgreSQL cannot take so many bytes at once.
    """
    owned = None
    if owner is not None:
        owned = column_value(owner, connection)
        if owned is None:
            return None
    now = rows[0].created_at
    expiry = default_expiry(now)
    keys = [row.idempotency_key for row in rows if row.idempotency_key is not None]
    # As texts: for each of its own types the driver would look for a way to write it, and it
    # writes a JSON text many times faster than an array.
    values = (
        str(session_id),
        None if owned is None else str(owned),
        now.isoformat(),
        None if expiry is None else expiry.isoformat(),
        _written(rows),
        json.dumps(keys) if keys else None,
    )
    with connection.cursor() as cursor:
        cursor.execute(_CALL, values)
        written = cursor.fetchone()[0]
    if written is None:
        return None
    count, last, user, ids = json.loads(written)
    user_id = key_field().to_python(user)
    for sequence, row, pk in zip(range(last - len(rows) + 1, last + 1), rows, ids, strict=True):
        # Past the descriptors: the row is new, and nothing hangs on what it had there.
        row.__dict__.update(id=pk, sequence=sequence, user_id=user_id)
        row._state.adding = False
    return int(count)


def _written(rows: list[Message]) -> str:
    text = _encode([_columns(row) for row in rows])
    if len(text) > LARGEST_CALL // 4 and len(text.encode()) > LARGEST_CALL:
        problem = _("The messages of one call have more than %d bytes.") % LARGEST_CALL
        raise ValidationError({"messages": problem})
    return text


def _columns(row: Message) -> tuple[Any, ...]:
    return (
        row.role,
        clean_text(text_of(row.content)),
        storable_json(row.metadata) if row.metadata else {},
        row.payload,
        row.idempotency_key,
    )
