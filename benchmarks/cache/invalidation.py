"""Delete 1,000 keys among very many: by pattern, by tag, by function, by namespace."""

from __future__ import annotations

import asyncio
import gc
import statistics
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import redis
from tqdm import tqdm

from benchmarks.cache.environment import configure
from benchmarks.cache.options import Options
from benchmarks.measure import Failed
from benchmarks.report import Cell, Table

MATCHING = 1000
VALUE = "x" * 200
#: Seconds from which on a way is measured once only.
SLOW = 1.0
#: Seconds below which a way is measured several times each round.
QUICK = 0.02
AGAIN = 5
#: Seconds to wait after a thousand concurrent calls.
SETTLING = 0.02

#: Creates the other keys of the database inside Redis: a client would take minutes.
FILL = """
for number = ARGV[1], ARGV[2] do
    redis.call('SET', 'other:' .. number, ARGV[3], 'EX', 36000)
end
"""


@dataclass
class Way:
    """How a library deletes the keys that ``fill`` created; both are awaited."""

    fill: Callable[[], Awaitable[Any]]
    drop: Callable[[], Awaitable[Any]]
    #: Whether one of the deleted values is still served.
    served: Callable[[], Awaitable[Any]] | None = None


def measure(url: str, options: Options) -> list[Table]:
    configure(url)
    raw = redis.Redis.from_url(url)
    script = raw.register_script(FILL)
    tables, filled = [], 0
    for count in options.key_counts:
        for first in tqdm(range(filled, count, 10_000), desc="keys", unit="0,000"):
            script(args=[first + 1, min(first + 10_000, count), VALUE])
        filled = count
        tables.append(asyncio.run(_table(url, count, options)))
    return tables


