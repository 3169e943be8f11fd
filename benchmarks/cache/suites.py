"""The suites, each run in its own process on its own Redis."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor

from benchmarks.cache import (
    calls,
    coherence,
    invalidation,
    loops,
    near,
    outage,
    products,
    stampede,
)
from benchmarks.cache.delay import delayed
from benchmarks.cache.options import Options
from benchmarks.report import Table

Suite = Callable[[str, Options], list[Table]]

SUITES: dict[str, Suite] = {
    "calls": calls.direct,
    "large": calls.large,
    "far": calls.far,
    "near": near.measure,
    "coherence": coherence.measure,
    "products": products.measure,
    "invalidation": invalidation.measure,
    "stampede": stampede.measure,
    "outage": outage.measure,
    "loops": loops.measure,
}
#: Suites that may share a process: they use the same Redis, and no near cache.
ALIKE = ("calls", "large", "products", "invalidation", "stampede", "loops")
#: Delay of Redis in the suite "far", in seconds.
FAR = 0.002


def run(names: list[str], options: Options) -> list[Table]:
    """Run suites in one new process, on a new Redis server."""
    from tests.services import RedisServer

    if not names:
        return []
    server = RedisServer()
    server.start()
    try:
        # Not a multiprocessing.Pool: its workers may not have processes of their own.
        with (
            ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as worker,
            delayed(server.port, FAR if names == ["far"] else 0) as port,
        ):
            url = f"redis://127.0.0.1:{port}/0"
            return worker.submit(_several, names, url, options).result()
    finally:
        server.close()


def _several(names: list[str], url: str, options: Options) -> list[Table]:
    return [table for name in names for table in SUITES[name](url, options)]
