"""A near cache while another process writes: what stays stale, and how soon a write is seen."""

from __future__ import annotations

import asyncio
import itertools
import multiprocessing
import random
import time
from typing import Any

import redis

from benchmarks.cache.environment import configure
from benchmarks.cache.options import Options
from benchmarks.cache.peers import Peer
from benchmarks.measure import Failed
from benchmarks.report import Table

KEYS = [f"race:{number}" for number in range(40)]


def measure(url: str, options: Options) -> list[Table]:
    context = multiprocessing.get_context("spawn")
    made = Table(
        "Near cache while another process writes",
        ["stale of 40, each run", "writes", "p50 ms until seen", "p99 ms until seen"],
        name="coherence",
        note="Another process writes the 40 keys at random, in bursts; this one reads them all the"
        " time. Stale: keys with an old value half a second after the last write.",
    )
    for name in ("cache_layer", "django-vcache", "cashews, client_side"):
        if options.peers and name not in options.peers:
            continue
        runs = []
        try:
            for _ in range(options.races):
                with context.Pool(2) as pool:
                    writes = pool.apply_async(_write, (name, url, options.race_seconds))
                    reads = pool.apply_async(_read, (name, url))
                    wait = options.race_seconds + 60
                    runs.append((writes.get(wait), reads.get(wait)))
        except Exception as error:
            made.rows[name] = [f"failed: {Failed.by(error).reason}"]
            continue
        seen = sorted(delay for _, (_, delays) in runs for delay in delays)
        stale = [
            sum(last.get(key) != final.get(key) for key in KEYS) for (final, _), (last, _) in runs
        ]
        made.rows[name] = [
            ", ".join(map(str, stale)),
            sum(count for (_, count), _ in runs),
            seen[len(seen) // 2] * 1e3 if seen else None,
            seen[int(len(seen) * 0.99)] * 1e3 if seen else None,
        ]
    return [made]


def _peer(name: str, url: str) -> Peer:
    from benchmarks.cache.peers import aio, django_backends, ours

    configure(url, near=True)
    makers = {
        "cache_layer": ours.Ours,
        "django-vcache": django_backends.VCache,
        "cashews, client_side": aio.CashewsNear,
    }
    return makers[name](url, "")


def _write(name: str, url: str, seconds: float) -> tuple[dict[str, str], int]:
    """Write ``number:time`` to random keys; return the last value of each, and the count."""
    raw = redis.Redis.from_url(url)

    async def write() -> tuple[dict[str, str], int]:
        peer = _peer(name, url)
        last: dict[str, str] = {}
        choice, count = random.Random(1), 0
        raw.blpop(["reader-ready"], timeout=60)
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            for _ in range(choice.randrange(1, 40)):
                count += 1
                key = choice.choice(KEYS)
                last[key] = f"{count}:{time.monotonic()}"
                await peer.aset(key, last[key])
            await asyncio.sleep(choice.random() / 200)
        raw.delete("reading")
        await peer.aclose()
        return last, count

    return asyncio.run(write())


def _read(name: str, url: str) -> tuple[dict[str, Any], list[float]]:
    """Read all keys until the writer is done; return the final values and the delays."""
    raw = redis.Redis.from_url(url)

    async def read() -> tuple[dict[str, Any], list[float]]:
        peer = _peer(name, url)
        known: dict[str, str] = {}
        delays: list[float] = []
        for key in KEYS:
            await peer.aset(key, "")
        raw.set("reading", 1, ex=60)
        raw.rpush("reader-ready", 1)
        turns = itertools.count()
        while next(turns) % 20 or raw.exists("reading"):
            for key in KEYS:
                value = await peer.aget(key)
                now = time.monotonic()
                if value and value != known.get(key):
                    known[key] = value
                    delays.append(now - float(value.split(":")[1]))
            await asyncio.sleep(0.0005)
        await asyncio.sleep(0.5)
        final = {key: await peer.aget(key) for key in KEYS}
        await peer.aclose()
        return final, delays

    return asyncio.run(read())
