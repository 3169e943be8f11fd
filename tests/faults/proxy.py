"""A TCP proxy in front of a Redis that spoils what passes through it."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Awaitable, Callable
from typing import Literal

from tests.services import free_port

Fault = Literal["none", "delay", "cut", "silent", "garbage", "hold", "trickle", "slow", "repeat"]

_Accept = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

#: Connections beyond these are closed at once, so that no mistake can fill the machine.
MOST = 200


class Proxy:
    """Passes bytes on, or does with them what ``fault`` says.

    ``delay``: every reply waits ``seconds``. ``cut``: half of a reply, then the end. ``silent``:
    accepts and swallows. ``garbage``: answers like a web server. ``hold``: keeps what clients say
    until ``deliver()``, even when they have long gone. ``trickle``: a byte of each reply every
    ``seconds``. ``slow``: a link of so many bytes a second as ``rate`` says, in both directions.
    ``repeat``: what the server says arrives twice.

    Whatever the fault, a connection that says one of the words in ``refuse`` is closed instead of
    being answered; ``refused`` counts them. With ``alternate`` so is whoever says anything in every
    other burst of commands: what comes within a quarter of a second of what came before is one.
    """

    def __init__(self, target: int) -> None:
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self.fault: Fault = "none"
        self.seconds = 0.0
        self.rate = 2_500_000
        self.refuse: tuple[bytes, ...] = ()
        self.refused = 0
        self.alternate = False
        self._bursts = 0
        self._heard = 0.0
        #: The port of the server behind it.
        self.target = target
        self._loop = asyncio.new_event_loop()
        self._delivery = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        #: Of all connections with clients that there have been.
        self._transports: list[asyncio.WriteTransport] = []
        self._thread = threading.Thread(target=self._serve, name="proxy")
        self._listening = threading.Event()

    def start(self) -> None:
        self._thread.start()
        assert self._listening.wait(10)

    def deliver(self) -> None:
        """Hand over what was held back."""
        self._loop.call_soon_threadsafe(self._delivery.set)

    @property
    def connections(self) -> int:
        """How many clients are connected."""
        return len(self._tasks)

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    def _serve(self) -> None:
        loop = self._loop
        asyncio.set_event_loop(loop)
        server = loop.run_until_complete(
            loop.create_server(self._protocol, "127.0.0.1", self.port, backlog=MOST)
        )
        self._listening.set()
        try:
            loop.run_forever()
        finally:
            server.close()
            # A connection just accepted is closed by its task, which has to have begun.
            loop.run_until_complete(_turns())
            tasks = asyncio.all_tasks(loop)
            for task in tasks:
                task.cancel()
            loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
            # Whatever a connection was doing, it ends before its loop does.
            for transport in self._transports:
                transport.abort()
            loop.run_until_complete(_turns())
            loop.run_until_complete(loop.shutdown_asyncgens())
            loop.close()

    def _protocol(self) -> asyncio.Protocol:
        return _Noted(self._transports, self._accept)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            if len(self._tasks) <= MOST:
                await self._join(reader, writer)
        except OSError:
            # A peer that goes away is what this is all about.
            return
        finally:
            self._tasks.discard(task)
            await _end(writer)

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        from_server, to_server = await asyncio.open_connection("127.0.0.1", self.target)
        replies = asyncio.ensure_future(self._pass_replies(from_server, writer))
        try:
            await self._pass_commands(reader, to_server, writer)
        finally:
            replies.cancel()
            await asyncio.gather(replies, return_exceptions=True)
            await _end(to_server)

    async def _pass_commands(
        self,
        reader: asyncio.StreamReader,
        to_server: asyncio.StreamWriter,
        to_client: asyncio.StreamWriter,
    ) -> None:
        while data := await reader.read(65536):
            if any(word in data for word in self.refuse) or self._is_odd_burst():
                self.refused += 1
                return
            if self.fault == "silent":
                continue
            if self.fault == "garbage":
                to_client.write(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")
                continue
            if self.fault == "hold":
                await self._delivery.wait()
            if self.fault == "slow":
                await asyncio.sleep(len(data) / self.rate)
            to_server.write(data)
            await to_server.drain()

    def _is_odd_burst(self) -> bool:
        now = self._loop.time()
        self._bursts += now - self._heard > 0.25
        self._heard = now
        return self.alternate and self._bursts % 2 == 1

    async def _pass_replies(
        self, from_server: asyncio.StreamReader, to_client: asyncio.StreamWriter
    ) -> None:
        with contextlib.suppress(OSError):
            while data := await from_server.read(65536):
                if self.fault == "delay":
                    await asyncio.sleep(self.seconds)
                if self.fault == "slow":
                    await asyncio.sleep(len(data) / self.rate)
                if self.fault == "trickle":
                    for number in range(len(data)):
                        to_client.write(data[number : number + 1])
                        await asyncio.sleep(self.seconds)
                    continue
                if self.fault == "cut":
                    to_client.write(data[: len(data) // 2])
                    break
                to_client.write(data * 2 if self.fault == "repeat" else data)
                await to_client.drain()
        to_client.close()


class _Noted(asyncio.StreamReaderProtocol):
    """Notes the transport of a connection as soon as there is one."""

    def __init__(self, transports: list[asyncio.WriteTransport], accept: _Accept) -> None:
        super().__init__(asyncio.StreamReader(), accept)
        self._transports = transports

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.WriteTransport)
        self._transports.append(transport)
        super().connection_made(transport)


async def _turns() -> None:
    """Let what is under way go on, however slow the machine: each step takes a turn of the loop."""
    for _ in range(20):
        await asyncio.sleep(0.002)


async def _end(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
