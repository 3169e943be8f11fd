"""Appends messages: numbers, counters, expiry and rows change in one transaction."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from django.core.exceptions import ValidationError
from django.db import IntegrityError, InterfaceError, OperationalError, connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import Max
from django.utils import timezone
from django.utils.translation import gettext as _

from agent_sessions.choices import SessionStatus
from agent_sessions.conf import settings
from agent_sessions.exceptions import (
    AppendOutcomeUnknown,
    IdempotencyConflict,
    SessionArchived,
)
from agent_sessions.ids import Owner
from agent_sessions.message_format import (
    canonical,
    is_idempotency_key,
    pack,
    role_of,
    validate_message,
)
from agent_sessions.models import Message, Session
from agent_sessions.repository.connections import after_commit, is_lost
from agent_sessions.repository.strategy import strategy_for
from agent_sessions.signals import message_added

logger = logging.getLogger("agent_sessions")

FIELD_NAMES = [field.attname for field in Message._meta.concrete_fields]

#: Characters of a key for a whole call: the numbers of its messages stand behind it.
LONGEST_CALL_KEY = 240

_SEPARATOR = "\x1f"
_LONGEST_STORED_KEY = 255


def append_one(session_id: UUID, message: object, owner: Owner, using: str) -> Message:
    """Append a message. See SyncUserSessionRepository.add_message_to_session()."""
    row = _row(session_id, validate_message(message), timezone.now(), using)
    return _append(session_id, [row], owner, using)[0]


def append_many(
    session_id: UUID,
    messages: Iterable[object],
    owner: Owner,
    using: str,
    key: str | None = None,
    author: str = "",
) -> list[Message]:
    """Append messages. See SyncUserSessionRepository.add_messages()."""
    rows = rows_of(session_id, messages, using)
    if not rows:
        refuse_missing_or_archived(session_id, owner, using)
    if key is None:
        for row in rows if author else ():
            if row.idempotency_key is not None:
                row.idempotency_key = _stored_key(author, row.idempotency_key)
        return _append(session_id, rows, owner, using)
    if not is_idempotency_key(key) or len(key) > LONGEST_CALL_KEY:
        raise ValidationError(
            {
                "idempotency_key": _("A key is a string of 1 to %d printable characters.")
                % LONGEST_CALL_KEY
            }
        )
    if any(row.idempotency_key is not None for row in rows):
        raise ValidationError(
            {"idempotency_key": _("Give a key of the call or keys of its messages, not both.")}
        )
    for number, row in enumerate(rows):
        row.idempotency_key = _stored_key(author, key, number)
    return _append(session_id, rows, owner, using, _CallKey(author, key))


def rows_of(
    session_id: UUID, messages: Iterable[object], using: str, place: str = "{}"
) -> list[Message]:
    """Return the messages as rows without numbers.

    Raises:
        ValidationError: A message is not acceptable; keyed by its place in the call and the field.
    """
    now = timezone.now()
    rows: list[Message] = []
    errors: dict[str, object] = {}
    for number, message in enumerate(messages):
        try:
            rows.append(_row(session_id, validate_message(message), now, using))
        except ValidationError as error:
            for field, problems in error.error_dict.items():
                errors[f"{place.format(number)}.{field}"] = problems
    if errors:
        raise ValidationError(errors)
    return rows


def _row(session_id: UUID, message: Mapping[str, object], now: datetime, using: str) -> Message:
    # In the order of the fields.
    values = (
        None,
        session_id,
        None,
        None,
        role_of(message),
        message.get("content"),
        message.get("metadata", {}),
        pack(message),
        message.get("idempotency_key"),
        now,
        None,
    )
    return Message.assemble(using, FIELD_NAMES, values)


def unrepeated(
    rows: Iterable[Message], stored: Mapping[str, Message]
) -> tuple[list[Message], dict[str, Message]]:
    """Return the rows to insert, and for each idempotency key the message that has it first.

    Raises:
        IdempotencyConflict: A key comes with two messages.
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


class _CallKey(NamedTuple):
    """A key for all messages of a call."""

    author: str
    key: str


def _stored_key(author: str, key: str, number: int | None = None) -> str:
    """Return the key of a message as it is stored.

    A key in a message stands alone, that of an author behind the author, and the key of a call
    between its author and the number of the message. No key of a caller has the separator, which
    is not printable, so keys of different kinds or authors never meet.
    """
    if number is not None:
        stored = f"{author}{_SEPARATOR}{key}{_SEPARATOR}{number}"
    else:
        stored = f"{author}{_SEPARATOR}{key}" if author else key
    if len(stored) <= _LONGEST_STORED_KEY:
        return stored
    return _SEPARATOR + hashlib.sha256(stored.encode("utf-8", "surrogatepass")).hexdigest()


