"""Pages of sessions: by cursor, or by number where totals are wanted."""

from __future__ import annotations

import base64
import uuid
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

from django.db.models import Q, QuerySet
from django.utils.translation import gettext_lazy as _
from rest_framework import serializers
from rest_framework.pagination import BasePagination
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.utils.urls import remove_query_param, replace_query_param

from agent_sessions.api.errors import InvalidParameter
from agent_sessions.conf import settings
from agent_sessions.models import Session

Order = tuple[tuple[str, ...], bool]
"""By which fields, and whether descending."""

CURSOR_PATTERN = "^[np][A-Za-z0-9_-]{32}$"
DEFAULT_PAGE_SIZE = 50

_CREATION, _ACTIVITY = ("id",), ("last_activity_at", "id")
# All that an index of the user's sessions has; ids are time-ordered.
ORDERS = {
    "-created": (_CREATION, True),
    "created": (_CREATION, False),
    "-activity": (_ACTIVITY, True),
    "activity": (_ACTIVITY, False),
}

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_EARLIEST = (datetime(1, 1, 2, tzinfo=UTC) - _EPOCH) // _MICROSECOND
_LATEST = (datetime(9999, 12, 30, tzinfo=UTC) - _EPOCH) // _MICROSECOND


def parse_query(serializer_class: type[serializers.Serializer[Any]], request: Request) -> Any:
    """Return the validated query parameters. Raises InvalidParameter."""
    serializer = serializer_class(data=request.query_params.dict())
    if not serializer.is_valid():
        raise InvalidParameter(serializer.errors)
    return serializer.validated_data


