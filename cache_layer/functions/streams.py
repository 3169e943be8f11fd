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
from collections.abc import AsyncGenerator, Generator, Iterator
from contextlib import aclosing
from contextvars import ContextVar
from typing import Final, Generic, ParamSpec, TypeVar, cast

from cache_layer.aliases import Value
from cache_layer.backends import Lease, Operation, UnreadableValueError
from cache_layer.conf import settings
from cache_layer.exceptions import UnsupportedValueError
from cache_layer.functions.compute import CachedCall, Effects, Outcome, adrive, drive
from cache_layer.functions.wrappers import AsyncCached, CachedFunction

P = ParamSpec("P")
T = TypeVar("T")

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
                return call.factory.fill(call.result, chunks, self._lease)
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
    """
    key = lease.token, loop
    with _lock:
        run = _runs.get(key)
        if run is None:
            run = _runs[key] = kind(call, lease)
        if run.error is not None or run.first is None or key in _making.get():
            return None
        run.readers += 1
        return cast("R", run), run.first


def _leave(run: _Run) -> bool:
    """Count a reader less; return whether that was the last one of a run that goes on."""
    with _lock:
        run.readers -= 1
        if run.readers or run.done:
            return False
        _runs.pop(run.key, None)
        return True


def _forget(run: _Run) -> None:
    with _lock:
        if _runs.get(run.key) is run:
            del _runs[run.key]


def _left() -> Exception:
    return RuntimeError("The generator was closed before its end.")


# Reentrant: a finalizer may come here while this thread holds it.
_lock = threading.RLock()
_runs: dict[_RunKey, _Run] = {}
#: The runs that the current context is making chunks of, so that none waits for itself.
_making: ContextVar[tuple[_RunKey, ...]] = ContextVar("making", default=())


def _after_fork() -> None:
    # The threads and loops that read the parent's runs do not exist here.
    global _lock
    _lock = threading.RLock()
    _runs.clear()


os.register_at_fork(after_in_child=_after_fork)


def _look(call: CachedCall) -> Effects[Outcome]:
    """Return the kept chunks, or the lease to run under, or None where a run cannot be kept."""
    factory, result = call.factory, call.result
    read = factory.read(result)
    if (kept := _kept(call, (yield read))) is not None:
        return kept, None
    claim = factory.claim(result, read.unreadable)
    try:
        found = yield claim
    except GeneratorExit:
        raise
    except BaseException:
        # Cancelled before the reply was there.
        if claim.claimed is not None:
            yield factory.release(result, claim.claimed)
        raise
    if not isinstance(found, Lease):
        return _kept(call, found), None
    if not found.owner and (kept := _kept(call, (yield factory.read(result)))) is not None:
        # The run under this lease was completed meanwhile.
        return kept, None
    return found, None


def _kept(call: CachedCall, found: Value) -> list[Value] | None:
    """Return the chunks that a stored value stands for; None where it stands for none."""
    if not isinstance(found, list):
        return None
    decode = call.factory.context.codec.decode
    try:
        chunks = [decode(data) for data in found]
    except (TypeError, UnreadableValueError):
        # Something else stored it.
        return None
    call.spec.count_cost("saved", chunks)
    return chunks


class CachedGenerator(CachedFunction[P, Iterator[T]]):
    """A generator function whose chunks are kept; called like the function."""

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Iterator[T]:
        """Return a generator of the kept chunks, or of those that the function yields."""
        call = self._keepable(args, kwargs)
        if call is None:
            return self._spec.function(*self._bound, *args, **kwargs)  # type: ignore[no-any-return]
        return self._chunks(call)

    def _chunks(self, call: CachedCall) -> Iterator[T]:
        found = drive(_look(call), call.backend)
        joined = join(ThreadRun, call, found) if isinstance(found, Lease) else None
        if joined is not None:
            yield from joined[0].read(joined[1])
        elif isinstance(found, list):
            yield from found
        else:
            yield from call.spec.function(*call.args, **call.kwargs)


class CachedAsyncGenerator(AsyncCached[P], Generic[P, T]):
    """An asynchronous generator function whose chunks are kept; called like the function."""

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> AsyncGenerator[T, None]:
        """See ``CachedGenerator.__call__``."""
        call = self._keepable(args, kwargs)
        if call is None:
            return self._spec.function(*self._bound, *args, **kwargs)  # type: ignore[no-any-return]
        return self._chunks(call)

    async def refresh(self, *args: P.args, **kwargs: P.kwargs) -> AsyncGenerator[T, None]:
        """Forget the chunks of a call; yield those of a new one, and keep them."""
        if invalidation := self._invalidation(args, kwargs):
            await invalidation.awaited()
        async with aclosing(self(*args, **kwargs)) as chunks:
            async for chunk in chunks:
                yield chunk

    async def _chunks(self, call: CachedCall) -> AsyncGenerator[T, None]:
        found = await adrive(_look(call), call.backend)
        if isinstance(found, list):
            for chunk in found:
                yield chunk
            return
        joined = None
        if isinstance(found, Lease):
            joined = join(LoopRun, call, found, asyncio.get_running_loop())
        run: AsyncGenerator[T, None]
        run = joined[0].read(joined[1]) if joined else call.spec.function(*call.args, **call.kwargs)
        async with aclosing(run) as chunks:
            async for chunk in chunks:
                yield chunk
