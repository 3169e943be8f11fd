"""Operations on many sessions: cleanup, purge, change of status, deletion.

They work in batches, each a short transaction, so that no append waits for long.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from typing import Any
from uuid import UUID

from django.core.exceptions import ValidationError
from django.db import transaction
from django.db.models.deletion import Collector
from django.utils import timezone
from django.utils.translation import gettext as _

from agent_sessions.choices import SessionStatus
from agent_sessions.conf import settings
from agent_sessions.models import Message, Session
from agent_sessions.repository.locking import Check, in_batches, lock, lock_one, locking
from agent_sessions.repository.on_commit import after_commit
from agent_sessions.repository.results import Erased
from agent_sessions.signals import session_status_changed, sessions_deleted

audit = logging.getLogger("agent_sessions.audit")

Progress = Callable[[int], None] | None


def cleanup(using: str, progress: Progress) -> int:
    """Complete expired sessions. See SyncSessionRepository.cleanup_expired_sessions()."""
    return in_batches(
        Session.objects.using(using).expired(),
        "expires_at",
        lambda ids: _change(ids, SessionStatus.COMPLETED, using),
        progress,
    )


def purge(days: float, using: str, progress: Progress) -> int:
    """Delete old finished sessions. See SyncSessionRepository.purge_old_sessions()."""
    stored = Session.objects.using(using).only("pk")
    return in_batches(
        Session.objects.using(using).finished_for(days),
        "updated_at",
        lambda ids: _delete([*stored.filter(pk__in=ids)], using).sessions,
        progress,
    )


def set_status(ids: Iterable[UUID], status: str, user_id: Any, using: str) -> int:
    """Set the status. See SyncSessionRepository.bulk_update_session_status()."""
    if status not in SessionStatus.values:
        allowed = ", ".join(SessionStatus.values)
        message = _("%(status).100r is not a status. Statuses: %(allowed)s.")
        raise ValidationError({"status": message % {"status": status, "allowed": allowed}})
    ordered = sorted(set(ids))
    size = settings.CLEANUP_BATCH_SIZE
    total = 0
    for start in range(0, len(ordered), size):
        sessions = Session.objects.using(using).filter(pk__in=ordered[start : start + size])
        if user_id is not None:
            sessions = sessions.for_user(user_id)
        with transaction.atomic(using=using):
            total += _change(lock(sessions.exclude(status=status)), status, using)
    return total


def delete_session(session_id: UUID, owner: Any, check: Check, using: str) -> None:
    """Delete a session. See SyncSessionRepository.delete()."""
    with transaction.atomic(using=using):
        _delete([lock_one(session_id, owner, check, using)], using)


def delete_user_data(user_id: Any, using: str) -> Erased:
    """Delete what a user has. See SyncSessionRepository.delete_user_data()."""
    sessions = messages = 0
    owned = Session.objects.using(using).for_user(user_id)
    size = settings.CLEANUP_BATCH_SIZE
    try:
        while True:
            with transaction.atomic(using=using):
                batch = list(locking(owned).only("pk")[:size])
                erased = _delete(batch, using)
            sessions += erased.sessions
            messages += erased.messages
            if len(batch) < size:
                break
    finally:
        # An erasure that breaks off has erased something, too.
        audit.info(
            "Erased the data of user %s: %d sessions, %d messages.", user_id, sessions, messages
        )
    return Erased(sessions, messages)


def _change(ids: list[UUID], status: str, using: str) -> int:
    if not ids:
        return 0
    sessions = Session.objects.using(using).filter(pk__in=ids)
    changed = sessions.update(status=status, updated_at=timezone.now())
    after_commit(session_status_changed, Session, using, session_ids=ids, status=status)
    return changed


def _delete(sessions: Sequence[Session], using: str) -> Erased:
    if not sessions:
        return Erased(0, 0)
    # Their keys are gone once they are deleted.
    ids = [session.pk for session in sessions]
    # Rows that are loaded need not be read again, as they are by the delete() of a queryset.
    collector = Collector(using=using)
    collector.collect(sessions)
    _total, deleted = collector.delete()
    after_commit(sessions_deleted, Session, using, session_ids=ids)
    return Erased(
        deleted.get(Session._meta.label, 0),
        deleted.get(Message._meta.label, 0),
    )
