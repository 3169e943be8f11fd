"""A TCP proxy that delays what it passes on, to simulate distance."""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
from collections.abc import Iterator
from multiprocessing.connection import Connection


class _Side(asyncio.Protocol):
    """Passes on bytes, and the end of a connection, *delay* seconds later."""

    def __init__(self, delay: float) -> None:
        self._delay = delay
        self._waiting: list[bytes] = []
        self.other: _Side | None = None
        self.transport: asyncio.Transport | None = None
        self._loop = asyncio.get_running_loop()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def join(self, other: _Side) -> None:
        self.other, other.other = other, self
        for data in self._waiting:
            self.data_received(data)

    def data_received(self, data: bytes) -> None:
        if self.other is None:
            self._waiting.append(data)
        elif self._delay:
            self._loop.call_later(self._delay, self.other.write, data)
        else:
            self.other.write(data)

    def write(self, data: bytes) -> None:
        if self.transport is not None and not self.transport.is_closing():
            self.transport.write(data)

    def connection_lost(self, error: Exception | None) -> None:
        if self.other is not None and self.other.transport is not None:
            self.other.transport.close()


async def _serve(port: int, delay: float, ready: Connection) -> None:
    loop = asyncio.get_running_loop()
    joining: set[asyncio.Task[None]] = set()

    class Near(_Side):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            super().connection_made(transport)
            task = loop.create_task(self.reach())
            joining.add(task)
            task.add_done_callback(joining.discard)

        async def reach(self) -> None:
            _, far = await loop.create_connection(lambda: _Side(delay), "127.0.0.1", port)
            self.join(far)

    server = await loop.create_server(lambda: Near(0), "127.0.0.1", 0, backlog=2000)
    ready.send(server.sockets[0].getsockname()[1])
    async with server:
        await server.serve_forever()


def _run(port: int, delay: float, ready: Connection) -> None:
    asyncio.run(_serve(port, delay, ready))


@contextlib.contextmanager
def delayed(port: int, seconds: float) -> Iterator[int]:
    """A port whose replies come that much later than those of *port*; in its own process.

    Without a delay it is that port itself.
    """
    if not seconds:
        yield port
        return
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe(duplex=False)
    process = context.Process(target=_run, args=(port, seconds, there), daemon=True)
    process.start()
    try:
        if not here.poll(30):
            raise RuntimeError("The proxy did not start.")
        yield here.recv()
    finally:
        process.terminate()
        process.join(10)
