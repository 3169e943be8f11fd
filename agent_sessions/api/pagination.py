"""Pages of sessions: by cursor, or by number with totals."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from django.conf import settings
from rest_framework import serializers
from rest_framework.pagination import BasePagination
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.utils.urls import remove_query_param, replace_query_param

from agent_sessions.api.errors import InvalidParameter
from agent_sessions.api.fields import EARLIEST, LATEST, AnySerializer, PageSizeField
from agent_sessions.models import Session
from agent_sessions.querysets import ORDERS, SessionQuerySet
from agent_sessions.repository import reading

CURSOR_PATTERN = "^[np][A-Za-z0-9_-]{32}$"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def parse_query(serializer_class: type[AnySerializer], request: Request) -> dict[str, Any]:
    """Return the validated query parameters.

    Raises:
        InvalidParameter: A query parameter is not valid.
    """
    serializer = serializer_class(data=request.query_params.dict())
    if not serializer.is_valid():
        raise InvalidParameter(serializer.errors)
    data: dict[str, Any] = serializer.validated_data
    return data


class PageQuerySerializer(AnySerializer):
    """The parameters of a page of sessions."""

    page_size = PageSizeField(help_text="Sessions on a page.")
    cursor = serializers.RegexField(
        CURSOR_PATTERN,
        required=False,
        help_text="Where to continue: part of the links `next` and `previous`.",
    )
    page = serializers.IntegerField(
        min_value=1,
        required=False,
        help_text="A page by number, last activity first, with totals. A cursor overrides it.",
    )
    ordering = serializers.ChoiceField(
        list(ORDERS),
        required=False,
        help_text="By creation (the default) or by activity (the default with `page`).",
    )


class SessionPagination(BasePagination):
    """Newest sessions first by cursor; with `?page=` by number, last activity first.

    A cursor holds the id and the last activity of a session. Ids are time-ordered and never
    change, so following the links shows every session once, whatever is created or appended
    meanwhile, and page 1,000 costs what page 1 costs. By activity it costs the same, and a session
    that is used meanwhile moves to the newest end. Numbered pages count all sessions.
    """

    def paginate_queryset(  # type: ignore[override]
        self, queryset: SessionQuerySet[Session], request: Request, view: object = None
    ) -> list[Session]:
        """Return the sessions of the page.

        Raises:
            InvalidParameter: A query parameter is not valid.
        """
        query = parse_query(PageQuerySerializer, request)
        self._url = request.build_absolute_uri()
        size, cursor = query["page_size"], query.get("cursor")
        if "page" in query and cursor is None:
            order = query.get("ordering", "-activity")
            page = reading.page(queryset, query["page"], size, order, deferred=("context",))
            self._set_links(
                "page",
                page.page + 1 if page.has_next else None,
                page.page - 1 if page.has_previous else None,
            )
            self._totals = {
                name: getattr(page, name)
                for name in (
                    "page",
                    "page_size",
                    "total_items",
                    "total_pages",
                    "has_next",
                    "has_previous",
                )
            }
            return page.items
        self._totals = {}
        return self._at_cursor(queryset, query.get("ordering", "-created"), cursor, size)

    def get_paginated_response(self, data: Sequence[object]) -> Response:
        """Return the page with its links."""
        links = {"next": self._next, "previous": self._previous}
        return Response({**links, "results": data, **self._totals})

    def _at_cursor(
        self, sessions: SessionQuerySet[Session], order: str, cursor: str | None, size: int
    ) -> list[Session]:
        backwards = cursor is not None and cursor.startswith("p")
        if backwards:
            order = order[1:] if order.startswith("-") else f"-{order}"
        if cursor is not None:
            sessions = sessions.beyond(order, *_decode(cursor))
        # One more than requested tells whether there is another page.
        found = list(sessions.defer("context").sorted_by(order)[: size + 1])
        has_more, items = len(found) > size, found[:size]
        if backwards:
            items.reverse()
        has_next = bool(items) and (has_more or backwards)
        has_previous = bool(items) and (has_more if backwards else cursor is not None)
        self._set_links(
            "cursor",
            _encode("n", items[-1]) if has_next else None,
            _encode("p", items[0]) if has_previous else None,
        )
        return items

    def _set_links(
        self, parameter: str, following: str | int | None, preceding: str | int | None
    ) -> None:
        url = remove_query_param(self._url, parameter)
        self._next, self._previous = (
            None if value is None else replace_query_param(url, parameter, str(value))
            for value in (following, preceding)
        )


def _encode(direction: str, session: Session) -> str:
    # A local time is written as it is: in UTC an hour of autumn would not come back the same.
    moment = session.last_activity_at
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    microseconds = (moment - _EPOCH) // _MICROSECOND
    position = microseconds.to_bytes(8, "big", signed=True) + session.pk.bytes
    return direction + base64.urlsafe_b64encode(position).decode("ascii")


def _decode(cursor: str) -> tuple[datetime, UUID]:
    position = base64.urlsafe_b64decode(cursor[1:])
    microseconds = int.from_bytes(position[:8], "big", signed=True)
    lowest, highest = ((limit - _EPOCH) // _MICROSECOND for limit in (EARLIEST, LATEST))
    moment = _EPOCH + min(max(microseconds, lowest), highest) * _MICROSECOND
    moment = moment if settings.USE_TZ else moment.replace(tzinfo=None)
    return moment, UUID(bytes=position[8:])
