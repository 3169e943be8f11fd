"""Operations on many sessions: cleanup, purge, change of status, deletion, counters.

They work in batches, each a short transaction, so that no append waits for long.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from uuid import UUID

from django.core.exceptions import ValidationError
from django.db import transaction
from django.db.models import Count, F, Max, OuterRef, Q, Subquery, Value
from django.db.models.functions import Coalesce, Greatest
from django.utils import timezone
from django.utils.translation import gettext as _

from agent_sessions.choices import SessionStatus
from agent_sessions.conf import settings
from agent_sessions.ids import Owner
from agent_sessions.message_numbers import locking
from agent_sessions.models import DeletedMessage, Message, Session
from agent_sessions.querysets import SessionQuerySet
from agent_sessions.repository.connections import after_commit
from agent_sessions.repository.erasure import Tally, delete_sessions
from agent_sessions.repository.locking import Check, in_batches, lock, lock_one
from agent_sessions.signals import session_status_changed

Progress = Callable[[int], None] | None


def cleanup(using: str, progress: Progress) -> int:
    """Complete expired sessions. See SyncUserSessionRepository.cleanup_expired_sessions()."""
    return in_batches(
        Session.objects.using(using).expired(),
        "expires_at",
        lambda ids: _change(ids, SessionStatus.COMPLETED, using),
        progress,
    )


def purge(days: float, using: str, progress: Progress) -> int:
    """Delete old finished sessions. See SyncUserSessionRepository.purge_old_sessions()."""
    stored = Session.objects.using(using).only("pk")
    return in_batches(
        Session.objects.using(using).finished_for(days),
        "updated_at",
        lambda ids: _delete([*stored.filter(pk__in=ids)], using),
        progress,
    )


def set_status(ids: Iterable[UUID], status: str, owner: Owner, using: str) -> int:
    """Set the status. See SyncUserSessionRepository.bulk_update_session_status()."""
    if status not in SessionStatus.values:
        allowed = ", ".join(SessionStatus.values)
        message = _("%(status).100r is not a status. Statuses: %(allowed)s.")
        raise ValidationError({"status": message % {"status": status, "allowed": allowed}})
    ordered = sorted(set(ids))
    size = settings.CLEANUP_BATCH_SIZE
    total = 0
    for start in range(0, len(ordered), size):
        sessions = Session.objects.using(using).owned_by(owner)
        sessions = sessions.filter(pk__in=ordered[start : start + size])
        with transaction.atomic(using=using):
            total += _change(lock(sessions.exclude(status=status)), status, using)
    return total


def delete_session(session_id: UUID, owner: Owner, check: Check, using: str) -> None:
    """Delete a session. See SyncUserSessionRepository.delete()."""
    with transaction.atomic(using=using):
        if check is not None:
            session = lock_one(session_id, owner, check, using)
        else:
            # What cannot be decrypted can be deleted all the same.
            owned = Session.objects.using(using).filter(pk=session_id).owned_by(owner)
            session = locking(owned).only("pk").get()
        _delete([session], using)


def verify(using: str, repair: bool, progress: Progress) -> list[UUID]:
    """Find sessions with wrong counters. See SyncUserSessionRepository.verify_counters()."""
    sessions = Session.objects.using(using)
    found: list[UUID] = []
    rest = sessions.order_by("pk")
    while batch := list(rest.values_list("pk", flat=True)[: settings.CLEANUP_BATCH_SIZE]):
        wrong = [pk for pk, *_numbers in _wrong(sessions.filter(pk__in=batch))]
        if wrong and repair:
            with transaction.atomic(using=using):
                # Under the lock no append can come between counting and writing.
                locked = sessions.filter(pk__in=lock(sessions.filter(pk__in=wrong)))
                for pk, rows, highest, changed in _wrong(locked):
                    sessions.filter(pk=pk).update(
                        message_count=rows,
                        last_sequence=Greatest("last_sequence", Value(highest)),
                        last_change=Greatest("last_change", Value(changed)),
                    )
        found += wrong
        if progress is not None:
            progress(len(batch))
        rest = sessions.filter(pk__gt=batch[-1]).order_by("pk")
    return found


def _change(ids: list[UUID], status: str, using: str) -> int:
    if not ids:
        return 0
    sessions = Session.objects.using(using).filter(pk__in=ids)
    changed = sessions.update(
        status=status, updated_at=Greatest("updated_at", Value(timezone.now()))
    )
    after_commit(session_status_changed, Session, using, session_ids=ids, status=status)
    return changed


def _delete(sessions: Sequence[Session], using: str) -> int:
    tally = Tally()
    delete_sessions(sessions, using, tally)
    return tally.rows(Session)


def _wrong(sessions: SessionQuerySet[Session]) -> list[tuple[UUID, int, int, int]]:
    """Return the ids, counts of messages, last numbers and last changes that are written wrong."""
    numbered = sessions.annotate(
        changed=Greatest(
            _last_revision(Message, sessions.db), _last_revision(DeletedMessage, sessions.db)
        )
    )
    counted = numbered.annotate(
        rows=Count("messages"),
        highest=Greatest(Coalesce(Max("messages__sequence"), Value(0)), F("changed")),
    )
    wrong = counted.filter(
        ~Q(message_count=F("rows"))
        | Q(last_sequence__lt=F("highest"))
        | Q(last_change__lt=F("changed"))
    )
    return list(wrong.order_by("pk").values_list("pk", "rows", "highest", "changed"))


def _last_revision(model: type[Message | DeletedMessage], using: str) -> Coalesce:
    of_session = model._base_manager.using(using).filter(session_id=OuterRef("pk"))
    latest = of_session.filter(revision__isnull=False).order_by("-revision")
    return Coalesce(Subquery(latest.values("revision")[:1]), Value(0))