class PageSizeField(serializers.IntegerField):
    """A number of items, from 1 to AGENT_SESSIONS_MAX_PAGE_SIZE."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(min_value=1, required=False, **kwargs)

    def to_internal_value(self, data: Any) -> int:
        """Return the number."""
        value = super().to_internal_value(data)
        if value > settings.MAX_PAGE_SIZE:
            self.fail("max_value", max_value=settings.MAX_PAGE_SIZE)
        return value

    def get_default(self) -> int:
        """Return the default, where no more is allowed the maximum."""
        return min(DEFAULT_PAGE_SIZE, settings.MAX_PAGE_SIZE)

    default_error_messages = {"max_value": _("At most {max_value} are allowed.")}


class _PageQuery(serializers.Serializer[Any]):
    page_size = PageSizeField()
    page = serializers.IntegerField(min_value=1, required=False)
    cursor = serializers.RegexField(CURSOR_PATTERN, required=False)
    ordering = serializers.ChoiceField(list(ORDERS), required=False)


class SessionPagination(BasePagination):
    """Newest sessions first by cursor; with `?page=` by number, newest activity first.

    A cursor holds the id, and the activity, of the session it stands at. Ids are time-ordered
    and never change, so following the links shows every session once, whatever is created or
    appended meanwhile, and page 1,000 costs what page 1 costs. By activity it costs the same;
    a session that is used meanwhile moves to the end where the newest are. Numbered pages count
    all sessions: they cost more, and activity moves sessions from one to the other.
    """

    def paginate_queryset(self, queryset: Any, request: Request, view: Any = None) -> list[Any]:
        """Return the items of the page that the query parameters ask for."""
        query = parse_query(_PageQuery, request)
        self.url = request.build_absolute_uri()
        self.size: int = query["page_size"]
        self.extra: dict[str, Any] = {}
        if "page" in query and "cursor" not in query:
            order = ORDERS[query.get("ordering", "-activity")]
            return self._numbered(queryset, order, query["page"])
        order = ORDERS[query.get("ordering", "-created")]
        return self._at_cursor(queryset, order, query.get("cursor"))

    def get_paginated_response(self, data: Any) -> Response:
        """Return the page with its links."""
        return Response(
            {"next": self.next, "previous": self.previous, "results": data, **self.extra}
        )

    def get_schema_operation_parameters(self, view: Any) -> list[dict[str, Any]]:
        """Return the query parameters for the OpenAPI schema."""
        return [
            _parameter(
                "page_size",
                _("Sessions on a page."),
                {
                    "type": "integer",
                    "minimum": 1,
                    "maximum": settings.MAX_PAGE_SIZE,
                    "default": min(DEFAULT_PAGE_SIZE, settings.MAX_PAGE_SIZE),
                },
            ),
            _parameter(
                "cursor",
                _("Where to go on: part of the links `next` and `previous`."),
                {"type": "string", "pattern": CURSOR_PATTERN},
            ),
            _parameter(
                "page",
                _("A page by number, newest activity first, with totals. A cursor outdoes it."),
                {"type": "integer", "minimum": 1},
            ),
            _parameter(
                "ordering",
                _("By creation (the default) or by activity (the default with `page`)."),
                {"type": "string", "enum": list(ORDERS)},
            ),
        ]

    def get_paginated_response_schema(self, schema: dict[str, Any]) -> dict[str, Any]:
        """Return the OpenAPI schema of a page."""
        link = {"type": "string", "format": "uri", "nullable": True}
        return {
            "type": "object",
            "required": ["next", "previous", "results"],
            "properties": {
                "next": link,
                "previous": link,
                "results": schema,
                **{
                    name: {"type": "integer", "description": "With `page` only."}
                    for name in ("page", "page_size", "total_items", "total_pages")
                },
                **{
                    name: {"type": "boolean", "description": "With `page` only."}
                    for name in ("has_next", "has_previous")
                },
            },
        }

    def _numbered(self, queryset: QuerySet[Any], order: Order, number: int) -> list[Any]:
        total = queryset.count()
        pages = -(-total // self.size)
        self.next = self._link("page", number + 1) if number < pages else None
        self.previous = self._link("page", min(number - 1, pages)) if number > 1 else None
        self.extra = {
            "page": number,
            "page_size": self.size,
            "total_items": total,
            "total_pages": pages,
            "has_next": self.next is not None,
            "has_previous": self.previous is not None,
        }
        if number > pages:
            return []
        start = (number - 1) * self.size
        return list(_ordered(queryset, *order)[start : start + self.size])

    def _at_cursor(self, queryset: QuerySet[Any], order: Order, cursor: str | None) -> list[Any]:
        fields, descending = order
        backwards = cursor is not None and cursor.startswith("p")
        descending ^= backwards
        if cursor is not None:
            queryset = _beyond(queryset, fields, descending, *_decode(cursor))
        # One more than asked for tells whether there is another page.
        found = list(_ordered(queryset, fields, descending)[: self.size + 1])
        more, items = len(found) > self.size, found[: self.size]
        if backwards:
            items.reverse()
        there_is_next = bool(items) and (more or backwards)
        there_is_previous = bool(items) and (more if backwards else cursor is not None)
        self.next = self._link("cursor", _encode("n", items[-1])) if there_is_next else None
        self.previous = self._link("cursor", _encode("p", items[0])) if there_is_previous else None
        return items

    def _link(self, parameter: str, value: Any) -> str:
        return replace_query_param(remove_query_param(self.url, parameter), parameter, value)


def _ordered(queryset: QuerySet[Any], fields: Iterable[str], descending: bool) -> QuerySet[Any]:
    return queryset.order_by(*(f"-{field}" if descending else field for field in fields))


def _beyond(
    queryset: QuerySet[Any],
    fields: tuple[str, ...],
    descending: bool,
    moment: datetime,
    session_id: uuid.UUID,
) -> QuerySet[Any]:
    comparison = "lt" if descending else "gt"
    behind = Q(**{f"id__{comparison}": session_id})
    if fields == _CREATION:
        return queryset.filter(behind)
    return queryset.filter(
        behind | Q(**{f"last_activity_at__{comparison}": moment}),
        # Said once more, for the index.
        **{f"last_activity_at__{comparison}e": moment},
    )


def _encode(direction: str, session: Session) -> str:
    microseconds = (session.last_activity_at - _EPOCH) // _MICROSECOND
    position = microseconds.to_bytes(8, "big", signed=True) + session.pk.bytes
    return direction + base64.urlsafe_b64encode(position).decode("ascii")


def _decode(cursor: str) -> tuple[datetime, uuid.UUID]:
    position = base64.urlsafe_b64decode(cursor[1:])
    microseconds = int.from_bytes(position[:8], "big", signed=True)
    moment = _EPOCH + min(max(microseconds, _EARLIEST), _LATEST) * _MICROSECOND
    return moment, uuid.UUID(bytes=position[8:])


def _parameter(name: str, description: Any, schema: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": name,
        "in": "query",
        "required": False,
        "description": str(description),
        "schema": schema,
    }
