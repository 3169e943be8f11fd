"""Reads that are more than a queryset: numbers, pages by number, windows of messages."""

from __future__ import annotations

from django.db import connections
from django.db.models import Count, Q, Sum, Value
from django.utils import timezone

from agent_sessions.choices import SessionStatus
from agent_sessions.conf import settings
from agent_sessions.models import Message, Session
from agent_sessions.querysets import SessionQuerySet
from agent_sessions.repository import reading_postgresql
from agent_sessions.repository.results import Page, SessionStats, Window


def stats(sessions: SessionQuerySet) -> SessionStats:
    """Count sessions and messages. See SyncSessionRepository.get_session_stats()."""
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
    sessions: SessionQuerySet,
    number: int,
    size: int,
    order: str = "-activity",
    deferred: tuple[str, ...] = (),
) -> Page[Session]:
    """Return one page, without the deferred fields.

    See SyncSessionRepository.get_paginated_user_sessions().
    """
    if number < 1:
        raise ValueError(f"The page is {number}; pages count from 1.")
    if not 1 <= size <= settings.MAX_PAGE_SIZE:
        raise ValueError(f"The page size is {size}; it must be 1 to {settings.MAX_PAGE_SIZE}.")
    total = sessions.count()
    start = (number - 1) * size
    items: list[Session] = []
    if start < total:
        # The skipped rows are read in the index alone, and counted from the nearer end.
        behind = total - start - size
        ordered = sessions.sorted_by(order)
        if start <= behind:
            listed = ordered[start : start + size]
        else:
            listed = ordered.reverse()[max(behind, 0) : behind + size]
        every: SessionQuerySet = sessions.model._default_manager.using(sessions.db)
        found = every.defer(*deferred).filter(pk__in=listed.values("pk"))
        items = list(found.sorted_by(order))
    return Page(items, number, size, total)


def window(wanted: Window, using: str) -> list[Message]:
    """Return messages in order. See SyncSessionRepository.get_messages()."""
    connection = connections[using]
    if connection.vendor == "postgresql":
        found = reading_postgresql.window(wanted, connection)
    else:
        found = _window(wanted, using)
    if found is None:
        raise Session.DoesNotExist(f"Session {wanted.session_id} does not exist.")
    return found if wanted.follows else found[::-1]


def _window(wanted: Window, using: str) -> list[Message] | None:
    sessions = Session.objects.using(using).filter(pk=wanted.session_id)
    messages = Message.objects.using(using).for_session(wanted.session_id)
    if wanted.owner is not None:
        sessions = sessions.filter(user_id=wanted.owner)
        messages = messages.filter(session__user_id=wanted.owner)
    if wanted.before is not None:
        messages = messages.before(wanted.before)
    if wanted.after is not None:
        messages = messages.after(wanted.after)
    ordered = messages.in_order() if wanted.follows else messages.latest_first()
    found = list(ordered[: wanted.limit])
    return found if found or sessions.exists() else None
