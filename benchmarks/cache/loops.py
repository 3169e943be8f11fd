"""Many short event loops, as ``async_to_sync`` makes them in synchronous workers."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import redis
from asgiref.sync import async_to_sync

from benchmarks.cache.calls import Suite
from benchmarks.cache.options import Options
from benchmarks.cache.peers import Peer
from benchmarks.measure import Failed
from benchmarks.report import Table

THREADS = 8
#: Seconds after which the rest of a peer's calls count as failed.
PATIENCE = 15.0


def measure(url: str, options: Options) -> list[Table]:
    suite = Suite(url, options, size=200, where="")
    raw = redis.Redis.from_url(url)
    made = Table(
        f"{options.loops} calls through async_to_sync, in {THREADS} threads",
        ["ms a call", "errors", "wrong answers", "connections left", "first error"],
        name="loops",
        note="Each call runs in an event loop of its own. A call of more than a second is an"
        " error.",
    )
    for peer in suite.peers.values():
        if peer.aget is None:
            continue
        end = time.monotonic() + PATIENCE

        async def get(peer: Peer = peer) -> Any:
            async with asyncio.timeout(1):
                return await peer.aget("key")

        def call(number: int, end: float = end) -> Any:
            try:
                if time.monotonic() > end:
                    raise TimeoutError("too many calls that hang")
                return async_to_sync(get)()
            except Exception as error:
                return error

        before = raw.info("clients")["connected_clients"]
        began = time.perf_counter()
        with ThreadPoolExecutor(THREADS) as threads:
            answers = list(threads.map(call, range(options.loops)))
        took = time.perf_counter() - began
        time.sleep(0.2)
        left = raw.info("clients")["connected_clients"] - before
        errors = [answer for answer in answers if isinstance(answer, Exception)]
        right = (suite.value, suite.value.encode())
        made.rows[peer.name] = [
            took / options.loops * 1e3,
            len(errors),
            sum(answer not in right for answer in answers) - len(errors),
            left,
            Failed.by(errors[0]).reason if errors else "",
        ]
    return [made]
