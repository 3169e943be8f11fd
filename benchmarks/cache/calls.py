"""What one call costs: get, set, decorated functions, many keys, many at once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

from asgiref.sync import ThreadSensitiveContext

from benchmarks.cache.environment import POOL, configure
from benchmarks.cache.options import Options
from benchmarks.cache.peers import Peer, batch, classes, close, connect
from benchmarks.measure import Awaited, Call, Failed, Result, race
from benchmarks.report import Table, timings

FLOOR = "redis-py"
AWAITED_FLOOR = "redis.asyncio, awaited"


class Suite:
    """The peers on one Redis, taking turns."""

    def __init__(self, url: str, options: Options, *, size: int, where: str) -> None:
        configure(url)
        self.loop = asyncio.new_event_loop()
        asyncio.set_event_loop(self.loop)
        self.options, self.where, self.value = options, where, "x" * size
        names = options.peers or tuple(classes())
        self.peers, self.failed = connect(names, url, self.value)

    def row(
        self,
        name: str,
        title: str,
        *,
        sync: Callable[[Peer], Mapping[str, Callable[[], Any] | None]] = lambda peer: {},
        awaited: Callable[[Peer], Mapping[str, Callable[[], Any] | None]] = lambda peer: {},
        floor: str = FLOOR,
        rounds: int | None = None,
        calls: int | None = None,
        unit: str = "µs",
        note: str = "",
    ) -> Table:
        """One table: a contestant for each operation that a peer has."""
        contestants: dict[str, Call] = {}
        for peer in self.peers.values():
            for label, call in sync(peer).items():
                if call:
                    contestants[_joined(peer.name, label)] = call
            for label, call in awaited(peer).items():
                if call:
                    contestants[_joined(peer.name, label, "awaited")] = Awaited(call)
        answering = {peer.name: peer.answering() for peer in self.peers.values()}
        results: dict[str, Result | Failed] = {}
        results |= race(
            contestants,
            rounds=rounds or self.options.rounds,
            calls=calls or self.options.calls,
            loop=self.loop,
        )
        results |= self.failed
        for peer in self.peers.values():
            # A cache that turned to memory during the measurement did not measure Redis.
            if peer.answering() != answering[peer.name]:
                rows = [row for row in results if f"{row}, ".startswith(f"{peer.name}, ")]
                results |= dict.fromkeys(rows, Failed("Redis did not answer in time meanwhile"))
        return timings(
            f"{title}{self.where}", results, floor=floor, unit=unit, name=name, note=note
        )

    def close(self) -> None:
        close(self.peers.values(), self.loop)


def _joined(*parts: str) -> str:
    return ", ".join(part for part in parts if part)


def _one(call: Callable[..., Any] | None, *args: Any) -> Mapping[str, Callable[[], Any] | None]:
    return {"": (lambda: call(*args)) if call else None}


def gets(suite: Suite, name: str) -> Table:
    return suite.row(
        name,
        "get",
        sync=lambda peer: _one(peer.get, "key"),
        awaited=lambda peer: _one(peer.aget, "key"),
    )


def sets(suite: Suite, name: str) -> Table:
    return suite.row(
        name,
        "set",
        sync=lambda peer: _one(peer.set, "key", suite.value),
        awaited=lambda peer: _one(peer.aset, "key", suite.value),
    )


def hits(suite: Suite, name: str) -> Table:
    def reference(peer: Peer) -> Mapping[str, Callable[[], Any] | None]:
        return _one(peer.get, "key") if peer.name == FLOOR else {}

    return suite.row(
        name,
        "A decorated function, hit",
        sync=lambda peer: {
            **reference(peer),
            **{label: lambda hit=hit: hit(1) for label, hit in peer.hits.items()},
        },
        awaited=lambda peer: {label: lambda hit=hit: hit(1) for label, hit in peer.ahits.items()},
        note="`redis-py` is a plain GET. Backends without a decorator: `get_or_set`.",
    )


def batches(suite: Suite, name: str) -> list[Table]:
    keys, values = batch(), dict.fromkeys(batch(), suite.value)
    return [
        suite.row(
            name,
            "100 keys in one get",
            sync=lambda peer: _one(peer.get_many, keys),
            awaited=lambda peer: _one(peer.aget_many, keys),
            calls=5,
            note="`redis-py` is a plain MGET.",
        ),
        suite.row(
            f"{name}-set",
            "100 keys in one set",
            sync=lambda peer: _one(peer.set_many, values),
            awaited=lambda peer: _one(peer.aset_many, values),
            calls=5,
            note="`redis-py` is a plain pipeline of SET EX.",
        ),
    ]


def concurrent(suite: Suite, name: str) -> list[Table]:
    keys = batch()

    def at_once(peer: Peer) -> Mapping[str, Callable[[], Any] | None]:
        async def together() -> None:
            await asyncio.gather(*(peer.aget(key) for key in keys))

        return {"": together if peer.aget else None}

    def requests(peer: Peer) -> Mapping[str, Callable[[], Any] | None]:
        async def request(number: int) -> None:
            # As Django's ASGI handler does for each request.
            async with ThreadSensitiveContext():
                for step in range(5):
                    await peer.aget(keys[(number + step) % 100])

        async def together() -> None:
            await asyncio.gather(*(request(number) for number in range(suite.options.requests)))

        return {"": together if peer.aget else None}

    few = max(1, suite.options.rounds // 3)
    return [
        suite.row(
            name,
            "100 concurrent gets",
            awaited=at_once,
            floor=AWAITED_FLOOR,
            rounds=few,
            calls=2,
            unit="ms",
        ),
        suite.row(
            f"{name}-requests",
            f"{suite.options.requests} requests at once, 5 gets each",
            awaited=requests,
            floor=AWAITED_FLOOR,
            rounds=few,
            calls=1,
            unit="ms",
        ),
    ]


def crowds(suite: Suite, name: str) -> Table:
    crowd = suite.options.crowd
    made = Table(
        f"{crowd:,} concurrent gets{suite.where}",
        ["median ms", "errors", "wrong answers", "first error"],
        name=name,
        note=f"Pools of connections may grow to {POOL:,}; redis-py's default refuses the"
        " hundred-and-first call.",
    )
    for peer in suite.peers.values():
        if peer.aget is None:
            continue

        async def together(peer: Peer = peer) -> list[Any]:
            calls = (peer.aget(f"key:{number % 100}") for number in range(crowd))
            return await asyncio.gather(*calls, return_exceptions=True)

        right = (suite.value, suite.value.encode())
        times, errors, wrong = [], [], 0
        for _ in range(3):
            before = suite.loop.time()
            answers = suite.loop.run_until_complete(together())
            times.append((suite.loop.time() - before) * 1e3)
            errors = [answer for answer in answers if isinstance(answer, BaseException)]
            wrong = sum(answer not in right for answer in answers) - len(errors)
        first = Failed.by(errors[0]).reason if errors else ""
        made.rows[f"{peer.name}, awaited"] = [sorted(times)[1], len(errors), wrong, first]
    return made


def direct(url: str, options: Options) -> list[Table]:
    """Everything, with values of 200 bytes; the single calls with 10 KB too."""
    suite = Suite(url, options, size=200, where=", 200 bytes")
    try:
        tables = [gets(suite, "get"), sets(suite, "set"), hits(suite, "hit")]
        tables += [*batches(suite, "batch"), *concurrent(suite, "concurrent")]
        tables.append(crowds(suite, "crowd"))
    finally:
        suite.close()
    return tables


def large(url: str, options: Options) -> list[Table]:
    suite = Suite(url, options, size=10_000, where=", 10 KB")
    try:
        return [gets(suite, "get-10k"), sets(suite, "set-10k"), hits(suite, "hit-10k")]
    finally:
        suite.close()


def far(url: str, options: Options) -> list[Table]:
    suite = Suite(url, options, size=200, where=", 2 ms away")
    few = {"rounds": max(1, options.rounds // 4)}
    try:
        tables = [
            suite.row(
                "get-far",
                "get",
                sync=lambda peer: _one(peer.get, "key"),
                awaited=lambda peer: _one(peer.aget, "key"),
                calls=5,
                unit="ms",
                **few,
            )
        ]
        tables += [batches(suite, "batch-far")[0], *concurrent(suite, "concurrent-far")]
    finally:
        suite.close()
    return tables
