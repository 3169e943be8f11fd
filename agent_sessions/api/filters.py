"""Filters of the list of sessions."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from django.db.models import QuerySet
from django_filters import fields
from django_filters import rest_framework as filters

from agent_sessions.api.serializers import MAX_SEARCH_TERM
from agent_sessions.models import Session, SessionStatus

_EARLIEST = datetime(1, 1, 2, tzinfo=UTC)
_LATEST = datetime(9999, 12, 30, tzinfo=UTC)


class _MomentFormField(fields.IsoDateTimeField):
    def to_python(self, value: Any) -> datetime | None:
        try:
            moment: datetime | None = super().to_python(value)
            return moment and min(max(moment.astimezone(UTC), _EARLIEST), _LATEST)
        except OverflowError:
            # In UTC it is before the first or after the last year; no session is as old or new.
            return _EARLIEST if str(value).lstrip().startswith("0001") else _LATEST


class MomentFilter(filters.IsoDateTimeFilter):
    """A moment in ISO 8601."""

    field_class = _MomentFormField


class SessionFilter(filters.FilterSet):
    """Which sessions to list."""

    status = filters.MultipleChoiceFilter(choices=SessionStatus.choices)
    agent_id = filters.CharFilter(max_length=255)
    active = filters.TypedChoiceFilter(
        choices=[("true", "true"), ("false", "false")],
        coerce=lambda text: text == "true",
        method="filter_active",
    )
    text = filters.CharFilter(method="filter_text", max_length=MAX_SEARCH_TERM)
    created_after = MomentFilter("created_at", "gte")
    created_before = MomentFilter("created_at", "lt")
    activity_after = MomentFilter("last_activity_at", "gte")
    activity_before = MomentFilter("last_activity_at", "lt")

    class Meta:
        model = Session
        fields: list[str] = []

    def filter_active(self, queryset: Any, name: str, value: bool) -> QuerySet[Session]:
        """Keep active sessions, not expired; or the others."""
        active: QuerySet[Session] = queryset.active()
        if value:
            return active
        others: QuerySet[Session] = queryset.exclude(pk__in=active.values("pk"))
        return others

    def filter_text(self, queryset: Any, name: str, value: str) -> QuerySet[Session]:
        """Keep sessions with the words in their title or in a message."""
        found: QuerySet[Session] = queryset.search(value)
        return found
