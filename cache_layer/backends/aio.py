"""Carries operations to Redis from event loops, with ``redis.asyncio``.

A client belongs to the loop it was made in. Each loop has its own, closed when the loop shuts its
async generators down, as ``asyncio.run`` and ``async_to_sync`` do before they close a loop.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncGenerator
from typing import Any, Final, TypeVar

from redis.exceptions import NoScriptError, ResponseError

from cache_layer.backends.aio_client import async_client, close_client
from cache_layer.backends.failures import CircuitOpenError, RedisUnavailableError, as_unavailable
from cache_layer.backends.operations.base import Command, Operation, Single, Steps
from cache_layer.backends.scripts import Script
from cache_layer.backends.transport import Transport, checked, unknown_scripts
from cache_layer.breaker import Breaker

T = TypeVar("T")

#: Connections of one loop, unless CONNECTION_POOL_KWARGS says otherwise; further calls wait.
MAX_CONNECTIONS: Final = 50


class LoopClient:
    """The client of one event loop; ``None``: the synchronous one, on a thread."""

    __slots__ = ("client", "guard", "slots")

    def __init__(self, client: Any, max_connections: int) -> None:
        self.client = client
        #: The pool raises when exhausted; waiting here instead lets a waiter see that the circuit
        #: opened meanwhile.
        self.slots = asyncio.Semaphore(max_connections)
        self.guard: AsyncGenerator[None] | None = None


class AsyncTransport:
    """One per process and alias; every event loop gets a client of its own."""

    def __init__(self, transport: Transport, breaker: Breaker) -> None:
        self._transport = transport
        self._breaker = breaker
        self._loops: dict[asyncio.AbstractEventLoop, LoopClient] = {}
        self._inherited: list[dict[asyncio.AbstractEventLoop, LoopClient]] = []

    async def run(self, operation: Operation[T]) -> T:
        """See ``Transport.run``."""
        try:
            entry = self._loops.get(asyncio.get_running_loop()) or await self._open()
            async with entry.slots:
                if not self._breaker.closed:
                    raise CircuitOpenError
                if entry.client is None:
                    return await asyncio.to_thread(self._transport.run, operation)
                if isinstance(operation, Single):
                    return await self._run_single(entry.client, operation)
                # What else the loop has to do counts in as well, and is not Redis's fault.
                deadline = math.inf if operation.long else self._transport.deadline(2)
                return await self._run_steps(entry.client, operation.steps(), deadline)
        except RedisUnavailableError:
            raise
        except Exception as error:
            unavailable = as_unavailable(error)
            if unavailable is None:
                raise
            raise unavailable from error

    def start_again(self, breaker: Breaker) -> None:
        """Forget the parent's clients in a forked child.

        They are kept from being collected: closing them would take the sockets off the selector
        that the parent still uses.
        """
        self._breaker = breaker
        self._inherited.append(self._loops)
        self._loops = {}

    async def _open(self) -> LoopClient:
        loop = asyncio.get_running_loop()
        for closed in [other for other in list(self._loops) if other.is_closed()]:
            self._loops.pop(closed, None)
        client, limit = async_client(
            self._transport.client.get_client(write=True), self._transport.server.agreet
        )
        entry = LoopClient(client, limit or MAX_CONNECTIONS)
        self._loops[loop] = entry
        entry.guard = self._close_with_loop(loop, entry)
        await anext(entry.guard)
        return entry

    async def _close_with_loop(
        self, loop: asyncio.AbstractEventLoop, entry: LoopClient
    ) -> AsyncGenerator[None]:
        try:
            yield
        finally:
            self._loops.pop(loop, None)
            if entry.client is not None:
                await close_client(entry.client)

    @staticmethod
    async def _run_single(client: Any, operation: Single[T]) -> T:
        command = operation.command()
        try:
            try:
                reply = await client.execute_command(*command)
            except NoScriptError:
                reply = await client.execute_command(*Script.in_full(command))
        except ResponseError as error:
            if as_unavailable(error) is not None:
                raise
            return operation.rejected()
        return operation.parse(reply)

    async def _run_steps(self, client: Any, steps: Steps[T], deadline: float) -> T:
        try:
            commands = next(steps)
            while True:
                commands = steps.send(await self._replies(client, commands))
                if time.monotonic() > deadline:
                    raise TimeoutError("one call took several slow replies")
        except StopIteration as stop:
            result: T = stop.value
            return result

    @staticmethod
    async def _replies(client: Any, commands: list[Command]) -> list[Any]:
        replies = await _send(client, commands)
        unknown = unknown_scripts(commands, replies)
        if unknown:
            again = await _send(client, [Script.in_full(commands[index]) for index in unknown])
            for index, reply in zip(unknown, again, strict=True):
                replies[index] = reply
        return checked(replies)


async def _send(client: Any, commands: list[Command]) -> list[Any]:
    if len(commands) == 1:
        try:
            return [await client.execute_command(*commands[0])]
        except ResponseError as error:
            return [error]
    pipeline = client.pipeline(transaction=False)
    for command in commands:
        pipeline.execute_command(*command)
    replies: list[Any] = await pipeline.execute(raise_on_error=False)
    return replies
