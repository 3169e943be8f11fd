"""Generators whose chunks are kept: replayed on a hit, and read along while they are made.

A run is one execution of the generator. All callers in this process who miss under the same lease
read the same run, each at their own pace; the first who needs the next chunk has it made. A run
that was completed is stored under its lease, so an invalidation meanwhile wins. A run that raised,
or that all its readers left, is not stored.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections import OrderedDict
from collections.abc import AsyncGenerator, Generator, Iterator
from contextlib import aclosing
from contextvars import ContextVar
from typing import Final, TypeVar, cast

from cache_layer.aliases import Value
from cache_layer.backends import Lease, Operation
from cache_layer.conf import settings
from cache_layer.exceptions import UnsupportedValueError
from cache_layer.functions.compute import CachedCall

_REMEMBERED: Final = 4096

#: The token of the lease, and the event loop of an awaited run.
_RunKey = tuple[bytes, asyncio.AbstractEventLoop | None]


class _Link:
    """One chunk of a run. A reader holds the last one it has read, and so the rest of the chain."""

    __slots__ = ("data", "following", "value")

    def __init__(self, value: Value = None, data: bytes | None = None) -> None:
        #: The chunk itself, where it cannot be encoded; all readers share it then.
        self.value = value
        self.data = data
        self.following: _Link | None = None


class _Run:
    """The chunks of one execution, and its lease.

    Args:
        call: The call that began it.
        lease: The lease under which the chunks are stored.
        loop: The event loop that an asynchronous generator runs in.
    """

    def __init__(
        self, call: CachedCall, lease: Lease, loop: asyncio.AbstractEventLoop | None
    ) -> None:
        self.key: Final = (lease.token, loop)
        self.done = False
        self.error: Exception | None = None
        self.readers = 0
        #: Where new readers begin. None once the chunks cannot be stored: then nobody joins any
        #: more, and a chunk that all readers have read is freed.
        self.first: _Link | None = _Link()
        self._last = self.first
        self._size = 0
        self._call = call
        self._lease = lease

    def append(self, value: Value) -> None:
        """Add a chunk, encoded, so that each reader gets an object of their own."""
        data = None
        if self.first is not None:
            try:
                data = self._call.factory.context.codec.encode(self._call.result.key, value)
            except UnsupportedValueError as error:
                self._call.spec.warn_once("yielded a chunk that cannot be stored", error)
            self._size += len(data or b"")
            if data is None or self._size > settings.MAX_VALUE_BYTES:
                self.first = None
        link = _Link(value if data is None else None, data)
        self._last.following = link
        self._last = link

    def chunk(self, link: _Link) -> Value:
        """Return the chunk of a link."""
        return link.value if link.data is None else self._decode(link.data)

    def ending(self) -> Operation[bool]:
        """Return the operation that stores the chunks of a completed run, or gives the lease back.

        The cost of a completed run is counted here.
        """
        call = self._call
        if self.done and self.error is None and self.first is not None:
            chunks: list[bytes] = []
            link = self.first.following
            while link is not None and link.data is not None:
                chunks.append(link.data)
                link = link.following
            if call.spec.options.cost is not None:
                call.spec.count_cost("spent", [*map(self._decode, chunks)])
            try:
                items = call.factory.context.codec.as_items(chunks)
                return call.factory.fill(call.result, items, self._lease)
            except UnsupportedValueError as error:
                call.spec.warn_once("yielded more than can be stored", error)
        return call.factory.release(call.result, self._lease)

    def _decode(self, data: bytes) -> Value:
        return self._call.factory.context.codec.decode(data)


class ThreadRun(_Run):
    """A run of a generator: the reader who needs the next chunk first makes it, in their thread."""

    def __init__(self, call: CachedCall, lease: Lease) -> None:
        super().__init__(call, lease, None)
        self._generator: Generator[Value, None, None] = call.spec.function(
            *call.args, **call.kwargs
        )
        self._turn = threading.Lock()

    def read(self, link: _Link) -> Iterator[Value]:
        """Yield the chunks behind a link.

        Raises:
            Exception: What the generator raised, whichever reader it was running for.
        """
        try:
            while (following := link.following or self._make(link)) is not None:
                link = following
                yield self.chunk(link)
            if self.error is not None:
                raise self.error
        finally:
            if _leave(self):
                with self._turn:
                    self._close()

    def _make(self, link: _Link) -> _Link | None:
        """Return the chunk behind a link, made now or by another reader; None at the end."""
        with self._turn:
            if link.following is not None or self.done:
                return link.following
            before = _making.set((*_making.get(), self.key))
            try:
                self.append(next(self._generator))
            except StopIteration:
                self._finish(None)
            except Exception as error:  # noqa: BLE001 - each reader raises it.
                self._finish(error)
            except BaseException:
                self._finish(_left())
                raise
            finally:
                _making.reset(before)
            return link.following

    def _close(self) -> None:
        if not self.done:
            try:
                self._generator.close()
            finally:
                self._finish(_left())

    def _finish(self, error: Exception | None) -> None:
        self.done, self.error = True, error
        try:
            self._call.backend.store.run(self.ending())
        finally:
            _forget(self)


class LoopRun(_Run):
    """A run of an asynchronous generator, in a task of its own that waits for readers."""

    def __init__(self, call: CachedCall, lease: Lease) -> None:
        super().__init__(call, lease, asyncio.get_running_loop())
        self._wanted = asyncio.Event()
        self._changed = asyncio.Event()
        # One task from the first chunk to the last: a generator may hold timeouts and task groups.
        self._task = asyncio.create_task(self._make())

    async def read(self, link: _Link) -> AsyncGenerator[Value, None]:
        """See ``ThreadRun.read()``."""
        try:
            while True:
                while link.following is None and not self.done:
                    self._wanted.set()
                    await self._changed.wait()
                if link.following is None:
                    break
                link = link.following
                yield self.chunk(link)
            if self.error is not None:
                raise self.error
        finally:
            if _leave(self):
                self._task.cancel()
            if self.readers == 0:
                # The generator has cleaned up when its last reader is told that it is closed.
                await asyncio.wait([self._task])

    async def _make(self) -> None:
        _making.set((*_making.get(), self.key))
        error: Exception | None = _left()
        try:
            call = self._call
            async with aclosing(call.spec.function(*call.args, **call.kwargs)) as chunks:
                await self._wanted.wait()
                async for chunk in chunks:
                    self._wanted.clear()
                    self.append(chunk)
                    self._wake()
                    await self._wanted.wait()
            error = None
        except Exception as raised:  # noqa: BLE001 - each reader raises it.
            error = raised
        finally:
            self.done, self.error = True, error
            try:
                await self._call.backend.store.arun(self.ending())
            finally:
                _forget(self)
                self._wake()

    def _wake(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()


R = TypeVar("R", ThreadRun, LoopRun)


def join(
    kind: type[R], call: CachedCall, lease: Lease, loop: asyncio.AbstractEventLoop | None = None
) -> tuple[R, _Link] | None:
    """Return the run under a lease, begun by the first caller, and where its chunks begin.

    None where the caller has to run the generator alone: it is called by the run itself, or the
    run has gone too far to be joined.

    Raises:
        RunIsOver: The run under this lease is over; what became of it is to be looked up.
    """
    key = lease.token, loop
    with _lock:
        run = _runs.get(key)
        if run is None:
            if key in _over:
                raise RunIsOver
            run = _runs[key] = kind(call, lease)
        if run.error is not None or run.first is None or key in _making.get():
            return None
        run.readers += 1
        return cast("R", run), run.first


class RunIsOver(Exception):  # noqa: N818 - not an error
    """The caller holds the lease of a run that is over."""


def _leave(run: _Run) -> bool:
    """Count a reader less; return whether that was the last one of a run that goes on."""
    with _lock:
        run.readers -= 1
        if run.readers or run.done:
            return False
        _remove(run)
        return True


def _forget(run: _Run) -> None:
    with _lock:
        _remove(run)


def _remove(run: _Run) -> None:
    _runs.pop(run.key, None)
    # A caller may get a lease and come here only after its run is over.
    _over[run.key] = None
    if len(_over) > _REMEMBERED:
        _over.popitem(last=False)


def _left() -> Exception:
    return RuntimeError("The generator was closed before its end.")


# Reentrant: a finalizer may come here while this thread holds it.
_lock = threading.RLock()
_runs: dict[_RunKey, _Run] = {}
_over: OrderedDict[_RunKey, None] = OrderedDict()
#: The runs that the current context is making chunks of, so that none waits for itself.
_making: ContextVar[tuple[_RunKey, ...]] = ContextVar("making", default=())


def _after_fork() -> None:
    # The threads and loops that read the parent's runs do not exist here.
    global _lock
    _lock = threading.RLock()
    _runs.clear()


os.register_at_fork(after_in_child=_after_fork)
