"""Filters of the list of sessions."""

from __future__ import annotations

from datetime import date, datetime

from django_filters import fields
from django_filters import rest_framework as filters

from agent_sessions.api.fields import EARLIEST, LATEST
from agent_sessions.api.serializers import MAX_SEARCH_TERM
from agent_sessions.models import Session, SessionStatus
from agent_sessions.moments import as_stored, in_utc
from agent_sessions.querysets import SessionQuerySet


class _MomentFormField(fields.IsoDateTimeField):
    def to_python(self, value: str | datetime | date | None) -> datetime | None:
        try:
            moment: datetime | None = super().to_python(value)
            return moment and as_stored(min(max(in_utc(moment), EARLIEST), LATEST))
        except OverflowError:
            # In UTC it is outside the calendar; no session is as old or as new.
            return as_stored(EARLIEST if str(value).lstrip().startswith("0001") else LATEST)


class MomentFilter(filters.IsoDateTimeFilter):
    """A date and time in ISO 8601."""

    field_class = _MomentFormField


class SessionFilter(filters.FilterSet):
    """Filters sessions by status, agent, text and times."""

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

    def filter_active(
        self, queryset: SessionQuerySet[Session], name: str, value: bool
    ) -> SessionQuerySet[Session]:
        """Return the active, not expired sessions, or the others."""
        active = queryset.active()
        return active if value else queryset.exclude(pk__in=active.values("pk"))

    def filter_text(
        self, queryset: SessionQuerySet[Session], name: str, value: str
    ) -> SessionQuerySet[Session]:
        """Return the sessions with the words in their title or in a message."""
        return queryset.search(value)
