"""Calls while Redis hangs (SIGSTOP) or is killed, and how soon Redis is used again."""

from __future__ import annotations

import asyncio
import multiprocessing
import statistics
import time
from collections.abc import Awaitable, Callable
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any

import redis

from benchmarks.cache.environment import configure
from benchmarks.cache.options import Options
from benchmarks.cache.peers import Peer, classes
from benchmarks.measure import Failed
from benchmarks.report import Cell, Table

if TYPE_CHECKING:
    from tests.services import RedisServer

#: Calls after the first, if there is time.
NEXT = 300


def measure(url: str, options: Options) -> list[Table]:
    # Here, because each child imports this module, and that one imports pytest.
    from tests.services import RedisServer

    tables = []
    for title, name, break_it, heal in (
        ("Redis hung (SIGSTOP)", "hung", RedisServer.stop, RedisServer.cont),
        ("Redis killed", "killed", RedisServer.kill, RedisServer.restart),
    ):
        made = Table(
            title,
            ["first call ms", "next calls, median ms", "calls", "raised", "back after ms"],
            name=name,
            note=f"Calls of get, one after the other, for {options.wait:.0f} s; libraries with"
            " their defaults. Back: from the moment that Redis runs again until a value that is set"
            " arrives there.",
        )
        server = RedisServer()
        server.start()
        try:
            made.rows = _observe(server, options, break_it, heal)
        finally:
            server.close()
        tables.append(made)
    return tables


def _observe(
    server: RedisServer,
    options: Options,
    break_it: Callable[[RedisServer], None],
    heal: Callable[[RedisServer], None],
) -> dict[str, list[Cell]]:
    """Measure all peers at once, each in its own process: most of the time they wait."""
    context = multiprocessing.get_context("spawn")
    names = options.peers or tuple(_classes())
    pipes: dict[str, Connection] = {}
    processes = []
    for name in names:
        here, there = context.Pipe()
        process = context.Process(
            target=_suffer, args=(name, server.url, there, options.wait), daemon=True
        )
        process.start()
        there.close()
        pipes[name] = here
        processes.append(process)
    rows: dict[str, list[Cell]] = {}
    try:
        for name, pipe in pipes.items():
            ready = pipe.recv() if pipe.poll(60) else "did not start"
            if ready != "ready":
                rows[name] = [f"failed: {ready}"]
        break_it(server)
        suffering = {name: pipe for name, pipe in pipes.items() if name not in rows}
        for pipe in suffering.values():
            pipe.send("broken")
        end = time.monotonic() + options.wait + 1
        late = {}
        for name, pipe in suffering.items():
            if pipe.poll(max(0.0, end - time.monotonic())):
                rows[name] = pipe.recv()
            else:
                late[name] = pipe
                rows[name] = [f"> {options.wait * 1e3:,.0f}", None, 1, None, None]
        heal(server)
        healed = time.monotonic()
        recovering = {name: pipe for name, pipe in suffering.items() if name not in late}
        for pipe in recovering.values():
            pipe.send(healed)
        for name, pipe in recovering.items():
            back = pipe.recv() if pipe.poll(20) else None
            rows[name].append("> 15,000" if back is None else back * 1e3)
    finally:
        for process in processes:
            process.kill()
            process.join(10)
    return {name: rows[name] for name in names}


def _classes() -> dict[str, Callable[[str, str], Peer]]:
    from benchmarks.cache.peers.django_backends import CarefulDjangoRedis

    return {**classes(), CarefulDjangoRedis.name: CarefulDjangoRedis}


def _suffer(name: str, url: str, pipe: Connection, wait: float) -> None:
    configure(url)
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    try:
        peer = _classes()[name](url, "value")
        get, set = _get(peer, loop), _set(peer, loop)
        set("key", "value")
        for _ in range(10):
            get("key")
    except Exception as error:
        pipe.send(Failed.by(error).reason)
        return
    pipe.send("ready")
    pipe.recv()
    times, raised = [], ""
    end = time.monotonic() + wait
    while len(times) <= NEXT and time.monotonic() < end:
        before = time.perf_counter()
        try:
            get("key")
        except Exception as error:
            raised = type(error).__name__
        times.append((time.perf_counter() - before) * 1e3)
    later = times[1:]
    median = statistics.median(later) if later else None
    pipe.send([times[0], median, len(times), raised or "no"])
    healed = pipe.recv()
    pipe.send(_back(name, url, set, healed))


def _back(name: str, url: str, set: Callable[[str, str], Any], healed: float) -> float | None:
    """Set keys until one of them is in Redis; return the seconds since Redis runs again."""
    raw = redis.Redis.from_url(url)
    number = 0
    while time.monotonic() < healed + 15:
        number += 1
        key = f"back-{name.replace(' ', '')}-{number}"
        try:
            set(key, "value")
            if any(raw.scan_iter(f"*{key}*", count=1000)):
                return time.monotonic() - healed
        except Exception:
            time.sleep(0.01)
            continue
        time.sleep(0.01)
    return None


def _get(peer: Peer, loop: asyncio.AbstractEventLoop) -> Callable[[str], Any]:
    if peer.get:
        return peer.get
    assert peer.aget is not None
    return _waiting(loop, peer.aget)


def _set(peer: Peer, loop: asyncio.AbstractEventLoop) -> Callable[[str, str], Any]:
    if peer.set:
        return peer.set
    assert peer.aset is not None
    return _waiting(loop, peer.aset)


def _waiting(
    loop: asyncio.AbstractEventLoop, call: Callable[..., Awaitable[Any]]
) -> Callable[..., Any]:
    async def awaited(*args: Any) -> Any:
        return await call(*args)

    return lambda *args: loop.run_until_complete(awaited(*args))
