"""A hundred callers and one missing key: how often the expensive function runs."""

from __future__ import annotations

import asyncio
import multiprocessing
import threading
import time
from typing import Any

import redis

from benchmarks.cache.environment import configure
from benchmarks.cache.options import Options
from benchmarks.cache.peers import Peer, classes
from benchmarks.measure import Failed
from benchmarks.report import Cell, Table

CALLERS = 100
WORK = 0.05
#: Longest wait for one contestant, in seconds.
LIMIT = 60.0

_peers: dict[str, Peer] = {}
_broken: dict[str, str] = {}
_loop: asyncio.AbstractEventLoop
_counter: redis.Redis


def measure(url: str, options: Options) -> list[Table]:
    made = Table(
        f"{CALLERS} callers of a function of {WORK * 1e3:.0f} ms, all at once, nothing cached",
        [
            "runs, one process",
            "ms until all have it",
            "runs, two processes",
            "ms until all have it ",
        ],
        name="stampede",
        note="In each process. Tasks call awaited functions, threads call the others.",
    )
    names = [name for name in options.peers or classes() if name not in ("redis-py",)]
    context = multiprocessing.get_context("spawn")
    counter = redis.Redis.from_url(url)
    with context.Pool(2, _start, (url, names)) as pool:
        for name, ways in pool.apply(_ways).items():
            if isinstance(ways, str):
                made.rows[name] = [f"failed: {ways}"]
            for way in ways if isinstance(ways, list) else ():
                made.rows[f"{name}, {way}"] = _row(pool, counter, name, way)
    return [made]


def _row(pool: Any, counter: redis.Redis, name: str, way: str) -> list[Cell]:
    cells: list[Cell] = []
    for workers in (1, 2):
        key = f"stampede:{name}:{way}:{workers}".replace(" ", "")
        try:
            # The first run warms up: connections, scripts.
            for turn in ("warm", "measured"):
                start = time.time() + 0.3
                jobs = [
                    pool.apply_async(_stampede, (name, way, f"{key}:{turn}", start))
                    for _ in range(workers)
                ]
                took = max(job.get(LIMIT) for job in jobs)
            cells += [int(counter.get(f"runs:{key}:measured") or 0), took * 1e3]
        except Exception as error:
            return [*cells, f"failed: {Failed.by(error).reason}"]
    return cells


def _start(url: str, names: list[str]) -> None:
    """In a worker: connect the peers, or note why one does not work."""
    global _loop, _counter
    configure(url)
    _loop = asyncio.new_event_loop()
    asyncio.set_event_loop(_loop)
    _counter = redis.Redis.from_url(url)
    known = classes()
    for name in names:
        try:
            _peers[name] = known[name](url, "")
        except Exception as error:
            _broken[name] = Failed.by(error).reason


def _ways() -> dict[str, list[str] | str]:
    """In a worker: the ways of each peer, or why it does not work."""
    return {
        **{name: [*peer.once, *peer.aonce] for name, peer in _peers.items()},
        **_broken,
    }


def _stampede(name: str, way: str, key: str, start: float) -> float:
    """In a worker: call *way* a hundred times from *start* on; return the seconds it took."""
    peer = _peers[name]

    def work() -> str:
        _counter.incr(f"runs:{key}")
        time.sleep(WORK)
        return "value"

    async def awork() -> str:
        _counter.incr(f"runs:{key}")
        await asyncio.sleep(WORK)
        return "value"

    if way in peer.aonce:

        async def together() -> None:
            await asyncio.sleep(start - time.time())
            calls = (peer.aonce[way](key, awork) for _ in range(CALLERS))
            answers = await asyncio.gather(*calls)
            assert answers == ["value"] * CALLERS, answers

        _loop.run_until_complete(together())
        return time.time() - start
    errors: list[BaseException] = []

    def call() -> None:
        time.sleep(max(0.0, start - time.time()))
        try:
            answer = peer.once[way](key, work)
            assert answer == "value", answer
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=call) for _ in range(CALLERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise RuntimeError(f"{len(errors)} of {CALLERS} raised {Failed.by(errors[0]).reason}")
    return time.time() - start
