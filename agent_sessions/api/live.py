"""Following sessions: one look at the database serves all streams of a process.

Every open stream waits here for its session. A message that this process appends wakes its
streams at once, by signal; one that another process appends, by a notice over the cache's
Redis. Notices may be lost and a project may have no Redis, so one thread with one database
connection asks too, while there are streams, every AGENT_SESSIONS_EVENTS_POLL_SECONDS which of
the sessions have new messages: one query by primary key, however many streams there are. What
is sent, and in which order, the database alone decides.

With each look the rights are looked at again: a stream ends when its session is deleted or
given to another user, or when its reader may no longer read it.

A message reached its reader 21 ms after the append was answered (median; at most 44) with
notices and 89 ms (at most 295) by the poll alone, on a busy machine of two cores. An append pays
0.3 µs where nobody listens, 7 µs where somebody does, and a message to Redis in the background.

Why not LISTEN and NOTIFY: PostgreSQL holds one lock for the whole cluster from a NOTIFY until
its transaction is on the disk, so that commits cannot share a write. Eight processes appending
to sessions of their own made 514 to 848 appends a second without it, 158 to 206 with it in the
statement of the append, and 369 to 581 with it in a transaction of its own that does not wait
for the disk (PostgreSQL 15, two cores). Every append would pay for streams that few sessions
have; and behind a pooler of transactions a LISTEN hears nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from typing import Any, TypeVar
from uuid import UUID

from django.db import Error as DatabaseFailure
from django.db import connections

from agent_sessions import notifications
from agent_sessions.api.permissions import Reader, who_still_may
from agent_sessions.conf import settings
from agent_sessions.models import Message, Session
from agent_sessions.signals import message_added, sessions_deleted

Result = TypeVar("Result")


class Subscription:
    """What one stream has sent of its session, and what there is of it."""

    def __init__(self, session_id: UUID, reader: Reader, seen: int) -> None:
        self.session_id = session_id
        self.reader = reader
        self.ended = False
        """Whether the reader may no longer read."""
        self.seen = seen
        """The sequence up to which the stream has looked."""
        self.latest: int | None = 0
        """The last sequence when the database was asked; None once the session is not there."""
        self.news = asyncio.Event()

    def learn(self, latest: int | None) -> None:
        """Take note of the last sequence; wake the stream if it has not seen it."""
        self.latest = latest
        if latest is None or latest > self.seen:
            self.news.set()

    def end(self) -> None:
        """Have the stream end."""
        self.ended = True
        self.news.set()


class Hub:
    """The streams of one event loop, and the thread that asks the database for them."""

    def __init__(self, using: str) -> None:
        self._using = using
        self._watches: set[Subscription] = set()
        self._loop = asyncio.get_running_loop()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="agent-sessions-follow")
        self._task: asyncio.Task[None] | None = None

    @asynccontextmanager
    async def watch(
        self, session_id: UUID, reader: Reader, seen: int
    ) -> AsyncIterator[Subscription]:
        """Give a watch that learns of news behind *seen* until the block ends."""
        watch = Subscription(session_id, reader, seen)
        self._watches.add(watch)
        if self._task is None:
            self._open()
        try:
            yield watch
        finally:
            self._watches.discard(watch)
            if not self._watches:
                self._close()

    async def ask(self, question: Callable[[], Result]) -> Result:
        """Run database code in the hub's thread."""

        def answer() -> Result:
            try:
                return question()
            except DatabaseFailure:
                # The connection may be what failed; the next question gets a new one.
                connections.close_all()
                raise

        return await self._loop.run_in_executor(self._thread, answer)

    async def _poll(self) -> None:
        looked = self._loop.time()
        while True:
            # While the database is away there is no news; the streams live on.
            with suppress(DatabaseFailure):
                await self._look(list(self._watches))
                if self._loop.time() - looked >= settings.EVENTS_KEEP_ALIVE_SECONDS:
                    await self._look_at_rights(list(self._watches))
                    looked = self._loop.time()
            await asyncio.sleep(settings.EVENTS_POLL_SECONDS)

    async def _look(self, watches: list[Subscription]) -> None:
        wanted = {watch.session_id for watch in watches}
        sessions = Session.objects.using(self._using).filter(pk__in=wanted)
        rows = sessions.values_list("pk", "user_id", "last_sequence")
        found = await self.ask(lambda: {(pk, owner): last for pk, owner, last in rows})
        for watch in watches:
            watch.learn(found.get((watch.session_id, watch.reader.owner_id)))

    async def _look_at_rights(self, watches: list[Subscription]) -> None:
        readers = {watch.reader for watch in watches}
        permitted = await self.ask(lambda: who_still_may(readers))
        for watch in watches:
            if watch.reader not in permitted:
                watch.end()

    def _open(self) -> None:
        self._task = asyncio.create_task(self._poll())
        self._stop_listening = notifications.listen(self._on_news)
        message_added.connect(self._on_message)
        sessions_deleted.connect(self._on_deletion)

    def _close(self) -> None:
        _hubs.pop((self._loop, self._using), None)
        self._stop_listening()
        message_added.disconnect(self._on_message)
        sessions_deleted.disconnect(self._on_deletion)
        if self._task is not None:
            self._task.cancel()
        self._thread.submit(connections.close_all)
        self._thread.shutdown(wait=False)

    def _on_message(
        self, session_id: UUID, messages: Sequence[Message], using: str, **kwargs: Any
    ) -> None:
        self._on_news(session_id, messages[-1].sequence, using)

    def _on_deletion(self, session_ids: Iterable[UUID], using: str, **kwargs: Any) -> None:
        self._wake(set(session_ids), using, None)

    def _on_news(self, session_id: UUID, latest: int, using: str) -> None:
        self._wake({session_id}, using, latest)

    def _wake(self, session_ids: set[UUID], using: str, latest: int | None) -> None:
        # It only wakes: what there is, the database says.
        def tell() -> None:
            for watch in self._watches:
                if watch.session_id in session_ids and (latest is None or latest > watch.seen):
                    watch.news.set()

        if using == self._using:
            # A loop that has been closed has no streams.
            with suppress(RuntimeError):
                self._loop.call_soon_threadsafe(tell)


_hubs: dict[tuple[asyncio.AbstractEventLoop, str], Hub] = {}


def hub(using: str) -> Hub:
    """Return the hub of the running event loop; it lives as long as it has streams."""
    key = (asyncio.get_running_loop(), using)
    if key not in _hubs:
        _hubs[key] = Hub(using)
    return _hubs[key]
