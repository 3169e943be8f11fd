"""What products with language models need: batches of results, and streams in chunks."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator

from benchmarks.cache.environment import configure
from benchmarks.cache.options import Options
from benchmarks.cache.peers import Peer, batch, close
from benchmarks.cache.peers.floor import Sync
from benchmarks.cache.peers.ours import Ours
from benchmarks.measure import Awaited, Call, race
from benchmarks.report import Table, timings

CHUNKS = 100
CHUNK = "x" * 20


def measure(url: str, options: Options) -> list[Table]:
    """Hits of ``cached_many`` and of cached generators, beside loops that do the same."""
    configure(url)
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    peers: list[Peer] = [Sync(url, "x" * 200), Ours(url, "x" * 200)]
    assert peers[0].set_many is not None
    peers[0].set_many(dict.fromkeys(batch(), "x" * 200))
    tables = [
        timings(
            title,
            race(contestants, rounds=options.rounds, calls=max(1, options.calls // 4), loop=loop),
            floor=next(iter(contestants)),
            name=name,
            note=note,
        )
        for title, name, contestants, note in (
            (
                "100 results of a function, all hits",
                "many-hits",
                _batches(peers[0], loop),
                (
                    "`redis-py` is a plain MGET of 100 strings. The loop calls a function with"
                    " @cached 100 times."
                ),
            ),
            (
                f"A generator of {CHUNKS} chunks",
                "generator-hit",
                _streams(peers[0], loop),
                (
                    "`redis-py` is a plain GET of a text of that size, and the plain loop is the"
                    " generator without a decorator, which computes nothing."
                ),
            ),
        )
    ]
    close(peers, loop)
    return tables


def _batches(floor: Peer, loop: asyncio.AbstractEventLoop) -> dict[str, Call]:
    from cache_layer import cached, cached_many

    value = "x" * 200
    items = list(range(100))
    keys = batch()
    assert floor.get_many is not None
    get_many = floor.get_many

    @cached(ttl=600)
    def one(item: int) -> str:
        return value

    @cached(ttl=600)
    async def aone(item: int) -> str:
        return value

    @cached_many(ttl=600)
    def many(items: list[int]) -> list[str]:
        return [value] * len(items)

    @cached_many(ttl=600)
    async def amany(items: list[int]) -> list[str]:
        return [value] * len(items)

    async def aloop() -> list[str]:
        return [await aone(item) for item in items]

    found: dict[str, Call] = {
        "redis-py": lambda: get_many(keys),
        "cache_layer, @cached_many": lambda: many(items),
        "cache_layer, @cached_many, awaited": Awaited(lambda: amany(items)),
        "cache_layer, a loop over @cached": lambda: [one(item) for item in items],
        "cache_layer, a loop over @cached, awaited": Awaited(aloop),
    }
    return _warm(found, loop)


def _streams(floor: Peer, loop: asyncio.AbstractEventLoop) -> dict[str, Call]:
    from cache_layer import cached

    assert floor.get is not None and floor.set is not None
    get = floor.get
    floor.set("stream", CHUNK * CHUNKS)

    def plain() -> Iterator[str]:
        for _ in range(CHUNKS):
            yield CHUNK

    kept: Callable[[], Iterator[str]] = cached(ttl=600, key_prefix="sync")(plain)

    @cached(ttl=600, key_prefix="async")
    async def akept():
        for chunk in plain():
            yield chunk

    async def aread() -> list[str]:
        return [chunk async for chunk in akept()]

    found: dict[str, Call] = {
        "redis-py": lambda: get("stream"),
        "a plain loop": lambda: list(plain()),
        "cache_layer, @cached": lambda: list(kept()),
        "cache_layer, @cached, awaited": Awaited(aread),
    }
    return _warm(found, loop)


def _warm(contestants: dict[str, Call], loop: asyncio.AbstractEventLoop) -> dict[str, Call]:
    """Call each once, so that all that follow are hits."""
    for call in contestants.values():
        if isinstance(call, Awaited):
            loop.run_until_complete(call.call())
        else:
            call()
    return contestants
