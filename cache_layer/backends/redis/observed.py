"""Transports that let an observer see each call to Redis."""

from __future__ import annotations

import asyncio
from typing import Any, TypeVar

from cache_layer.aliases import Observe
from cache_layer.backends.operations.base import Operation, Reply
from cache_layer.backends.redis.async_transport import AsyncTransport
from cache_layer.backends.redis.routed import RedisCommand
from cache_layer.backends.redis.transport import Transport

T = TypeVar("T")


class ObservedTransport(Transport):
    """A ``Transport`` whose calls are observed."""

    def __init__(self, observe: Observe, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._observe = observe

    def run(self, operation: Operation[T]) -> T:
        """See ``Transport.run``."""
        with self._observe(_name(operation)):
            return super().run(operation)


class ObservedAsyncTransport(AsyncTransport):
    """An ``AsyncTransport`` whose calls are observed."""

    def __init__(self, observe: Observe, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._observe = observe

    async def run(self, operation: Operation[T]) -> T:
        """See ``AsyncTransport.run``."""
        with self._observe(_name(operation)):
            return await super().run(operation)

    def sent(self, operation: Operation[T]) -> asyncio.Future[Reply] | None:
        """Return None, so that ``run()`` is called."""
        return None


def _name(operation: Operation[T]) -> str:
    if isinstance(operation, RedisCommand):
        return operation.name
    return type(operation).__name__
