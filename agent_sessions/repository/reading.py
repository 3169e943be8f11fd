"""Reads that need more than a queryset: statistics and numbered pages."""

from __future__ import annotations

from collections.abc import Sequence

from django.db.models import Count, Q, Sum, Value
from django.utils import timezone

from agent_sessions.choices import SessionStatus
from agent_sessions.conf import settings
from agent_sessions.models import Session
from agent_sessions.querysets import SessionQuerySet
from agent_sessions.repository.results import Page, SessionStats


def stats(sessions: SessionQuerySet[Session]) -> SessionStats:
    """Count sessions and messages. See SyncUserSessionRepository.get_session_stats()."""
    unexpired = Q(expires_at__isnull=True) | Q(expires_at__gt=timezone.now())
    by_status = {
        row["status"]: row
        for row in sessions.order_by()
        .values("status")
        .annotate(
            sessions=Count("*"),
            total=Sum("message_count"),
            unexpired=Count(Value(1), filter=unexpired),
        )
    }
    active = by_status.get(SessionStatus.ACTIVE)
    return SessionStats(
        total_sessions=sum(row["sessions"] for row in by_status.values()),
        active_sessions=active["unexpired"] if active else 0,
        total_messages=sum(row["total"] for row in by_status.values()),
        sessions_by_status={
            str(status): by_status[status]["sessions"] if status in by_status else 0
            for status in SessionStatus
        },
    )


def page(
    sessions: SessionQuerySet[Session],
    number: int,
    size: int,
    order: str = "-activity",
    deferred: Sequence[str] = (),
) -> Page[Session]:
    """Return page ``number`` (from 1) of the sessions in one of ``ORDERS``, ``size`` on a page.

    ``deferred`` names fields that are not loaded. A page past the end is empty. Counts all
    sessions; skipped rows are read in the index alone, and counted from the nearer end. Raises
    ValueError if the number is below 1 or the size outside 1…AGENT_SESSIONS_MAX_PAGE_SIZE.
    """
    if number < 1:
        raise ValueError(f"The page is {number}; pages count from 1.")
    if not 1 <= size <= settings.MAX_PAGE_SIZE:
        raise ValueError(f"The page size is {size}; it must be 1 to {settings.MAX_PAGE_SIZE}.")
    total = sessions.count()
    start = (number - 1) * size
    items: list[Session] = []
    if start < total:
        listed = sessions.sorted_by(order)
        behind = total - start - size
        if start <= behind:
            listed = listed[start : start + size]
        else:
            listed = listed.reverse()[max(behind, 0) : behind + size]
        every = Session.objects.using(sessions.db).defer(*deferred)
        items = list(every.filter(pk__in=listed.values("pk")).sorted_by(order))
    return Page(items, number, size, total)
