"""Following sessions: one look at the database serves all streams of a process.

Every open stream waits here for its session. A message that this process appends wakes its
streams at once, by signal. For what other processes append one thread with one database
connection asks, while there are streams, every AGENT_SESSIONS_EVENTS_POLL_SECONDS which of the
sessions have new messages: one query by primary key, however many streams there are. The
database is the only thing processes need to share.

Why not LISTEN and NOTIFY: PostgreSQL holds one lock for the whole cluster from a NOTIFY until
its transaction is on the disk, so that commits cannot share a write. Eight processes appending
to sessions of their own made 514 to 848 appends a second without it, 158 to 206 with it in the
statement of the append, and 369 to 581 with it in a transaction of its own that does not wait
for the disk (PostgreSQL 15, two cores). Every append would pay for streams that few sessions
have; and behind a pooler of transactions a LISTEN hears nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from typing import Any, TypeVar
from uuid import UUID

from django.db import Error as DatabaseFailure
from django.db import connections

from agent_sessions.conf import settings
from agent_sessions.models import Session
from agent_sessions.signals import message_added, sessions_deleted

Result = TypeVar("Result")


class Watch:
    """What one stream has sent of its session, and what there is of it."""

    def __init__(self, session_id: UUID, seen: int) -> None:
        self.session_id = session_id
        self.seen = seen
        """The sequence up to which the stream has looked."""
        self.latest: int | None = 0
        """The last sequence when the database was asked; None once the session is deleted."""
        self.news = asyncio.Event()

    def learn(self, latest: int | None) -> None:
        """Take note of the last sequence; wake the stream if it has not seen it."""
        self.latest = latest
        if latest is None or latest > self.seen:
            self.news.set()


class Hub:
    """The streams of one event loop, and the thread that asks the database for them."""

    def __init__(self, using: str) -> None:
        self._using = using
        self._watches: set[Watch] = set()
        self._loop = asyncio.get_running_loop()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="agent-sessions-follow")
        self._task: asyncio.Task[None] | None = None

    @asynccontextmanager
    async def watch(self, session_id: UUID, seen: int) -> AsyncIterator[Watch]:
        """Give a watch that learns of news behind *seen* until the block ends."""
        watch = Watch(session_id, seen)
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
        while True:
            watches = list(self._watches)
            ids = {watch.session_id for watch in watches}
            # While the database is away there is no news; the streams live on.
            with suppress(DatabaseFailure):
                found = await self.ask(lambda ids=ids: self._last_sequences(ids))  # type: ignore[misc]
                for watch in watches:
                    watch.learn(found.get(watch.session_id))
            await asyncio.sleep(settings.EVENTS_POLL_SECONDS)

    def _last_sequences(self, ids: set[UUID]) -> dict[UUID, int]:
        sessions = Session.objects.using(self._using).filter(pk__in=ids)
        return dict(sessions.values_list("pk", "last_sequence"))

    def _open(self) -> None:
        self._task = asyncio.create_task(self._poll())
        message_added.connect(self._on_message)
        sessions_deleted.connect(self._on_deletion)

    def _close(self) -> None:
        _hubs.pop((self._loop, self._using), None)
        message_added.disconnect(self._on_message)
        sessions_deleted.disconnect(self._on_deletion)
        if self._task is not None:
            self._task.cancel()
        self._thread.submit(connections.close_all)
        self._thread.shutdown(wait=False)

    def _on_message(self, session_id: UUID, using: str, **kwargs: Any) -> None:
        self._on_change([session_id], using)

    def _on_deletion(self, session_ids: Iterable[UUID], using: str, **kwargs: Any) -> None:
        self._on_change(session_ids, using)

    def _on_change(self, session_ids: Iterable[UUID], using: str) -> None:
        if using == self._using:
            # A loop that has been closed has no streams.
            with suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._wake, set(session_ids))

    def _wake(self, session_ids: set[UUID]) -> None:
        for watch in self._watches:
            if watch.session_id in session_ids:
                watch.news.set()


_hubs: dict[tuple[asyncio.AbstractEventLoop, str], Hub] = {}


def hub(using: str) -> Hub:
    """Return the hub of the running event loop; it lives as long as it has streams."""
    key = (asyncio.get_running_loop(), using)
    if key not in _hubs:
        _hubs[key] = Hub(using)
    return _hubs[key]
