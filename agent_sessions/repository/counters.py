"""Comparing the counters of sessions with their messages, and repairing them."""

from __future__ import annotations

from collections.abc import Callable
from uuid import UUID

from django.db import transaction
from django.db.models import Count, F, Max, Q
from django.db.models.functions import Coalesce

from agent_sessions.conf import settings
from agent_sessions.models import Session
from agent_sessions.querysets import SessionQuerySet
from agent_sessions.repository.locking import lock


def verify(using: str, repair: bool, progress: Callable[[int], None] | None) -> list[UUID]:
    """Find sessions with wrong counters. See SyncSessionRepository.verify_counters()."""
    sessions: SessionQuerySet = Session.objects.using(using)
    found: list[UUID] = []
    rest = sessions.order_by("pk")
    while batch := list(rest.values_list("pk", flat=True)[: settings.CLEANUP_BATCH_SIZE]):
        wrong = [pk for pk, _rows, _highest in _wrong(sessions.filter(pk__in=batch))]
        if wrong and repair:
            with transaction.atomic(using=using):
                # Under the lock no append can come between counting and writing.
                locked = sessions.filter(pk__in=lock(sessions.filter(pk__in=wrong)))
                for pk, rows, highest in _wrong(locked):
                    sessions.filter(pk=pk, last_sequence__lt=highest).update(last_sequence=highest)
                    sessions.filter(pk=pk).update(message_count=rows)
        found += wrong
        if progress is not None:
            progress(len(batch))
        rest = sessions.filter(pk__gt=batch[-1]).order_by("pk")
    return found


def _wrong(sessions: SessionQuerySet) -> list[tuple[UUID, int, int]]:
    counted = sessions.annotate(
        rows=Count("messages"), highest=Coalesce(Max("messages__sequence"), 0)
    )
    wrong = counted.filter(~Q(message_count=F("rows")) | Q(last_sequence__lt=F("highest")))
    return list(wrong.order_by("pk").values_list("pk", "rows", "highest"))