def _given_key(stored: str) -> str:
    parts = stored.split(_SEPARATOR)
    return parts[1] if len(parts) == 3 else parts[-1]


def _append(
    session_id: UUID,
    rows: Sequence[Message],
    owner: Owner,
    using: str,
    call_key: _CallKey | None = None,
) -> list[Message]:
    connection = connections[using]
    strategy = strategy_for(using)
    # By idempotency key: the messages stored already, or earlier in the same call.
    stored: dict[str, Message] = {}
    while True:
        waiting, firsts = unrepeated(rows, stored)
        if not waiting:
            break
        keys = [row.idempotency_key for row in waiting if row.idempotency_key is not None]
        try:
            count = strategy.insert(session_id, waiting, owner, connection)
        except IntegrityError:
            if not strategy.is_usable_after_error(connection):
                raise
            found = _stored(session_id, keys, call_key, owner, using)
            if not found and not _numbers_repaired(session_id, using):
                raise
            stored.update(found)
            continue
        except (OperationalError, InterfaceError) as error:
            # With keys it is safe to try again, which is up to the caller.
            if len(keys) < len(waiting) and _may_be_stored(connection):
                raise AppendOutcomeUnknown(session_id) from error
            raise
        if count is None:
            found = _stored(session_id, keys, call_key, owner, using)
            if not found:
                refuse_missing_or_archived(session_id, owner, using)
            stored.update(found)
            continue
        announce(session_id, waiting, count, using)
        break
    return [row if row.idempotency_key is None else firsts[row.idempotency_key] for row in rows]


def _may_be_stored(connection: BaseDatabaseWrapper) -> bool:
    if connection.in_atomic_block or not is_lost(connection):
        return False
    # The next call must not use the lost connection.
    connection.close()
    return True


def _numbers_repaired(session_id: UUID, using: str) -> bool:
    """Raise the counter to the messages that were written without the repository."""
    messages = Message.objects.using(using).for_session(session_id)
    highest = messages.aggregate(highest=Max("sequence"))["highest"] or 0
    behind = Session.objects.using(using).filter(pk=session_id, last_sequence__lt=highest)
    return behind.update(last_sequence=highest) > 0


def _stored(
    session_id: UUID, keys: list[str], call_key: _CallKey | None, owner: Owner, using: str
) -> dict[str, Message]:
    if call_key is None:
        return _with_keys(session_id, keys, owner, using)
    # One more than there are: a call with more messages has used it.
    beyond = _stored_key(*call_key, len(keys))
    found = _with_keys(session_id, [*keys, beyond], owner, using)
    if found and found.keys() != set(keys):
        raise IdempotencyConflict(call_key.key)
    return found


def _with_keys(session_id: UUID, keys: list[str], owner: Owner, using: str) -> dict[str, Message]:
    if not keys:
        return {}
    found = Message.objects.using(using).filter(session_id=session_id, idempotency_key__in=keys)
    found = found.owned_by(owner)
    return {str(message.idempotency_key): message for message in found}


def _require_same(stored: Message, given: Message) -> None:
    if stored.revision is not None:
        # What was appended first is not known any more.
        return
    if canonical(stored.as_dict()) != canonical(given.as_dict()):
        raise IdempotencyConflict(_given_key(str(given.idempotency_key)))


def refuse_missing_or_archived(session_id: UUID, owner: Owner, using: str) -> None:
    """Raise Session.DoesNotExist or SessionArchived, if that keeps the session from changes."""
    session = Session.objects.using(using).owned_by(owner).only("status").get(pk=session_id)
    if session.status == SessionStatus.ARCHIVED:
        raise SessionArchived(session_id)


def announce(session_id: UUID, rows: list[Message], count: int, using: str) -> None:
    """Send the signal for the inserted rows, and warn if the session has become too long.

    The session has ``count`` messages now. One warning when it grows past the limit, and one
    each time that it has doubled since.
    """
    limit = settings.MAX_MESSAGES
    if limit is not None and _doublings(count, limit) > _doublings(count - len(rows), limit):
        logger.warning(
            "Session %s has %d messages, more than the limit of %d.", session_id, count, limit
        )
    after_commit(message_added, Message, using, session_id=session_id, messages=rows)


def _doublings(count: int, limit: int) -> int:
    return (max(count - 1, 0) // limit).bit_length()
