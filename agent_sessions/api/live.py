"""The open event streams of a process, and one poll of the database for all of them.

Each stream subscribes to its session. An append or a change in this process wakes the session's
streams at once, by signal; one in another process by a notification over the cache's Redis.
Notifications may be lost and a project may have no Redis, so while there are streams one thread
with one database connection also polls, every AGENT_SESSIONS_EVENTS_POLL_SECONDS, which sessions
have given out new numbers: one query by primary key for all streams. The database alone decides
what is sent, and in which order.

The same thread checks rights every AGENT_SESSIONS_EVENTS_KEEP_ALIVE_SECONDS: a stream ends when its
session is deleted or given to another user, or when its reader may no longer read it.

A message reaches its reader 21 ms after the append was answered (median; at most 44 ms) with
notifications, 89 ms (at most 295 ms) by polling alone, on two busy cores. An append pays 0.3 µs
without streams, 7 µs with them.

PostgreSQL's LISTEN and NOTIFY are not used: NOTIFY holds one lock of the whole cluster until its
transaction is on the disk, so commits cannot share a write. Eight processes made 514 to 848
appends a second without it and 158 to 206 with it, and LISTEN does not work behind a pooler of
transactions.
"""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from types import FrameType
from typing import Any, NamedTuple, TypeVar, cast
from uuid import UUID

from django.db import Error as DatabaseFailure
from django.db import connections

from agent_sessions import notifications
from agent_sessions.api.permissions import Reader, permitted_readers
from agent_sessions.conf import settings
from agent_sessions.models import Message, Session
from agent_sessions.signals import (
    message_added,
    message_updated,
    messages_deleted,
    sessions_deleted,
)

Result = TypeVar("Result")


class Subscription:
    """The last number that one stream has sent, and the last one in the database."""

    def __init__(self, session_id: UUID, reader: Reader, seen: int) -> None:
        self.session_id = session_id
        self.reader = reader
        #: Whether the reader may no longer read.
        self.ended = False
        #: The number up to which the stream has looked.
        self.seen = seen
        #: The last number in the database at the last look; None once the session is gone.
        self.latest: int | None = 0
        #: Set when the stream should look at the database.
        self.wake = asyncio.Event()

    def update(self, latest: int | None) -> None:
        """Remember the last number; wake the stream if it has not seen it."""
        self.latest = latest
        if latest is None or latest > self.seen:
            self.wake.set()

    def end(self) -> None:
        """Make the stream end."""
        self.ended = True
        self.wake.set()


class Schemas(NamedTuple):
    """The schemas that a thread's connections use, where a schema belongs to a tenant.

    django-tenants keeps the tenant of a request on the connections of its thread, and no other
    thread knows it.
    """

    #: The alias of a database and the name of its schema.
    names: frozenset[tuple[str, str]]
    #: The tenant by alias.
    tenants: Mapping[str, Any]

    def use(self) -> None:
        """Let the connections of this thread use the schemas."""
        for alias, tenant in self.tenants.items():
            cast("Any", connections[alias]).set_tenant(tenant)


def schemas_in_use() -> Schemas:
    """Return the schemas of this thread's connections; none without schemas of tenants."""
    tenants = {
        connection.alias: tenant
        for connection in connections.all()
        if hasattr(connection, "set_tenant")
        and (tenant := getattr(connection, "tenant", None)) is not None
    }
    names = frozenset((alias, tenant.schema_name) for alias, tenant in tenants.items())
    return Schemas(names, tenants)


