"""Reads that are more than a queryset: numbers, pages by number, ranked search."""

from __future__ import annotations

from typing import Any

from django.db import connections
from django.db.models import Case, Count, F, IntegerField, Q, Sum, Value, When
from django.utils import timezone

from agent_sessions import search as searching
from agent_sessions.choices import SessionStatus
from agent_sessions.conf import settings
from agent_sessions.models import Message, Session
from agent_sessions.querysets import SessionQuerySet
from agent_sessions.repository.results import Page, SessionStats


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


def page(sessions: SessionQuerySet, number: int, size: int) -> Page[Session]:
    """Return one page. See SyncSessionRepository.get_paginated_user_sessions()."""
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
        if start <= behind:
            listed = sessions.newest_activity_first()[start : start + size]
        else:
            listed = sessions.newest_activity_first().reverse()[max(behind, 0) : behind + size]
        ids = listed.values("pk")
        every = sessions.model._default_manager.using(sessions.db)
        items = list(every.filter(pk__in=ids).order_by("-last_activity_at", "-id"))
    return Page(items, number, size, total)


def search(user_id: Any, term: str, limit: int, using: str) -> list[Session]:
    """Return the best matches. See SyncSessionRepository.search_sessions()."""
    words = searching.words_of(term)
    if not words:
        return []
    titles = (
        Session.objects.using(using)
        .for_user(user_id)
        .filter(searching.matches("title", words))
        .order_by()
        .annotate(
            session_key=F("pk"),
            title_rank=Case(
                When(title__has_text=term.strip(), then=Value(2)),
                default=Value(1),
                output_field=IntegerField(),
            ),
            hits=Value(0),
        )
        .values_list("session_key", "title_rank", "hits")
    )
    contents = (
        Message.objects.using(using)
        .for_user(user_id)
        .filter(searching.matches("content", words))
        .order_by()
        .values(session_key=F("session_id"))
        .annotate(title_rank=Value(0), hits=Count("*"))
        .values_list("session_key", "title_rank", "hits")
    )
    found = titles.union(contents, all=True).order_by()
    found_sql, found_params = found.query.get_compiler(using).as_sql()
    quote = connections[using].ops.quote_name
    table = quote(Session._meta.db_table)
    columns = ", ".join(f"s.{quote(str(f.column))}" for f in Session._meta.local_concrete_fields)
    owner = Session._meta.get_field("user").get_db_prep_value(user_id, connections[using])
    ranked = Session.objects.using(using).raw(
        f"SELECT {columns} FROM ("  # noqa: S608
        "SELECT f.session_key, MAX(f.title_rank) AS title_rank, SUM(f.hits) AS hits "
        f"FROM ({found_sql}) f GROUP BY f.session_key"
        # Whatever the copies of the user in messages say: nobody finds what is another's.
        f") r JOIN {table} s ON s.id = r.session_key AND s.user_id = %s "
        "ORDER BY r.title_rank DESC, r.hits DESC, s.last_activity_at DESC, s.id DESC "
        "LIMIT %s",
        [*found_params, owner, limit],
    )
    return list(ranked)
