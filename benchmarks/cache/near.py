"""Hits that never leave the process: near caches and memory decorators."""

from __future__ import annotations

import asyncio

from benchmarks.cache import tracking
from benchmarks.cache.environment import configure
from benchmarks.cache.options import Options
from benchmarks.cache.peers import Peer, batch, close
from benchmarks.measure import Awaited, Call, Failed, race
from benchmarks.report import Table, timings

FLOOR = "redis-py"
INNER = 200


def measure(url: str, options: Options) -> list[Table]:
    configure(url, near=True)
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    value = "x" * 200
    gets: dict[str, Call] = {}
    hits: dict[str, Call] = {}
    many: dict[str, Call] = {}
    keys = batch()
    failed: dict[str, Failed] = {}
    unknown: dict[str, Failed] = {}
    connected: list[Peer] = []
    for name, connect in _contestants().items():
        if options.peers and name not in options.peers:
            continue
        try:
            peer = connect(url, value)
            connected.append(peer)
            if peer.set:
                peer.set("key", value)
            elif peer.aset:
                loop.run_until_complete(peer.aset("key", value))
            if peer.set_many:
                peer.set_many(dict.fromkeys(batch(), value))
        except Exception as error:
            failed[name] = Failed.by(error)
            continue
        if get := peer.get:
            gets[name] = lambda get=get: get("key")
        if aget := peer.aget:
            gets[f"{name}, awaited"] = Awaited(lambda aget=aget: aget("key"))
        if get_many := peer.get_many:
            many[name] = lambda get_many=get_many: get_many(keys)
        if aget_many := peer.aget_many:
            many[f"{name}, awaited"] = Awaited(lambda aget_many=aget_many: aget_many(keys))
        for label, hit in peer.hits.items():
            hits[f"{name}, {label}"] = lambda hit=hit: hit(1)
        for label, hit in peer.ahits.items():
            hits[f"{name}, {label}, awaited"] = Awaited(lambda hit=hit: hit(1))
    for name, hit in ({} if options.peers else _memory(value)).items():
        if isinstance(hit, Failed):
            unknown[name] = hit
        else:
            hits[name] = hit
    gets |= _lists()
    hits = {FLOOR: gets[FLOOR], **hits}
    tables = [
        timings(
            title,
            race(
                contestants,
                rounds=options.rounds,
                calls=max(1, options.calls // 10),
                inner=inner,
                loop=loop,
                budget=4.0,
            )
            | failed
            | (unknown if contestants is hits else {}),
            floor=FLOOR,
            name=name,
            note=f"`redis-py` is a plain {plain}. p99 is of the means of {inner} calls in a row.",
        )
        for title, name, contestants, inner, plain in (
            ("get, answered in the process", "near-get", gets, INNER, "GET"),
            ("A decorated function, hit in the process", "near-hit", hits, INNER, "GET"),
            ("100 keys in one get, answered in the process", "near-batch", many, 10, "MGET"),
        )
    ]
    tables.append(tracking.measure(url, options))
    close(connected, loop)
    return tables


def _contestants():
    from benchmarks.cache.peers import aio, django_backends, floor, ours

    class Locmem(Peer):
        name = "locmem"

        def __init__(self, url: str, value: str) -> None:
            from django.core.cache import caches

            cache = caches["locmem"]
            self.get, self.set = cache.get, cache.set

    return {
        floor.Sync.name: floor.Sync,
        "cache_layer": ours.Ours,
        "django-vcache, CLIENT_SIDE_CACHE": django_backends.VCache,
        aio.CashewsNear.name: aio.CashewsNear,
        Locmem.name: Locmem,
    }


def _lists() -> dict[str, Call]:
    """A mutable value is decoded again for each caller."""
    from django.core.cache import caches

    cache = caches["default"]
    cache.set("list", list(range(10)))
    return {"cache_layer, a list of 10": lambda: cache.get("list")}


def _memory(value: str) -> dict[str, Call | Failed]:
    """Memory decorators: fast, and each process has values of its own."""
    found: dict[str, Call | Failed] = {}
    for name, decorator in {
        "functools.lru_cache": _lru,
        "cachetools.TTLCache": _ttl,
        "aiocache, memory, awaited": _aiocache,
        "cashews, memory, awaited": _cashews,
    }.items():
        try:
            decorate = decorator()
        except Exception as error:
            found[name] = Failed.by(error)
            continue
        if name.endswith("awaited"):

            @decorate
            async def hit(number):
                return value

            found[name] = Awaited(lambda hit=hit: hit(1))
        else:

            @decorate
            def hit(number):
                return value

            found[name] = lambda hit=hit: hit(1)
    return found


def _lru():
    import functools

    return functools.lru_cache(maxsize=1000)


def _ttl():
    from cachetools import TTLCache, cached

    return cached(TTLCache(maxsize=1000, ttl=600))


def _aiocache():
    import aiocache

    return aiocache.cached(ttl=600)


def _cashews():
    from cashews import Cache

    memory = Cache("memory")
    memory.setup("mem://")
    return memory(ttl="10m", key="hit:{number}")
