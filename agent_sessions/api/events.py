"""The messages of a session as server-sent events."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from uuid import UUID

from django.core.handlers.asgi import ASGIRequest
from django.db import Error as DatabaseFailure
from django.db import connections
from django.http import HttpResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase
from django.utils.translation import gettext_lazy as _
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.utils.encoders import JSONEncoder

from agent_sessions.api.base import OwnedSessionsView
from agent_sessions.api.errors import InvalidParameter
from agent_sessions.api.fields import LARGEST_SEQUENCE
from agent_sessions.api.live import hub, schemas_in_use
from agent_sessions.api.permissions import Reader
from agent_sessions.api.renderers import EventStreamRenderer
from agent_sessions.api.serializers import represent_message
from agent_sessions.api.streams import counted
from agent_sessions.conf import settings
from agent_sessions.models import Session
from agent_sessions.repository import Change, SyncSessionRepository

_RETRY = b"retry: 1000\n\n"
_KEEP_ALIVE = b": keep-alive\n\n"
_HEADERS = {
    "Cache-Control": "private, no-store",
    # GZipMiddleware would wait until its buffer is full; it leaves answers with this header alone.
    "Content-Encoding": "identity",
}
# Proxies must not wait either where the stream stays open. Where it ends they may: a client that
# reads slowly would hold a thread.
_LASTING_HEADERS = {**_HEADERS, "X-Accel-Buffering": "no"}
_FIRST_WINDOW = 20
_LARGEST_WINDOW = 100
_WINDOW_BYTES = 1024 * 1024
# Numbers count from 1; messages of an import may have the number 0.
_BEFORE_ALL = -1


class EventActions(OwnedSessionsView):
    """The action that sends each append, change and deletion once, from `Last-Event-ID` on.

    On an asynchronous server the stream stays open. A synchronous server sends the existing
    messages and ends the stream; the client's EventSource connects again after a second.
    """

    @action(detail=True, renderer_classes=[EventStreamRenderer])
    def events(self, request: Request, **kwargs: object) -> HttpResponseBase:
        """Follow messages as server-sent events.

        Each append (`message`), change (`message.updated`) and deletion (`message.deleted`) once
        and in order: `id` is its number, `data` what the list of messages shows of the message, or
        the sequence of the deleted one. The stream ends now and then; come back with Last-Event-ID.
        """
        after = _last_event_id(request)
        session = self.find_session("id")
        if request.method == "HEAD":
            return HttpResponse(content_type="text/event-stream")
        reading = _Reading(session.pk, self.reader, after, self.repository.using)
        is_async = isinstance(request._request, ASGIRequest)
        if is_async:
            _close_connections()
        return counted(
            "events",
            request.user.pk,
            settings.MAX_STREAMS_PER_USER,
            StreamingHttpResponse(
                _follow(reading) if is_async else _read_all(reading),
                content_type="text/event-stream",
                headers=_LASTING_HEADERS if is_async else _HEADERS,
            ),
        )


class _Reading:
    """Reads what happened in a session as events, a window of bounded bytes after the other."""

    def __init__(self, session_id: UUID, reader: Reader, after: int, using: str) -> None:
        self.session_id = session_id
        self.reader = reader
        #: The number up to which was read.
        self.after = after
        self.using = using
        self.schemas = schemas_in_use()
        #: Whether the last window was full.
        self.has_more: bool
        self._repository = SyncSessionRepository(using).for_user(reader.owner_id, reader.tenant)
        self._size = _FIRST_WINDOW

    def next_events(self) -> list[bytes]:
        """Return the next events.

        Raises:
            Session.DoesNotExist: There is no such session, or it is another user's.
        """
        changes = self._repository.get_changes(self.session_id, self.after, self._size)
        events = [_event(change) for change in changes]
        self.has_more = len(changes) == self._size
        if changes:
            self.after = changes[-1].number
            # Messages have from bytes to megabytes: the next window follows this one's average.
            fitting = _WINDOW_BYTES * len(events) // sum(map(len, events))
            self._size = max(1, min(_LARGEST_WINDOW, fitting))
        return events


async def _follow(reading: _Reading) -> AsyncIterator[bytes]:
    yield _RETRY
    center = hub(reading.using, reading.schemas)
    clock = asyncio.get_running_loop().time
    end = clock() + settings.EVENTS_MAX_SECONDS
    # The client of a deleted session connects again, gets 404 and stops.
    with suppress(Session.DoesNotExist):
        async with center.subscribe(reading.session_id, reading.reader, reading.after) as live:
            while clock() < end and not live.ended:
                live.wake.clear()
                latest = live.latest or 0
                try:
                    events = await center.run(reading.next_events)
                except DatabaseFailure:
                    # The stream continues after an outage of the database.
                    events, latest, reading.has_more = [], 0, False
                # The server takes an event when the client has taken the one before, so a slow
                # client holds one window in memory.
                for event in events:
                    yield event
                live.seen = max(reading.after, latest)
                if reading.has_more:
                    continue
                pause = min(settings.EVENTS_KEEP_ALIVE_SECONDS, max(end - clock(), 0))
                try:
                    await asyncio.wait_for(live.wake.wait(), pause)
                except TimeoutError:
                    yield _KEEP_ALIVE


def _read_all(reading: _Reading) -> Iterator[bytes]:
    yield _RETRY
    yield from reading.next_events()
    while reading.has_more:
        yield from reading.next_events()


def _last_event_id(request: Request) -> int:
    given = {
        "Last-Event-ID": request.headers.get("Last-Event-ID"),
        "after": request.query_params.get("after"),
    }
    for name, text in given.items():
        if text and not (text.isascii() and text.isdigit() and len(text) <= 10):
            raise InvalidParameter({name: [_("This is not the id of an event.")]})
    return min(int(given["Last-Event-ID"] or given["after"] or _BEFORE_ALL), LARGEST_SEQUENCE)


def _close_connections() -> None:
    # Django keeps them until the answer has been sent, and that of a stream ends late.
    for connection in connections.all(initialized_only=True):
        if not connection.in_atomic_block:
            connection.close()


def _event(change: Change) -> bytes:
    message = change.message
    shown = {"sequence": change.sequence} if message is None else represent_message(message)
    # JSON in ASCII has no line breaks, which would end the event.
    data = json.dumps(shown, cls=JSONEncoder)
    return f"id: {change.number}\nevent: {change.kind}\ndata: {data}\n\n".encode("ascii")
