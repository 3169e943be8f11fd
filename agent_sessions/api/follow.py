"""Following sessions: one look at the database serves all streams of a process.

Every open stream waits here for its session. While there are any, one thread with one database
connection asks about once in POLL_SECONDS which of the sessions have new messages. The database
is the only thing processes need to share.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from typing import TypeVar
from uuid import UUID

from django.db import Error as DatabaseFailure
from django.db import close_old_connections, connections

from agent_sessions.models import Session

POLL_SECONDS = 0.5

Result = TypeVar("Result")


class Watch:
    """What one stream knows of its session: the last sequence; None once it is deleted."""

    def __init__(self, session_id: UUID) -> None:
        self.session_id = session_id
        self.last_sequence: int | None = 0
        self.news = asyncio.Event()

    def learn(self, last_sequence: int | None) -> None:
        """Take note of the last sequence; wake the stream if it is another."""
        if last_sequence != self.last_sequence:
            self.last_sequence = last_sequence
            self.news.set()


class Hub:
    """The streams of one event loop, and the thread that asks the database for them."""

    def __init__(self, using: str) -> None:
        self._using = using
        self._watches: set[Watch] = set()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="agent-sessions-follow")
        self._task: asyncio.Task[None] | None = None

    @asynccontextmanager
    async def watch(self, session_id: UUID) -> AsyncIterator[Watch]:
        """Give a watch that learns of news until the block ends."""
        watch = Watch(session_id)
        self._watches.add(watch)
        if self._task is None:
            self._task = asyncio.create_task(self._poll())
        try:
            yield watch
        finally:
            self._watches.discard(watch)
            if not self._watches:
                self._close()

    async def ask(self, question: Callable[[], Result]) -> Result:
        """Run database code in the hub's thread."""

        def answer() -> Result:
            close_old_connections()
            return question()

        return await asyncio.get_running_loop().run_in_executor(self._thread, answer)

    async def _poll(self) -> None:
        while True:
            watches = list(self._watches)
            ids = {watch.session_id for watch in watches}
            # While the database is away there is no news; the streams live on.
            with suppress(DatabaseFailure):
                found = await self.ask(lambda ids=ids: self._last_sequences(ids))  # type: ignore[misc]
                for watch in watches:
                    watch.learn(found.get(watch.session_id))
            await asyncio.sleep(POLL_SECONDS)

    def _last_sequences(self, ids: set[UUID]) -> dict[UUID, int]:
        sessions = Session.objects.using(self._using).filter(pk__in=ids)
        return dict(sessions.values_list("pk", "last_sequence"))

    def _close(self) -> None:
        _hubs.pop((asyncio.get_running_loop(), self._using), None)
        if self._task is not None:
            self._task.cancel()
        self._thread.submit(connections.close_all)
        self._thread.shutdown(wait=False)


_hubs: dict[tuple[asyncio.AbstractEventLoop, str], Hub] = {}


def hub(using: str) -> Hub:
    """Return the hub of the running event loop; it lives as long as it has streams."""
    return _hubs.setdefault((asyncio.get_running_loop(), using), Hub(using))
