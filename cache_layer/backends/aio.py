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

from cache_layer.backends.aio_client import connector
from cache_layer.backends.channels import called_back
from cache_layer.backends.failures import translated
from cache_layer.backends.line import Line
from cache_layer.backends.operations.base import Command, Operation, Read, Single, Steps
from cache_layer.backends.scripts import Script
from cache_layer.backends.transport import Transport, checked, refused, unknown_scripts
from cache_layer.breaker import Breaker

T = TypeVar("T")


class LoopEntry:
    """What one event loop has; without a line, the synchronous client does it, on a thread."""

    __slots__ = ("callbacks", "guard", "line")

    def __init__(self, line: Line | None, callbacks: dict[Any, Any]) -> None:
        self.line = line
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
            line = entry.line
            if line is None:
                return await asyncio.to_thread(self._transport.run, operation)
            if isinstance(operation, Single):
                single: Single[T] = operation
                command = single.command()
                reply = await line.send(command)
                if isinstance(reply, NoScriptError):
                    reply = await line.send(Script.in_full(command))
                if isinstance(reply, Exception):
                    return refused(single, reply)
                callback = entry.callbacks.get(command[0])
                return single.parse(reply if callback is None else callback(reply))
            # What else the loop has to do counts in as well, and is not Redis's fault.
            deadline = math.inf if operation.long else self._transport.deadline(2)
            return await self._run_steps(entry, line, operation.steps(), deadline)

    def sent(self, operation: Operation[T]) -> asyncio.Future[Any] | None:
        """Send a read of one command; return what will be its reply, for ``received()``.

        None where it takes ``run()``, which costs another coroutine.
        """
        if operation.writes or not isinstance(operation, Read):
            return None
        entry = self._loops.get(asyncio.get_running_loop())
        return None if entry is None or entry.line is None else entry.line.send(operation.command())

    def received(self, operation: Operation[T], reply: Any) -> T:
        """Return the result of what was ``sent()``; raises as ``run()`` does."""
        read = cast("Read[T]", operation)
        # GET and MGET: redis-py makes nothing else of their replies.
        if not isinstance(reply, Exception):
            return read.parse(reply)
        with translated:
            return refused(read, reply)

    def start_again(self, breaker: Breaker) -> None:
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
            if entry is not None and entry.line is not None:
                entry.line.abandon()
        transport = self._transport
        client = transport.client.get_client(write=True)
        connect = connector(client, transport.server.agreet)
        line = Line(connect, transport.timeout, self._breaker) if connect else None
        entry = LoopEntry(line, dict(client.response_callbacks))
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
            if entry.line is not None:
                await entry.line.close()

    async def _run_steps(self, entry: LoopEntry, line: Line, steps: Steps[T], deadline: float) -> T:
        try:
            commands = next(steps)
            while True:
                commands = steps.send(await self._replies(entry, line, commands))
                if time.monotonic() > deadline:
                    raise TimeoutError("one call took several slow replies")
        except StopIteration as stop:
            result: T = stop.value
            return result

    @staticmethod
    async def _replies(entry: LoopEntry, line: Line, commands: list[Command]) -> list[Any]:
        replies = await line.send_all(commands)
        unknown = unknown_scripts(commands, replies)
        if unknown:
            again = await line.send_all([Script.in_full(commands[index]) for index in unknown])
            for index, reply in zip(unknown, again, strict=True):
                replies[index] = reply
        return checked(called_back(entry.callbacks, commands, replies))
