"""Refreshes a result in the background, while the old one is still served.

A refresh runs on one of a few threads, or as a task of the caller's event loop, without the
caller's transaction, context variables and database connection.
"""

from __future__ import annotations

import asyncio
import logging
import os
import queue
import threading
from collections.abc import Callable, Coroutine
from contextvars import Context
from typing import Final

from asgiref.sync import ThreadSensitiveContext, sync_to_async
from django.db import connections

from cache_layer.backends import Operation, StaleValue
from cache_layer.conf import settings
from cache_layer.exceptions import UnsupportedValueError
from cache_layer.functions.compute import CachedCall, Effects, Outcome, adrive, drive

logger = logging.getLogger("cache_layer")

#: Threads that work at the same time.
THREADS: Final = 4
#: Largest number of refreshes that run or wait for a thread; further ones are skipped.
MAX_PENDING: Final = 100

#: A result's full key, and the beginning of the envelope to be replaced.
RefreshKey = tuple[str, bytes]


class Refresh:
    """Refreshes one result, unless another caller of any process is doing so."""

    def __init__(self, call: CachedCall, stale: StaleValue) -> None:
        self._call = call
        self._spec = call.spec
        self._factory = call.factory
        self._result = call.result
        self._stale = stale

    @property
    def identity(self) -> RefreshKey:
        """The identity of the refresh: of equal ones, a process runs one at a time."""
        return self._result.key, self._stale.identity

    def do(self) -> None:
        """Refresh, blocking."""
        drive(self.steps(), self._call.backend)

    async def ado(self) -> None:
        """Refresh, awaiting."""
        await adrive(self.steps(), self._call.backend)

    def steps(self) -> Effects[Outcome]:
        """Call the function and store its result, unless another caller is doing so."""
        factory, result, stale = self._factory, self._result, self._stale
        if not (yield factory.claim_refresh(result, stale)):
            return None, None
        try:
            value, error = yield self._call.compute()
        except GeneratorExit:
            raise
        except BaseException:
            # Cancelled: the next caller begins anew.
            yield factory.release_refresh(result, stale, 0)
            raise
        if error is None:
            self._spec.count_cost("spent", value)
            self._spec.refresh_succeeded()
            yield self._replacing(value)
        else:
            kept = self._spec.options.fail_safe or stale.is_fresh
            self._spec.refresh_failed(error, kept=kept)
            if kept:
                yield factory.release_refresh(result, stale, settings.REFRESH_PAUSE)
            else:
                yield factory.delete_stale(result, stale)
        return None, None

    def _replacing(self, value: object) -> Operation[bool]:
        if value is not None or self._spec.options.cache_none:
            try:
                return self._factory.store_refreshed(self._result, self._stale, value)
            except UnsupportedValueError as error:
                self._spec.warn_once("returned a value that cannot be stored", error)
        return self._factory.delete_stale(self._result, self._stale)


class BackgroundRefreshes:
    """Runs refreshes by key, at most one at a time for each key."""

    def __init__(self) -> None:
        # Reentrant: a finalizer may take the lock while this thread holds it.
        self._lock = threading.RLock()
        self.under_way: set[RefreshKey] = set()
        self._jobs: queue.SimpleQueue[tuple[RefreshKey, Callable[[], object]]] = queue.SimpleQueue()
        self._threads = 0
        self._idle = 0
        # A loop has weak references to its tasks only.
        self._tasks: dict[asyncio.Task[None], RefreshKey] = {}

    def run(self, key: RefreshKey, job: Callable[[], object]) -> None:
        """Run a job on a thread; skip it if too many are running."""
        if not self._begin(key):
            return
        with self._lock:
            needed = self._idle <= self._jobs.qsize() and self._threads < THREADS
            self._threads += needed
        try:
            if needed:
                # A daemon thread: the process does not wait for it at its end.
                threading.Thread(target=self._work, name="cache-layer-refresh", daemon=True).start()
        except RuntimeError:
            # The interpreter is about to end, or there are too many threads.
            with self._lock:
                self._threads -= 1
            self._end(key)
        else:
            self._jobs.put((key, job))

    def start(self, key: RefreshKey, job: Callable[[], Coroutine[None, None, object]]) -> None:
        """Run a job as a task of the running loop, whose end cancels it; see ``run()``."""
        for task in [task for task in list(self._tasks) if task.get_loop().is_closed()]:
            self._forget(task)
        if not self._begin(key):
            return
        loop = asyncio.get_running_loop()
        task = loop.create_task(_await_alone(job), context=Context())
        self._tasks[task] = key
        task.add_done_callback(self._forget)

    def after_fork(self) -> None:
        """Begin empty in a forked child, which has none of the threads."""
        BackgroundRefreshes.__init__(self)

    def _begin(self, key: RefreshKey) -> bool:
        with self._lock:
            if key in self.under_way or len(self.under_way) >= MAX_PENDING:
                return False
            self.under_way.add(key)
            return True

    def _end(self, key: RefreshKey) -> None:
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
                Context().run(_do_alone, job)
            except BaseException:
                logger.exception("Refreshing a result failed.")
            finally:
                self._end(key)
            del job

    def _forget(self, task: asyncio.Task[None]) -> None:
        key = self._tasks.pop(task, None)
        if key is not None:
            self._end(key)


def _do_alone(job: Callable[[], object]) -> None:
    try:
        job()
    finally:
        connections.close_all()


async def _await_alone(job: Callable[[], Coroutine[None, None, object]]) -> None:
    try:
        # Its database calls happen on a thread, and so over a connection, of their own.
        async with ThreadSensitiveContext():
            try:
                await job()
            finally:
                await sync_to_async(connections.close_all)()
    except Exception:
        logger.exception("Refreshing a result failed.")


background = BackgroundRefreshes()

os.register_at_fork(after_in_child=background.after_fork)
