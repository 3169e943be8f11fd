"""Change lists whose cost does not grow with the table."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from django.contrib import admin
from django.contrib.admin.views.main import ERROR_FLAG
from django.core.paginator import Paginator
from django.db import DataError, models
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.utils.functional import cached_property
from django.utils.translation import gettext_lazy as _

from agent_sessions.message_format import is_storable
from agent_sessions.models import Session

if TYPE_CHECKING:
    _AnyPaginator = Paginator[Any]
    _SessionAdmin = admin.ModelAdmin[Session]
    _AnyAdmin = admin.ModelAdmin[Any]
else:
    _AnyPaginator = Paginator
    _SessionAdmin = _AnyAdmin = admin.ModelAdmin


class ForgivingAdmin(_AnyAdmin):
    """Answers addresses with values that no column can hold as Django does other odd ones."""

    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """Return the list; without its filters, and with a word about it, if they are at fault."""
        try:
            return super().changelist_view(request, extra_context)
        except (DataError, OverflowError):
            # Django looks at the form of a value, the database at its range, and at NUL in it.
            if request.method != "GET":
                raise
            return HttpResponseRedirect(f"{request.path}?{ERROR_FLAG}=1")


class CappedPaginator(_AnyPaginator):
    """Counts and lists no more than the first `limit` rows.

    Counting all of a large table takes seconds, and so do its last pages; whoever looks for a
    row there is better served by search and filters.
    """

    limit = 10_000

    @cached_property
    def _reached(self) -> int:
        rows = self.object_list
        if isinstance(rows, models.QuerySet):
            return rows.order_by()[: self.limit + 1].count()
        return len(rows)

    @cached_property
    def count(self) -> int:
        """The number of rows that can be listed."""
        return min(self._reached, self.limit)

    @property
    def capped(self) -> bool:
        """Whether there are more rows than can be listed."""
        return self._reached > self.limit


class LongPaginator(CappedPaginator):
    """For messages: a session of 50,000 can be read to its end."""

    limit = 100_000


class AgentFilter(admin.SimpleListFilter):
    """Sessions of one agent, typed in or chosen from those seen lately."""

    title = _("agent")
    parameter_name = "agent_id"
    template = "admin/agent_sessions/text_filter.html"
    recent = 500

    def lookups(self, request: HttpRequest, model_admin: _SessionAdmin) -> list[tuple[str, str]]:
        """Return the agents of the newest sessions: all agents would mean a walk over all rows."""
        newest = Session.objects.newest_first().values_list("agent_id", flat=True)[: self.recent]
        return [(agent, agent) for agent in sorted(set(newest))]

    def has_output(self) -> bool:
        """Always: an agent can be typed in."""
        return True

    def queryset(
        self, request: HttpRequest, queryset: models.QuerySet[Session]
    ) -> models.QuerySet[Session]:
        """Keep the agent's sessions."""
        value = self.value()
        if value and not is_storable(value):
            return queryset.none()
        return queryset.filter(agent_id=value) if value else queryset

    def choices(self, changelist: Any) -> Iterator[Any]:
        """Yield what the template needs to make a form of it."""
        others = changelist.get_filters_params()
        yield {
            "name": self.parameter_name,
            "value": self.value() or "",
            "suggestions": [value for value, _title in self.lookup_choices],
            "others": [
                (name, value)
                for name, values in others.items()
                if name != self.parameter_name
                for value in (values if isinstance(values, list) else [values])
            ],
            "query": changelist.query,
            "clear": changelist.get_query_string(remove=[self.parameter_name]),
        }
