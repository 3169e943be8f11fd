"""Live: the messages of a session as server-sent events."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from typing import Any
from uuid import UUID

from django.db import Error as DatabaseFailure
from django.db import connections
from django.http import HttpResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase
from django.utils.translation import gettext_lazy as _
from rest_framework.request import Request
from rest_framework.utils.encoders import JSONEncoder

from agent_sessions.api.errors import InvalidParameter
from agent_sessions.api.live import hub
from agent_sessions.api.owned import OwnedSessionsView
from agent_sessions.api.permissions import Reader
from agent_sessions.api.renderers import EventStreamRenderer
from agent_sessions.api.serializers import LARGEST_SEQUENCE, represent_message
from agent_sessions.api.streams import is_async
from agent_sessions.conf import settings
from agent_sessions.models import Message, Session
from agent_sessions.repository import SyncSessionRepository

RETRY = b"retry: 1000\n\n"

_FIRST_WINDOW = 20
_LARGEST_WINDOW = 100
_WINDOW_BYTES = 1024 * 1024


class EventsView(OwnedSessionsView):
    """Each message of the session once, in order, from `Last-Event-ID` on.

    On an asynchronous server the stream stays open. A synchronous one sends what there is and
    ends; the client's EventSource asks again after a second.
    """

    renderer_classes = [EventStreamRenderer]
    staff_permission = "view_message"

    def get(self, request: Request, id: str) -> HttpResponseBase:  # noqa: A002
        """Open the stream."""
        after = _last_event(request)
        session = self.find_session(self.sessions().only("id"))
        if request.method == "HEAD":
            return HttpResponse(content_type="text/event-stream")
        using = self.repository.using
        if is_async(request):
            _let_go_of_connections()
        return StreamingHttpResponse(
            _follow(session.pk, self.reader, after, using)
            if is_async(request)
            else _what_there_is(session.pk, self.reader, after, using),
            content_type="text/event-stream",
            # Proxies would hold events back until a buffer is full.
            headers={"Cache-Control": "private, no-store", "X-Accel-Buffering": "no"},
        )


def _last_event(request: Request) -> int:
    given = {
        "Last-Event-ID": request.headers.get("Last-Event-ID"),
        "after": request.query_params.get("after"),
    }
    for name, text in given.items():
        if text and not (text.isascii() and text.isdigit() and len(text) <= 10):
            raise InvalidParameter({name: [_("This is not the id of an event.")]})
    return min(int(given["Last-Event-ID"] or given["after"] or 0), LARGEST_SEQUENCE)


def _let_go_of_connections() -> None:
    # Django keeps them until the answer has been sent, and the stream's end is far off.
    for connection in connections.all(initialized_only=True):
        if not connection.in_atomic_block:
            connection.close()


async def _follow(session_id: UUID, reader: Reader, after: int, using: str) -> AsyncIterator[bytes]:
    yield RETRY
    center = hub(using)
    loop = asyncio.get_running_loop()
    end = loop.time() + settings.EVENTS_MAX_SECONDS
    window = _Window(session_id, reader.owner_id, after, using)
    try:
        async with center.watch(session_id, reader, after) as watch:
            while loop.time() < end and not watch.ended:
                watch.news.clear()
                latest = watch.latest or 0
                try:
                    found = await center.ask(window.read)
                except DatabaseFailure:
                    # There is no news while the database is away; the stream lives on.
                    found = []
                    latest = 0
                # The server takes the next one when the client has taken the last: a slow client
                # has one window in memory.
                for event in found:
                    yield event
                watch.seen = max(window.after, latest)
                if found and window.has_more:
                    continue
                pause = min(settings.EVENTS_KEEP_ALIVE_SECONDS, max(end - loop.time(), 0))
                try:
                    await asyncio.wait_for(watch.news.wait(), pause)
                except TimeoutError:
                    yield b": still here\n\n"
    except Session.DoesNotExist:
        # The client comes back for more, gets 404 and stops.
        return


def _what_there_is(session_id: UUID, reader: Reader, after: int, using: str) -> Iterator[bytes]:
    yield RETRY
    window = _Window(session_id, reader.owner_id, after, using)
    while True:
        yield from window.read()
        if not window.has_more:
            return


class _Window:
    """Reads a session's messages on and on, as events, a bounded number of bytes at a time."""

    def __init__(self, session_id: UUID, owner_id: Any, after: int, using: str) -> None:
        self.after = after
        self.has_more = True
        self._session_id, self._owner_id = session_id, owner_id
        self._repository = SyncSessionRepository(using)
        self._size = _FIRST_WINDOW

    def read(self) -> list[bytes]:
        """Return the next events. Raises Session.DoesNotExist, as it does for another's."""
        messages = self._repository.get_messages(
            self._session_id, after=self.after, limit=self._size, user_id=self._owner_id
        )
        events = [_event(message) for message in messages]
        self.has_more = len(messages) == self._size
        if messages:
            self.after = messages[-1].sequence
            # Messages have from bytes to megabytes: windows follow what this session's are like.
            usual = sum(map(len, events)) // len(events) + 1
            self._size = max(1, min(_LARGEST_WINDOW, _WINDOW_BYTES // usual))
        return events


def _event(message: Message) -> bytes:
    # JSON in ASCII has no line breaks, which would end the event.
    data = json.dumps(represent_message(message), cls=JSONEncoder)
    return f"id: {message.sequence}\nevent: message\ndata: {data}\n\n".encode("ascii")
