"""Live: the messages of a session as server-sent events."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from uuid import UUID

from django.db import Error as DatabaseFailure
from django.db import connections
from django.http import StreamingHttpResponse
from django.utils.translation import gettext_lazy as _
from rest_framework.request import Request
from rest_framework.utils.encoders import JSONEncoder

from agent_sessions.api.follow import hub
from agent_sessions.api.owned import OwnedSessionsView
from agent_sessions.api.problems import InvalidParameter
from agent_sessions.api.renderers import EventStreamRenderer
from agent_sessions.api.serializers import LARGEST_SEQUENCE, represent_message
from agent_sessions.api.streams import is_async
from agent_sessions.conf import settings
from agent_sessions.models import Message, Session
from agent_sessions.repository import SyncSessionRepository

RETRY = b"retry: 1000\n\n"
_BATCH = 100


class EventsView(OwnedSessionsView):
    """Each message of the session once, in order, from `Last-Event-ID` on.

    On an asynchronous server the stream stays open. A synchronous one sends what there is and
    ends; the client's EventSource asks again after a second.
    """

    renderer_classes = [EventStreamRenderer]
    staff_permission = "view_message"

    def get(self, request: Request, id: str) -> StreamingHttpResponse:  # noqa: A002
        """Open the stream."""
        after = _last_event(request)
        session = self.find_session(self.sessions().only("id"))
        using = self.repository.using
        if is_async(request):
            _let_go_of_connections()
        return StreamingHttpResponse(
            _follow(session.pk, after, using)
            if is_async(request)
            else _what_there_is(session.pk, after, using),
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


async def _follow(session_id: UUID, after: int, using: str) -> AsyncIterator[bytes]:
    repository = SyncSessionRepository(using)
    yield RETRY
    center = hub(using)
    loop = asyncio.get_running_loop()
    end = loop.time() + settings.EVENTS_MAX_SECONDS
    try:
        async with center.watch(session_id, after) as watch:
            while loop.time() < end:
                watch.news.clear()
                latest = watch.latest or 0
                try:
                    found = await center.ask(
                        lambda after=after: repository.get_messages(  # type: ignore[misc]
                            session_id, after=after, limit=_BATCH
                        )
                    )
                except DatabaseFailure:
                    # There is no news while the database is away; the stream lives on.
                    found = []
                    latest = 0
                for message in found:
                    yield _event(message)
                    after = message.sequence
                watch.seen = max(after, latest)
                if len(found) == _BATCH:
                    continue
                pause = min(settings.EVENTS_KEEP_ALIVE_SECONDS, max(end - loop.time(), 0))
                try:
                    await asyncio.wait_for(watch.news.wait(), pause)
                except TimeoutError:
                    yield b": still here\n\n"
    except Session.DoesNotExist:
        # The client comes back for more, gets 404 and stops.
        return


def _what_there_is(session_id: UUID, after: int, using: str) -> Iterator[bytes]:
    repository = SyncSessionRepository(using)
    yield RETRY
    while True:
        found = repository.get_messages(session_id, after=after, limit=_BATCH)
        for message in found:
            yield _event(message)
            after = message.sequence
        if len(found) < _BATCH:
            return


def _event(message: Message) -> bytes:
    # JSON in ASCII has no line breaks, which would end the event.
    data = json.dumps(represent_message(message), cls=JSONEncoder)
    return f"id: {message.sequence}\nevent: message\ndata: {data}\n\n".encode("ascii")
