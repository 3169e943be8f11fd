"""The objects that ``cached`` makes of generator functions, whose chunks are kept."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing, suppress
from typing import Final, Generic, ParamSpec, TypeVar

from cache_layer.aliases import Value
from cache_layer.backends import Lease, UnreadableValueError
from cache_layer.functions.compute import CachedCall, Effects, Outcome, adrive, drive
from cache_layer.functions.streams import LoopRun, RunIsOver, ThreadRun, join
from cache_layer.functions.wrappers import AsyncCached, CachedFunction

P = ParamSpec("P")
T = TypeVar("T")

_ATTEMPTS: Final = 4


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
    return found, None


def _kept(call: CachedCall, found: Value) -> list[Value] | None:
    """Return the chunks that a stored value stands for; None where it stands for none."""
    if not isinstance(found, list):
        return None
    codec = call.factory.context.codec
    try:
        chunks = [codec.decode(codec.from_item(item)) for item in found]
    except UnreadableValueError:
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
        joined = None
        for _attempt in range(_ATTEMPTS):
            found = drive(_look(call), call.backend)
            with suppress(RunIsOver):
                joined = join(ThreadRun, call, found) if isinstance(found, Lease) else None
                break
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
        joined, loop = None, asyncio.get_running_loop()
        for _attempt in range(_ATTEMPTS):
            found = await adrive(_look(call), call.backend)
            with suppress(RunIsOver):
                joined = join(LoopRun, call, found, loop) if isinstance(found, Lease) else None
                break
        if isinstance(found, list):
            for chunk in found:
                yield chunk
            return
        run: AsyncGenerator[T, None]
        run = joined[0].read(joined[1]) if joined else call.spec.function(*call.args, **call.kwargs)
        async with aclosing(run) as chunks:
            async for chunk in chunks:
                yield chunk
