"""One call at a time: appends, reads and lists of every store, taking turns."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

from benchmarks.measure import Awaited, Call, Failed, Result, race
from benchmarks.report import Table, timings
from benchmarks.sessions.data import listed
from benchmarks.sessions.options import Options
from benchmarks.sessions.peers import Peer, text

FLOOR = "raw psycopg"


class Single:
    """The stores, each with a conversation of every length."""

    def __init__(
        self, peers: Mapping[str, Peer], failed: Mapping[str, Failed], options: Options
    ) -> None:
        self.peers, self.failed, self.options = dict(peers), dict(failed), options
        self._opened: dict[tuple[str, int], Any] = {}
        for name, peer in peers.items():
            maker = self.peers.get("agent_sessions") if name.startswith("agent_sessions") else peer
            assert maker is not None
            for length in options.lengths:
                self._opened[name, length] = peer.open(maker.converse(length))

    def race(
        self,
        call: Callable[[Peer, str], Call | None],
        *,
        calls: int | None = None,
    ) -> dict[str, Result | Failed]:
        contestants: dict[str, Call] = {}
        for name, peer in self.peers.items():
            made = call(peer, name)
            if made is not None:
                contestants[name] = made
        return race(
            contestants,
            rounds=self.options.rounds,
            calls=calls or self.options.calls,
            loop=asyncio.get_event_loop(),
            budget=self.options.budget,
        )

    def appends(self, length: int) -> dict[str, Result | Failed]:
        return self.race(
            lambda peer, name: peer.call(peer.append, self._opened[name, length], text(1))
        )

    def lasts(self, length: int) -> dict[str, Result | Failed]:
        return self.race(
            lambda peer, name: (
                peer.call(peer.last, self._opened[name, length], 50) if peer.has("last") else None
            )
        )

    def tables(self) -> list[Table]:
        """Appends and reads; then what they cost in conversations of each length."""
        few, *_, many = self.options.lengths
        appends = {length: self.appends(length) for length in self.options.lengths}
        lasts = {length: self.lasts(length) for length in self.options.lengths[1:]}
        hundred = [text(number) for number in range(100)]
        batch = self.race(
            lambda peer, name: peer.call(peer.append_many, self._opened[name, few], hundred),
            calls=1,
        )
        return [
            self._table("append", f"Append one message to a conversation of {few}", appends[few]),
            self._table("append-long", f"Append one message, of {many:,}", appends[many]),
            self._table(
                "batch",
                "Append 100 messages",
                batch,
                note="In one call where the store has one. agno: one run of 100 messages. ADK and"
                " the plain pair: one by one.",
            ),
            self._table("last", f"The last 50 of {many:,} messages", lasts[many]),
            _growth("append-length", "Append one message, by length of the conversation", appends),
            _growth("last-length", "The last 50 messages, by length of the conversation", lasts),
        ]

    def _table(
        self, name: str, title: str, results: dict[str, Result | Failed], note: str = ""
    ) -> Table:
        return timings(title, results | self.failed, floor=FLOOR, unit="ms", name=name, note=note)

    def listings(self) -> list[Table]:
        """The newest sessions of a user, deep pages, statistics."""
        for count in self.options.listed:
            for peer in self.peers.values():
                if peer.has("populate"):
                    peer.populate(listed(count), count)
        return [
            *(self._newest(count) for count in self.options.listed),
            self._pages(self.options.listed[-1]),
            self._table(
                "stats",
                f"Statistics of a user of {self.options.listed[-1]:,} sessions",
                self._of_user("stats", listed(self.options.listed[-1])),
            ),
        ]

    def _newest(self, count: int) -> Table:
        return self._table(
            f"newest-{count}",
            f"The newest 50 sessions of a user of {count:,}",
            self._of_user("newest", listed(count), 50),
            note="agent_sessions and raw among all sessions of the table; the others have only"
            " those of such users. ADK has no limit and returns all.",
        )

    def _of_user(self, operation: str, *args: Any) -> dict[str, Result | Failed]:
        return self.race(
            lambda peer, name: (
                peer.call(getattr(peer, operation), *args) if peer.has(operation) else None
            )
        )

    def _pages(self, count: int) -> Table:
        size = 50
        deep = max(1, count // size - 1)
        user = listed(count)
        contestants: dict[str, Call] = {}
        for name, peer in self.peers.items():
            if peer.has("page"):
                contestants[f"{name}, page 1"] = peer.call(peer.page, user, 1, size)
                contestants[f"{name}, page {deep:,}"] = peer.call(peer.page, user, deep, size)
        results = race(
            contestants,
            rounds=self.options.rounds,
            calls=1,
            loop=asyncio.get_event_loop(),
            budget=self.options.budget,
        )
        made = timings(
            f"Pages of 50 sessions, of {count:,}",
            results,
            floor=f"{FLOOR}, page 1",
            unit="ms",
            name="pages",
            note="With the total. Raw: count(*) and OFFSET; the plain pair: Django's Paginator.",
        )
        made.columns.append("against page 1")
        for name in self.peers:
            first, last = (results.get(f"{name}, page {n:,}") for n in (1, deep))
            if isinstance(first, Result) and isinstance(last, Result):
                made.rows[f"{name}, page {deep:,}"].append(last.median / first.median)
        return made


def _growth(name: str, title: str, results: Mapping[int, Mapping[str, Result | Failed]]) -> Table:
    """Medians by length, and the longest against the shortest."""
    few, many = min(results), max(results)
    made = Table(
        title,
        [*(f"{length:,}" for length in results), f"{many:,} against {few:,}"],
        name=name,
        note="Medians in ms.",
    )
    for row in results[few]:
        found = [results[length].get(row) for length in results]
        cells: list[Any] = [
            result.median * 1e3 if isinstance(result, Result) else None for result in found
        ]
        grown = cells[-1] / cells[0] if cells[0] and cells[-1] else None
        made.rows[row] = [*cells, grown]
    return made


def growth(rows: Mapping[int, Mapping[str, Result | Failed]]) -> Table:
    """What the same calls cost as the tables grew."""
    return _growth("size", "By number of sessions in the table", rows)


def at_size(peers: Mapping[str, Peer], options: Options, talk: Mapping[str, Any]) -> dict[str, Any]:
    """Append, last 50 and newest 50, of raw and ours, with what is in the table now."""
    contestants: dict[str, Call] = {}
    user = listed(options.listed[0])
    for name in (FLOOR, "raw psycopg, one CTE", "agent_sessions"):
        peer = peers[name]
        contestants[f"{name}, append"] = peer.call(peer.append, talk[name], text(1))
        if name != "raw psycopg, one CTE":
            contestants[f"{name}, last 50"] = peer.call(peer.last, talk[name], 50)
            contestants[f"{name}, newest 50"] = peer.call(peer.newest, user, 50)
    assert not any(isinstance(call, Awaited) for call in contestants.values())
    return race(contestants, rounds=options.rounds, calls=options.calls, budget=options.budget)
