"""Appending messages: numbering, counters, expiry and rows move in one step."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from django.core.exceptions import ValidationError
from django.db import IntegrityError, connections
from django.utils import timezone

from agent_sessions.choices import SessionStatus
from agent_sessions.conf import settings
from agent_sessions.exceptions import IdempotencyConflict, SessionArchived
from agent_sessions.messages import canonical, pack, validate_message
from agent_sessions.models import Message, Session
from agent_sessions.repository import append_orm, append_postgresql
from agent_sessions.repository.notify import after_commit
from agent_sessions.signals import message_added

logger = logging.getLogger("agent_sessions")


def append_one(session_id: UUID, message: Any, owner: Any, using: str) -> Message:
    """Append a message. See SyncSessionRepository.add_message_to_session()."""
    row = _row(session_id, validate_message(message), timezone.now(), using)
    return _append(session_id, [row], owner, using)[0]


def append_many(session_id: UUID, messages: Iterable[Any], owner: Any, using: str) -> list[Message]:
    """Append messages. See SyncSessionRepository.add_messages()."""
    rows = rows_of(session_id, messages, using)
    if not rows:
        _refuse_missing_or_archived(session_id, owner, using)
    return _append(session_id, rows, owner, using)


def rows_of(
    session_id: UUID, messages: Iterable[Any], using: str, place: str = "{}"
) -> list[Message]:
    """Return the messages as rows without numbers.

    Raises ValidationError, keyed by the place of the message in the call and the field.
    """
    now = timezone.now()
    rows: list[Message] = []
    errors: dict[str, Any] = {}
    for number, message in enumerate(messages):
        try:
            rows.append(_row(session_id, validate_message(message), now, using))
        except ValidationError as error:
            for field, problems in error.error_dict.items():
                errors[f"{place.format(number)}.{field}"] = problems
    if errors:
        raise ValidationError(errors)
    return rows


def _row(session_id: UUID, message: Mapping[str, Any], now: datetime, using: str) -> Message:
    # In the order of the fields: with names Django takes several times as long.
    values: Any = (
        None,
        session_id,
        None,
        None,
        str(message["role"]),
        message.get("content"),
        message.get("metadata", {}),
        pack(message),
        message.get("idempotency_key"),
        now,
    )
    row = Message(*values)
    row._state.db = using
    return row


def unrepeated(
    rows: Iterable[Message], stored: Mapping[str, Message]
) -> tuple[list[Message], dict[str, Message]]:
    """Return the rows to insert, and for each idempotency key the message that has it first.

    Raises IdempotencyConflict if a key comes with two messages.
    """
    waiting: list[Message] = []
    firsts = dict(stored)
    for row in rows:
        key = row.idempotency_key
        if key is not None and key in firsts:
            _require_same(firsts[key], row)
            continue
        if key is not None:
            firsts[key] = row
        waiting.append(row)
    return waiting, firsts


def _append(session_id: UUID, rows: Sequence[Message], owner: Any, using: str) -> list[Message]:
    connection = connections[using]
    insert = append_postgresql.insert if connection.vendor == "postgresql" else append_orm.insert
    # By idempotency key: what is stored already, or stands earlier in the same call.
    stored: dict[str, Message] = {}
    while True:
        waiting, firsts = unrepeated(rows, stored)
        if not waiting:
            break
        keys = [row.idempotency_key for row in waiting if row.idempotency_key is not None]
        try:
            count = insert(session_id, waiting, owner, connection)
        except IntegrityError:
            if connection.vendor == "postgresql" and not connection.get_autocommit():
                raise
            found = _with_keys(session_id, keys, owner, using)
            if not found:
                raise
            stored.update(found)
            continue
        if count is None:
            found = _with_keys(session_id, keys, owner, using)
            if not found:
                _refuse_missing_or_archived(session_id, owner, using)
            stored.update(found)
            continue
        announce(session_id, waiting, count, using)
        break
    return [row if row.idempotency_key is None else firsts[row.idempotency_key] for row in rows]


def _with_keys(session_id: UUID, keys: list[str], owner: Any, using: str) -> dict[str, Message]:
    if not keys:
        return {}
    found = Message.objects.using(using).filter(session_id=session_id, idempotency_key__in=keys)
    if owner is not None:
        found = found.filter(session__user_id=owner)
    return {str(message.idempotency_key): message for message in found}


def _require_same(stored: Message, given: Message) -> None:
    if canonical(stored.as_dict()) != canonical(given.as_dict()):
        raise IdempotencyConflict(str(given.idempotency_key))


def _refuse_missing_or_archived(session_id: UUID, owner: Any, using: str) -> None:
    sessions = Session.objects.using(using).only("status")
    if owner is not None:
        sessions = sessions.filter(user_id=owner)
    session = sessions.get(pk=session_id)
    if session.status == SessionStatus.ARCHIVED:
        raise SessionArchived(session_id)


def announce(session_id: UUID, rows: list[Message], count: int, using: str) -> None:
    """Tell that the rows were inserted, and that the session has become too long."""
    limit = settings.MAX_MESSAGES
    if limit is not None and count > limit:
        logger.warning(
            "Session %s has %d messages, more than the limit of %d.", session_id, count, limit
        )
    after_commit(message_added, Message, using, session_id=session_id, messages=rows)
