"""Processes that write at the same time, connected before the measurement begins."""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import time
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.pool import Pool
from multiprocessing.synchronize import Event
from typing import Any

from benchmarks.sessions.database import Dsn, configure
from benchmarks.sessions.peers import Peer, connect

#: Longest wait for a piece of work, in seconds.
LIMIT = 120.0

#: In a worker: the stores, connected.
peers: dict[str, Peer] = {}
_done: Event


class Workers:
    """Writers, and one process more."""

    def __init__(self, pool: Pool, done: Event, writers: int) -> None:
        self._pool, self._done, self.writers = pool, done, writers

    def together(
        self, work: Callable[..., Any], calls: Sequence[tuple[Any, ...]]
    ) -> tuple[list[Any], float]:
        """Call *work* in all writers at once; return the answers and the seconds."""
        start = time.time() + 0.3
        jobs = [self._pool.apply_async(_at, (start, work, *call)) for call in calls]
        answers = [job.get(LIMIT) for job in jobs]
        return [answer for answer, _ in answers], max(end for _, end in answers) - start

    @contextlib.contextmanager
    def beside(self, work: Callable[..., Any], *args: Any) -> Iterator[list[Any]]:
        """Run *work* in one process until the block ends; its answer is then in the list."""
        self._done.clear()
        job = self._pool.apply_async(work, args)
        answers: list[Any] = []
        try:
            yield answers
        finally:
            self._done.set()
            answers.append(job.get(LIMIT))


@contextlib.contextmanager
def workers(dsn: Dsn, names: Sequence[str], writers: int) -> Iterator[Workers]:
    # Forked from a process that has imported everything: in each worker anew, the imports of
    # the frameworks would take longer than the measurement.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["benchmarks.sessions.preload"])
    done = context.Event()
    with context.Pool(writers + 1, _start, (dsn, list(names), done)) as pool:
        # Each of these waits, so that each worker takes one and connects.
        pool.map(time.sleep, [0.5] * (writers + 1), chunksize=1)
        yield Workers(pool, done, writers)


def over() -> bool:
    """In a worker: return whether the block of ``beside`` has ended."""
    return _done.is_set()


def _start(dsn: Dsn, names: list[str], done: Event) -> None:
    global _done
    _done = done
    configure(dsn["dbname"])
    asyncio.set_event_loop(asyncio.new_event_loop())
    peers.update(connect(names, dsn)[0])


def _at(start: float, work: Callable[..., Any], *args: Any) -> tuple[Any, float]:
    time.sleep(max(0.0, start - time.time()))
    return work(*args), time.time()
