"""Takes messages back, and changes them; tells followers what changed.

Each operation locks the row of the session first, as an append does, so that both happen one after
the other. What is changed or deleted draws a number from the session's line: see
``agent_sessions.message_numbers``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TypeAlias
from uuid import UUID

from django.core.exceptions import ValidationError
from django.db import InterfaceError, OperationalError, connections, transaction
from django.utils.translation import gettext as _

from agent_sessions.choices import SessionStatus
from agent_sessions.exceptions import (
    ChangeOutcomeUnknown,
    IdempotencyConflict,
    SessionArchived,
    SessionChanged,
)
from agent_sessions.ids import Owner
from agent_sessions.message_format import canonical, is_storable
from agent_sessions.message_numbers import Removed, locking, note_change, remove
from agent_sessions.models import DeletedMessage, Message, Session
from agent_sessions.querysets import MessageQuerySet
from agent_sessions.repository import append, windows
from agent_sessions.repository.connections import after_commit, is_lost
from agent_sessions.repository.results import Change, ChangeKind, Window
from agent_sessions.repository.strategy import strategy_for
from agent_sessions.signals import message_updated, messages_deleted

#: The number of a message in its session, or its idempotency key.
MessageId: TypeAlias = int | str

_WRITTEN = {"role", "content", "metadata", "payload", "revision"}


def pop_message(session_id: UUID, owner: Owner, using: str) -> Message | None:
    """Take the last message back. See SyncUserSessionRepository.pop_message()."""
    with _outcome_named(session_id, using):
        popped = strategy_for(using).pop(session_id, owner, connections[using])
    if popped is None:
        append.refuse_missing_or_archived(session_id, owner, using)
        return None
    message, number = popped
    _announce_deleted(session_id, Removed([message.sequence], number, {}), using)
    return message


def delete_message(session_id: UUID, message_id: MessageId, owner: Owner, using: str) -> None:
    """Delete a message. See SyncUserSessionRepository.delete_message()."""
    with transaction.atomic(using=using):
        session = _locked(session_id, owner, using)
        removed = remove(_named(session_id, message_id, using), session_id, session.last_sequence)
    if not removed.sequences:
        raise _missing(session_id, message_id)
    _announce_deleted(session_id, removed, using)


def clear_messages(session_id: UUID, owner: Owner, using: str) -> int:
    """Delete all messages. See SyncUserSessionRepository.clear_messages()."""
    with transaction.atomic(using=using):
        session = _locked(session_id, owner, using)
        messages = Message.objects.using(using).for_session(session_id)
        removed = remove(messages, session_id, session.last_sequence)
    _announce_deleted(session_id, removed, using)
    return len(removed.sequences)


def replace_tail(
    session_id: UUID,
    after: int,
    messages: Iterable[object],
    expected_last: int | None,
    owner: Owner,
    using: str,
) -> list[Message]:
    """Replace what follows a message. See SyncUserSessionRepository.replace_tail()."""
    rows = append.rows_of(session_id, messages, using)
    rows, _firsts = append.unrepeated(rows, {})
    count = 0
    with _outcome_named(session_id, using), transaction.atomic(using=using):
        session = _locked(session_id, owner, using)
        stored = Message.objects.using(using).for_session(session_id)
        if expected_last is not None:
            last = stored.latest_first().values_list("sequence", flat=True).first() or 0
            if last != expected_last:
                raise SessionChanged(session_id, f"its last message is {last}, not {expected_last}")
        removed = remove(stored.after(after), session_id, session.last_sequence)
        if rows:
            keys = [row.idempotency_key for row in rows if row.idempotency_key is not None]
            used = stored.filter(idempotency_key__in=keys).first() if keys else None
            if used is not None:
                raise IdempotencyConflict(str(used.idempotency_key))
            count = strategy_for(using).insert(session_id, rows, owner, connections[using]) or 0
    _announce_deleted(session_id, removed, using)
    if rows:
        append.announce(session_id, rows, count, using)
    return rows


def update_message(
    session_id: UUID,
    message_id: MessageId,
    message: object,
    expected: Mapping[str, object] | None,
    owner: Owner,
    using: str,
) -> Message:
    """Change a message. See SyncUserSessionRepository.update_message()."""
    (row,) = append.rows_of(session_id, [message], using, place="message")
    with transaction.atomic(using=using):
        session = _locked(session_id, owner, using)
        stored = _named(session_id, message_id, using).first()
        if stored is None:
            raise _missing(session_id, message_id)
        if row.idempotency_key not in (None, stored.idempotency_key):
            raise ValidationError({"idempotency_key": _("A message keeps its key.")})
        if not stored.is_undecryptable or expected is not None:
            before = canonical(stored.as_dict())
            if before == canonical(row.as_dict()):
                return stored
            if expected is not None and before != canonical(dict(expected)):
                raise SessionChanged(session_id, f"message {stored.sequence} is another one")
        number = session.last_sequence + 1
        for name in ("id", "user_id", "sequence", "idempotency_key", "created_at"):
            setattr(row, name, getattr(stored, name))
        row.revision = number
        row._state.adding = False
        row.rewrite(using, _WRITTEN)
        note_change(Session.objects.using(using).filter(pk=session_id), number)
    after_commit(message_updated, Message, using, session_id=session_id, message=row)
    return row


def get_changes(
    session_id: UUID, after: int, limit: int | None, owner: Owner, using: str
) -> list[Change]:
    """Return what happened after a number. See SyncUserSessionRepository.get_changes()."""
    places = Session.objects.using(using).owned_by(owner).filter(pk=session_id)
    last, last_change = places.values_list("last_sequence", "last_change").get()
    # What commits between the queries has a higher number, and is left to the next call.
    added = windows.read(Window(session_id, after, last + 1, limit, owner), using)
    found = [Change(each.sequence, ChangeKind.ADDED, each.sequence, each) for each in added]
    if last_change <= after:
        return found
    numbers = {"revision__gt": after, "revision__lte": last, "sequence__lte": after}
    updated = Message.objects.using(using).for_session(session_id).filter(**numbers)
    for message in updated.order_by("revision")[:limit]:
        number = message.revision or 0
        found.append(Change(number, ChangeKind.UPDATED, message.sequence, message))
    deleted = DeletedMessage.objects.using(using).filter(session_id=session_id, **numbers)
    found += [
        Change(each.revision, ChangeKind.DELETED, each.sequence, None)
        for each in deleted.order_by("revision")[:limit]
    ]
    found.sort(key=lambda change: change.number)
    return found[:limit]


@contextmanager
def _outcome_named(session_id: UUID, using: str) -> Iterator[None]:
    """Raise ChangeOutcomeUnknown if the connection is lost: it may have been committed."""
    connection = connections[using]
    in_transaction, opened = connection.in_atomic_block, connection.connection
    try:
        yield
    except (OperationalError, InterfaceError) as error:
        # Where the rollback failed, too, Django has closed the connection.
        if in_transaction or not (connection.connection is not opened or is_lost(connection)):
            raise
        connection.close()
        raise ChangeOutcomeUnknown(session_id) from error


def _locked(session_id: UUID, owner: Owner, using: str) -> Session:
    """Lock the session, whose own texts do not matter.

    Raises:
        SessionArchived: The session is archived.
    """
    places = Session.objects.using(using).filter(pk=session_id).owned_by(owner)
    session = locking(places).order_by().only("status", "last_sequence").get()
    if session.status == SessionStatus.ARCHIVED:
        raise SessionArchived(session_id)
    return session


def _named(session_id: UUID, message_id: MessageId, using: str) -> MessageQuerySet[Message]:
    messages = Message.objects.using(using).for_session(session_id)
    if isinstance(message_id, str):
        if not is_storable(message_id):
            # The database would refuse the text, and end the transaction.
            return messages.none()
        return messages.filter(idempotency_key=message_id)
    return messages.filter(sequence=message_id)


def _missing(session_id: UUID, message_id: MessageId) -> Message.DoesNotExist:
    return Message.DoesNotExist(f"Session {session_id} has no message {message_id!r}.")


def _announce_deleted(session_id: UUID, removed: Removed, using: str) -> None:
    if removed.sequences:
        after_commit(
            messages_deleted,
            Message,
            using,
            session_id=session_id,
            sequences=removed.sequences,
            number=removed.number,
        )