async def _table(url: str, count: int, options: Options) -> Table:
    made = Table(
        f"Drop {MATCHING:,} values among {count:,} keys",
        ["median ms", "longest ms", "times"],
        name=f"invalidation-{count}",
        note="All peers share the other keys. `one command`: the values are not served any more,"
        " and stay in Redis until they expire.",
    )
    ways, failed = await _ways(url, options)
    times: dict[str, list[float]] = {name: [] for name in ways}
    rounds = max(1, min(options.rounds // 4, 7))
    for turn in range(rounds + 1):
        for name, way in ways.items():
            if name in failed or (times[name] and times[name][0] > SLOW):
                continue
            again = 1 if not turn or times[name][0] > QUICK else AGAIN
            if turn == 1:
                # The first round warmed up, except for ways that are measured once.
                times[name].clear()
            try:
                for _ in range(again):
                    times[name].append(await _once(way))
            except Exception as error:
                failed[name] = Failed.by(error)
    for name in [*ways, *(name for name in failed if name not in ways)]:
        cells: list[Cell] = [f"failed: {failed[name].reason}"] if name in failed else []
        if not cells and times[name]:
            milliseconds = [seconds * 1e3 for seconds in times[name]]
            cells = [statistics.median(milliseconds), max(milliseconds), len(milliseconds)]
        made.rows[name] = cells
    return made


async def _once(way: Way) -> float:
    """Return the seconds that dropping the values takes, without the time for setting them.

    Every way begins after the same pause, because a single command is slower after a pause.
    """
    await way.fill()
    gc.collect()
    await asyncio.sleep(SETTLING)
    before = time.perf_counter()
    await way.drop()
    seconds = time.perf_counter() - before
    if way.served and await way.served():
        raise RuntimeError("a dropped value is still served")
    return seconds


async def _ways(url: str, options: Options) -> tuple[dict[str, Way], dict[str, Failed]]:
    ways: dict[str, Way] = {}
    failed: dict[str, Failed] = {}
    makers = {"redis-py": _raw, "cache_layer": _ours}
    if not options.peers:
        makers |= {"django-redis": _django_redis, "cashews": _cashews, "aiocache": _aiocache}
    for name, maker in makers.items():
        try:
            made = maker(url)
        except Exception as error:
            failed[name] = Failed.by(error)
        else:
            ways |= {f"{name}, {label}": way for label, way in made.items()}
    return ways, failed


def _raw(url: str) -> dict[str, Way]:
    client = redis.Redis.from_url(url)

    async def fill() -> None:
        client.mset({f"raw:{number}": VALUE for number in range(MATCHING)})

    async def drop() -> None:
        batch = []
        for key in client.scan_iter("raw:*", count=1000):
            batch.append(key)
        if batch:
            client.unlink(*batch)

    async def fill_one() -> None:
        client.set("raw", VALUE)

    async def drop_one() -> None:
        client.delete("raw")

    return {
        "SCAN COUNT 1000 and UNLINK": Way(fill, drop),
        "DEL of one key, one command": Way(fill_one, drop_one),
    }


def _ours(url: str) -> dict[str, Way]:
    from cache_layer import cached, get_cache, get_redis_manager

    async def fill() -> None:
        users = await get_cache("users")
        await users.set_many({f"user:{number}": VALUE for number in range(MATCHING)})

    async def drop_pattern() -> None:
        await (await get_redis_manager()).delete_by_pattern("users:user:*")

    async def drop_namespace() -> None:
        await (await get_cache("users")).clear()

    async def served() -> Any:
        return await (await get_cache("users")).get("user:7")

    ways = {
        "delete_by_pattern": Way(fill, drop_pattern, served),
        "clear() of a namespace": Way(fill, drop_namespace, served),
    }
    calls = {"count": 0}

    @cached(ttl=600, key_prefix="invalidation", **TAGS)
    async def tagged(group: str, number: int) -> str:
        calls["count"] += 1
        return VALUE

    async def fill_tagged() -> None:
        await asyncio.gather(*(tagged("all", number) for number in range(MATCHING)))

    async def served_tagged() -> bool:
        before = calls["count"]
        await tagged("all", 7)
        return calls["count"] == before

    async def drop_function() -> None:
        await tagged.invalidate_all()

    ways["invalidate_all() of a function, one command"] = Way(
        fill_tagged, drop_function, served_tagged
    )

    async def drop_tag() -> None:
        from cache_layer import ainvalidate_tags

        await ainvalidate_tags("group:all")

    ways["ainvalidate_tags, one command"] = Way(fill_tagged, drop_tag, served_tagged)
    return ways


TAGS: dict[str, Any] = {"tags": ["group:{group}"]}


def _django_redis(url: str) -> dict[str, Way]:
    from django.core.cache import caches

    cache: Any = caches["django-redis"]

    async def fill() -> None:
        cache.set_many({f"user:{number}": VALUE for number in range(MATCHING)})

    async def drop() -> None:
        cache.delete_pattern("user:*")

    async def drop_larger_steps() -> None:
        cache.delete_pattern("user:*", itersize=1000)

    return {
        "delete_pattern": Way(fill, drop),
        "delete_pattern(itersize=1000)": Way(fill, drop_larger_steps),
    }


def _cashews(url: str) -> dict[str, Way]:
    from benchmarks.cache.peers.aio import Cashews

    cache = Cashews(url, VALUE)._cache
    keys = [f"cw:{number}" for number in range(MATCHING)]

    async def fill() -> None:
        await cache.set_many(dict.fromkeys(keys, VALUE), expire=600)

    async def fill_tagged() -> None:
        for key in keys:
            await cache.set(key, VALUE, expire=600, tags=["group"])

    cache.register_tag("group", "cw:{number}")
    return {
        "delete_match": Way(fill, lambda: cache.delete_match("cw:*")),
        "delete_tags": Way(fill_tagged, lambda: cache.delete_tags("group")),
    }


def _aiocache(url: str) -> dict[str, Way]:
    from benchmarks.cache.peers.aio import Aiocache

    cache = Aiocache(url, VALUE)._cache

    async def fill() -> None:
        await cache.multi_set([(str(number), VALUE) for number in range(MATCHING)], ttl=600)

    return {"clear of a namespace (KEYS)": Way(fill, lambda: cache.clear(namespace="aiocache"))}
