"""What it costs a process that Redis reports changes to its near cache (client tracking)."""

from __future__ import annotations

import multiprocessing
import time
from concurrent.futures import ProcessPoolExecutor

import redis

from benchmarks.cache.options import Options
from benchmarks.report import Table

ENTRIES = 10_000
#: Keys that another process writes with one command, by row.
WAYS = {"cache_layer, written alone": 1, "cache_layer, written with 99 others": 100}


def measure(url: str, options: Options) -> Table:
    """CPU time of this process for each key that changes; Django is set up, with a near cache."""
    from django.core.cache import caches

    entries = ENTRIES if options.rounds > 1 else ENTRIES // 10
    made = Table(
        f"Drop a copy, of {entries:,} in the near cache",
        ["CPU µs of the process"],
        name="tracking",
        note="Another process changes the key; in the last row only the copy is dropped, and no"
        " report is read.",
    )
    cache = caches["default"]
    near = cache.store.near
    keys = [f"tracked:{number}" for number in range(entries)]
    full = [cache.make_key(key) for key in keys]

    def fill() -> None:
        cache.set_many(dict.fromkeys(keys, "x"))
        # A value that is read before the report of one's own write has arrived is not kept.
        while near.find(full).count(None) > entries / 100:
            time.sleep(0.05)
            cache.get_many(keys)

    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as writer:
        for row, together in WAYS.items():
            fill()
            written = full[: entries // 5]
            writer.submit(_write, url, full[-1:], 1).result()
            before = time.process_time()
            writer.submit(_write, url, written, together).result()
            while near.find(written[-1:])[0] is not None:
                time.sleep(0.001)
            made.rows[row] = [(time.process_time() - before) / len(written) * 1e6]
    fill()
    before = time.thread_time()
    for key in full:
        near.drop((key,))
    made.rows["cache_layer, dropped"] = [(time.thread_time() - before) / entries * 1e6]
    return made


def _write(url: str, keys: list[str], together: int) -> None:
    with redis.Redis.from_url(url) as client:
        for start in range(0, len(keys), together):
            client.mset(dict.fromkeys(keys[start : start + together], b"1"))
