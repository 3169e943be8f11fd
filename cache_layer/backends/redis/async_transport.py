"""Carries operations to Redis from event loops.

A connection belongs to the loop it was made in. Each loop has one of its own, which all its tasks
share, closed when the loop shuts its async generators down, as ``asyncio.run`` and
``async_to_sync`` do before they close a loop.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncGenerator
from typing import Any, TypeVar, cast

from redis.exceptions import NoScriptError

from cache_layer.backends.operations.base import Command, Operation, Read, Single, Steps
from cache_layer.backends.operations.lua import Script
from cache_layer.backends.redis.async_connect import connector
from cache_layer.backends.redis.command_queue import CommandQueue
from cache_layer.backends.redis.errors import translated
from cache_layer.backends.redis.pool import called_back
from cache_layer.backends.redis.transport import Transport, checked, refused, unknown_scripts
from cache_layer.breaker import Breaker

T = TypeVar("T")


class LoopEntry:
    """What one event loop has; without a queue, the synchronous client does it, on a thread."""

    __slots__ = ("callbacks", "guard", "queue")

    def __init__(self, queue: CommandQueue | None, callbacks: dict[Any, Any]) -> None:
        self.queue = queue
        #: What the synchronous client makes of replies, by the name of the command.
        self.callbacks = callbacks
        self.guard: AsyncGenerator[None] | None = None


class AsyncTransport:
    """One per process and alias; every event loop gets a connection of its own."""

    def __init__(self, transport: Transport, breaker: Breaker) -> None:
        self._transport = transport
        self._breaker = breaker
        self._loops: dict[asyncio.AbstractEventLoop, LoopEntry] = {}
        self._inherited: list[dict[asyncio.AbstractEventLoop, LoopEntry]] = []

    async def run(self, operation: Operation[T]) -> T:
        """See ``Transport.run``."""
        with translated:
            entry = self._loops.get(asyncio.get_running_loop()) or await self._open()
            queue = entry.queue
            if queue is None:
                return await asyncio.to_thread(self._transport.run, operation)
            if isinstance(operation, Single):
                single: Single[T] = operation
                command = single.command()
                reply = await queue.send(command)
                if isinstance(reply, NoScriptError):
                    reply = await queue.send(Script.in_full(command))
                if isinstance(reply, Exception):
                    return refused(single, reply)
                callback = entry.callbacks.get(command[0])
                return single.parse(reply if callback is None else callback(reply))
            # What else the loop has to do counts in as well, and is not Redis's fault.
            deadline = math.inf if operation.long else self._transport.deadline(2)
            return await self._run_steps(entry, queue, operation.steps(), deadline)

    def sent(self, operation: Operation[T]) -> asyncio.Future[Any] | None:
        """Send a read of one command; return what will be its reply, for ``received()``.

        None where it takes ``run()``, which costs another coroutine.
        """
        if operation.writes or not isinstance(operation, Read):
            return None
        entry = self._loops.get(asyncio.get_running_loop())
        return (
            None if entry is None or entry.queue is None else entry.queue.send(operation.command())
        )

    def received(self, operation: Operation[T], reply: Any) -> T:
        """Return the result of what was ``sent()``; raises as ``run()`` does."""
        read = cast("Read[T]", operation)
        # GET and MGET: redis-py makes nothing else of their replies.
        if not isinstance(reply, Exception):
            return read.parse(reply)
        with translated:
            return refused(read, reply)

    def after_fork(self, breaker: Breaker) -> None:
        """Forget the parent's connections in a forked child.

        They are kept from being collected: closing them would take the sockets off the selector
        that the parent still uses.
        """
        self._breaker = breaker
        self._inherited.append(self._loops)
        self._loops = {}

    async def _open(self) -> LoopEntry:
        loop = asyncio.get_running_loop()
        for closed in [other for other in list(self._loops) if other.is_closed()]:
            entry = self._loops.pop(closed, None)
            if entry is not None and entry.queue is not None:
                entry.queue.abandon()
        transport = self._transport
        client = transport.client.get_client(write=True)
        connect = connector(client, transport.server.ahandshake)
        queue = CommandQueue(connect, transport.timeout, self._breaker) if connect else None
        entry = LoopEntry(queue, dict(client.response_callbacks))
        self._loops[loop] = entry
        entry.guard = self._close_with_loop(loop, entry)
        await anext(entry.guard)
        return entry

    async def _close_with_loop(
        self, loop: asyncio.AbstractEventLoop, entry: LoopEntry
    ) -> AsyncGenerator[None]:
        try:
            yield
        finally:
            self._loops.pop(loop, None)
            if entry.queue is not None:
                await entry.queue.close()

    async def _run_steps(
        self, entry: LoopEntry, queue: CommandQueue, steps: Steps[T], deadline: float
    ) -> T:
        try:
            commands = next(steps)
            while True:
                commands = steps.send(await self._replies(entry, queue, commands))
                if time.monotonic() > deadline:
                    raise TimeoutError("one call took several slow replies")
        except StopIteration as stop:
            result: T = stop.value
            return result

    @staticmethod
    async def _replies(entry: LoopEntry, queue: CommandQueue, commands: list[Command]) -> list[Any]:
        replies = await queue.send_all(commands)
        unknown = unknown_scripts(commands, replies)
        if unknown:
            again = await queue.send_all([Script.in_full(commands[index]) for index in unknown])
            for index, reply in zip(unknown, again, strict=True):
                replies[index] = reply
        return checked(called_back(entry.callbacks, commands, replies))
