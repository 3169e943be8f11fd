"""Appends the messages of a history that a session does not have yet."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from django.core.exceptions import ValidationError
from django.db import transaction
from django.db.models import F, Value
from django.db.models.functions import Coalesce, Greatest
from django.utils import timezone
from django.utils.translation import gettext as _

from agent_sessions.choices import SessionStatus
from agent_sessions.exceptions import SessionArchived
from agent_sessions.ids import Owner
from agent_sessions.message_format import canonical
from agent_sessions.models import Message, Session
from agent_sessions.repository import append
from agent_sessions.repository.history import History
from agent_sessions.repository.locking import lock_one


def extend(
    session_id: UUID, messages: Sequence[object], history: History, owner: Owner, using: str
) -> int:
    """Append what follows the stored messages, with its times and numbers; return how many.

    Raises:
        ValidationError: The history does not begin with the stored messages, or a message is not
            acceptable.
        SessionArchived: The session is archived.
    """
    rows = append.rows_of(session_id, messages, using, place="messages[{}]")
    history.date(rows)
    with transaction.atomic(using=using):
        session = lock_one(session_id, owner, None, using)
        if session.status == SessionStatus.ARCHIVED:
            raise SessionArchived(session_id)
        stored = Message.objects.using(using).for_session(session_id).in_order()
        known = 0
        for message, row in zip(stored.iterator(100), rows, strict=False):
            if not _same(message, row):
                raise _other(message.sequence)
            known += 1
        new = rows[known:]
        if known < session.message_count or (new and new[0].sequence <= session.last_sequence):
            raise _other(session.last_sequence)
        if not new:
            # Messages that followed were deleted: their numbers are not used again.
            behind = Session.objects.using(using).filter(
                pk=session_id, last_sequence__lt=history.last_sequence
            )
            behind.update(last_sequence=history.last_sequence)
            return 0
        for row in new:
            row.user_id = session.user_id
        Message.objects.using(using).insert(new)
        last = max(row.created_at for row in new)
        Session.objects.using(using).filter(pk=session_id).update(
            last_sequence=max(new[-1].sequence, history.last_sequence),
            message_count=F("message_count") + len(new),
            last_message_at=Greatest(Coalesce("last_message_at", Value(last)), Value(last)),
            last_activity_at=Greatest("last_activity_at", Value(last)),
            updated_at=Greatest("updated_at", Value(history.updated_at or timezone.now())),
        )
        append.announce(session_id, new, session.message_count + len(new), using)
    return len(new)


def _same(message: Message, row: Message) -> bool:
    return message.sequence == row.sequence and canonical(message.as_dict()) == canonical(
        row.as_dict()
    )


def _other(sequence: int) -> ValidationError:
    problem = _("The session has other messages than these, up to number %d.") % sequence
    return ValidationError({"messages": problem})
