"""Where results are renewed: on a few threads, or as a task of the caller's event loop.

Nothing of the caller is there: no transaction, no context variable, no database connection.
"""

from __future__ import annotations

import asyncio
import logging
import os
import queue
import threading
from collections.abc import Callable, Coroutine
from contextvars import Context
from typing import Any, Final

from asgiref.sync import ThreadSensitiveContext, sync_to_async
from django.db import connections

logger = logging.getLogger("cache_layer")

#: Threads that work at the same time.
THREADS: Final = 4
#: Jobs under way, whether they run or wait for a thread; further ones are left for later.
MOST: Final = 100

Key = tuple[str, bytes]


class Background:
    """Jobs by key; of those with the same key one at a time is under way."""

    def __init__(self) -> None:
        # Reentrant: a finalizer may come here while this thread holds it.
        self._lock = threading.RLock()
        self.under_way: set[Key] = set()
        self._jobs: queue.SimpleQueue[tuple[Key, Callable[[], Any]]] = queue.SimpleQueue()
        self._threads = 0
        self._idle = 0
        # A loop has weak references to its tasks only.
        self._tasks: dict[asyncio.Task[None], Key] = {}

    def run(self, key: Key, job: Callable[[], Any]) -> None:
        """Do a job on a thread; not at all, if too many are under way."""
        if not self._begin(key):
            return
        with self._lock:
            needed = self._idle <= self._jobs.qsize() and self._threads < THREADS
            self._threads += needed
        try:
            if needed:
                # A daemon: nobody waits for it when the process ends.
                threading.Thread(target=self._work, name="cache-layer-renewal", daemon=True).start()
        except RuntimeError:
            # The interpreter is about to end, or there are too many threads.
            with self._lock:
                self._threads -= 1
            self._end(key)
        else:
            self._jobs.put((key, job))

    def start(self, key: Key, job: Callable[[], Coroutine[Any, Any, Any]]) -> None:
        """Do a job as a task of the running loop, which cancels it when it ends; see ``run()``."""
        for task in [task for task in list(self._tasks) if task.get_loop().is_closed()]:
            self._forget(task)
        if not self._begin(key):
            return
        loop = asyncio.get_running_loop()
        task = loop.create_task(_await(job), context=Context())
        self._tasks[task] = key
        task.add_done_callback(self._forget)

    def after_fork(self) -> None:
        """Begin empty in a forked child, where the threads are not."""
        Background.__init__(self)

    def _begin(self, key: Key) -> bool:
        with self._lock:
            if key in self.under_way or len(self.under_way) >= MOST:
                return False
            self.under_way.add(key)
            return True

    def _end(self, key: Key) -> None:
        with self._lock:
            self.under_way.discard(key)

    def _work(self) -> None:
        while True:
            with self._lock:
                self._idle += 1
            key, job = self._jobs.get()
            with self._lock:
                self._idle -= 1
            try:
                Context().run(_alone, job)
            except BaseException:
                logger.exception("Renewing a result failed.")
            finally:
                self._end(key)
            del job

    def _forget(self, task: asyncio.Task[None]) -> None:
        key = self._tasks.pop(task, None)
        if key is not None:
            self._end(key)


def _alone(job: Callable[[], Any]) -> None:
    try:
        job()
    finally:
        connections.close_all()


async def _await(job: Callable[[], Coroutine[Any, Any, Any]]) -> None:
    try:
        # Its database calls happen on a thread, and so over a connection, of their own.
        async with ThreadSensitiveContext():
            try:
                await job()
            finally:
                await sync_to_async(connections.close_all)()
    except Exception:
        logger.exception("Renewing a result failed.")


background = Background()

os.register_at_fork(after_in_child=background.after_fork)
