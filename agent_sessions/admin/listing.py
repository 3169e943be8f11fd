"""Paginators and filters of change lists whose cost does not grow with the table."""

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
    from django.contrib.admin.views.main import ChangeList

    _AnyPaginator = Paginator[Any]
    _SessionAdmin = admin.ModelAdmin[Session]
    _AnyAdmin = admin.ModelAdmin[Any]
else:
    _AnyPaginator = Paginator
    _SessionAdmin = _AnyAdmin = admin.ModelAdmin


class ForgivingAdmin(_AnyAdmin):
    """Treats values that no column can hold as Django treats other wrong parameters."""

    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, object] | None = None
    ) -> HttpResponse:
        """Return the list; redirect to the list without filters if one of them is not valid."""
        try:
            return super().changelist_view(request, extra_context)
        except (DataError, OverflowError):
            # Django checks the form of a value, the database its range and NUL characters.
            if request.method != "GET":
                raise
            return HttpResponseRedirect(f"{request.path}?{ERROR_FLAG}=1")


class CappedPaginator(_AnyPaginator):
    """Counts and lists the first `limit` rows.

    To count a large table, or to list its last page, takes seconds; search and filters find rows
    there.
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
    """Lists more rows: a session of 50,000 messages can be read to its end."""

    limit = 100_000


class AgentFilter(admin.SimpleListFilter):
    """Filters by agent, which is typed in or chosen from those of the newest sessions."""

    title = _("agent")
    parameter_name = "agent_id"
    template = "admin/agent_sessions/text_filter.html"
    recent = 500

    def lookups(self, request: HttpRequest, model_admin: _SessionAdmin) -> list[tuple[str, str]]:
        """Return the agents of the newest sessions; to find all takes a walk over all rows."""
        newest = Session.objects.newest_first().values_list("agent_id", flat=True)[: self.recent]
        return [(agent, agent) for agent in sorted(set(newest))]

    def has_output(self) -> bool:
        """Return True, as an agent can be typed in."""
        return True

    def queryset(
        self, request: HttpRequest, queryset: models.QuerySet[Session]
    ) -> models.QuerySet[Session]:
        """Return the sessions of the agent."""
        value = self.value()
        if value and not is_storable(value):
            return queryset.none()
        return queryset.filter(agent_id=value) if value else queryset

    def choices(self, changelist: ChangeList) -> Iterator[Any]:
        """Yield the values for the template of the form."""
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