class Hub:
    """The subscriptions of one event loop, and the thread that polls the database for them.

    Where tenants have schemas, those of each schema have a hub of their own.
    """

    def __init__(self, using: str, schemas: Schemas) -> None:
        self._using = using
        self._key = (asyncio.get_running_loop(), using, schemas.names)
        self._subscriptions: set[Subscription] = set()
        self._loop = asyncio.get_running_loop()
        self._thread = ThreadPoolExecutor(1, "agent-sessions-live", initializer=schemas.use)
        self._polling: asyncio.Task[None] | None = None

    @asynccontextmanager
    async def subscribe(
        self, session_id: UUID, reader: Reader, seen: int
    ) -> AsyncIterator[Subscription]:
        """Yield a subscription to what follows a number; end it with the block."""
        subscription = Subscription(session_id, reader, seen)
        self._subscriptions.add(subscription)
        if self._polling is None:
            self._open()
        if _is_told_to_end:
            # Its request came before the signal, or the server does not close its socket at once.
            subscription.end()
        try:
            yield subscription
        finally:
            self._subscriptions.discard(subscription)
            if not self._subscriptions:
                self._close()

    def end(self) -> None:
        """End all streams; may be called in any thread."""

        def end() -> None:
            for subscription in self._subscriptions:
                subscription.end()

        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(end)

    async def run(self, query: Callable[[], Result]) -> Result:
        """Return the result of database code, which runs in the thread of the hub."""

        def execute() -> Result:
            try:
                return query()
            except DatabaseFailure:
                # The connection may be what failed; the next query gets a new one.
                connections.close_all()
                raise

        return await self._loop.run_in_executor(self._thread, execute)

    async def _poll(self) -> None:
        checked = self._loop.time()
        while True:
            # During an outage of the database the streams stay open.
            with suppress(DatabaseFailure):
                await self._check_sequences(list(self._subscriptions))
                if self._loop.time() - checked >= settings.EVENTS_KEEP_ALIVE_SECONDS:
                    await self._check_rights(list(self._subscriptions))
                    checked = self._loop.time()
            await asyncio.sleep(settings.EVENTS_POLL_SECONDS)

    async def _check_sequences(self, subscriptions: list[Subscription]) -> None:
        wanted = {subscription.session_id for subscription in subscriptions}
        sessions = Session.objects.using(self._using).filter(pk__in=wanted)
        rows = sessions.values_list("pk", "user_id", "tenant", "last_sequence")
        found = await self.run(lambda: {tuple(place): last for *place, last in rows})
        for subscription in subscriptions:
            reader = subscription.reader
            place = (subscription.session_id, reader.owner_id, reader.tenant)
            subscription.update(found.get(place))

    async def _check_rights(self, subscriptions: list[Subscription]) -> None:
        readers = {subscription.reader for subscription in subscriptions}
        permitted = await self.run(lambda: permitted_readers(readers))
        for subscription in subscriptions:
            if subscription.reader not in permitted:
                subscription.end()

    def _open(self) -> None:
        _end_streams_at_shutdown()
        self._polling = asyncio.create_task(self._poll())
        self._unsubscribe = notifications.subscribe(self._on_number)
        message_added.connect(self._on_message_added)
        message_updated.connect(self._on_message_updated)
        messages_deleted.connect(self._on_messages_deleted)
        sessions_deleted.connect(self._on_sessions_deleted)

    def _close(self) -> None:
        _hubs.pop(self._key, None)
        self._unsubscribe()
        message_added.disconnect(self._on_message_added)
        message_updated.disconnect(self._on_message_updated)
        messages_deleted.disconnect(self._on_messages_deleted)
        sessions_deleted.disconnect(self._on_sessions_deleted)
        if self._polling is not None:
            self._polling.cancel()
        self._thread.submit(connections.close_all)
        self._thread.shutdown(wait=False)

    def _on_message_added(
        self, session_id: UUID, messages: Sequence[Message], using: str, **kwargs: object
    ) -> None:
        self._on_number(session_id, messages[-1].sequence, using)

    def _on_message_updated(
        self, session_id: UUID, message: Message, using: str, **kwargs: object
    ) -> None:
        self._on_number(session_id, message.revision or 0, using)

    def _on_messages_deleted(
        self, session_id: UUID, number: int, using: str, **kwargs: object
    ) -> None:
        self._on_number(session_id, number, using)

    def _on_sessions_deleted(
        self, session_ids: Iterable[UUID], using: str, **kwargs: object
    ) -> None:
        self._wake(set(session_ids), using, None)

    def _on_number(self, session_id: UUID, latest: int, using: str) -> None:
        self._wake({session_id}, using, latest)

    def _wake(self, session_ids: set[UUID], using: str, latest: int | None) -> None:
        def wake() -> None:
            for subscription in self._subscriptions:
                is_new = latest is None or latest > subscription.seen
                if subscription.session_id in session_ids and is_new:
                    subscription.wake.set()

        if using == self._using:
            # A closed loop has no streams.
            with suppress(RuntimeError):
                self._loop.call_soon_threadsafe(wake)


_Key = tuple[asyncio.AbstractEventLoop, str, frozenset[tuple[str, str]]]

_hubs: dict[_Key, Hub] = {}


_ending: set[signal.Signals] = set()
_is_told_to_end = False


def _end_streams_at_shutdown() -> None:
    """End all streams, later ones too, at a SIGTERM or SIGINT, because servers wait for them.

    The server's own handler runs afterwards. A signal that is ignored stays ignored, and a handler
    that is not Python's, which could not be called, stays in place. Handlers belong to the main
    thread: in another one streams end after AGENT_SESSIONS_EVENTS_MAX_SECONDS.
    """
    if threading.current_thread() is not threading.main_thread():
        return
    for number in {signal.SIGTERM, signal.SIGINT} - _ending:
        previous = signal.getsignal(number)
        if previous is None or previous == signal.SIG_IGN:
            continue

        def end(
            received: int,
            frame: FrameType | None,
            previous: Callable[[int, FrameType | None], object] | int | None = previous,
        ) -> None:
            global _is_told_to_end
            _is_told_to_end = True
            for each in list(_hubs.values()):
                each.end()
            if callable(previous):
                previous(received, frame)
            elif previous == signal.SIG_DFL:
                signal.signal(received, signal.SIG_DFL)
                os.kill(os.getpid(), received)

        signal.signal(number, end)
        _ending.add(number)


def hub(using: str, schemas: Schemas) -> Hub:
    """Return the hub of the running event loop for the database alias ``using`` and the schemas.

    It lives as long as it has subscriptions.
    """
    key = (asyncio.get_running_loop(), using, schemas.names)
    if key not in _hubs:
        _hubs[key] = Hub(using, schemas)
    return _hubs[key]
