"""Where the CPU time of an append goes: what each layer adds, and what each index costs."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from benchmarks.measure import server_cpu
from benchmarks.report import Table
from benchmarks.sessions.options import Options
from benchmarks.sessions.peers import Peer, text
from benchmarks.sessions.single import FLOOR

#: Indexes and constraints that are dropped, one after the other.
DROPS = {
    "without the search index": "DROP INDEX {search_index}",
    "and without the session's indexes on what an append changes": (
        "DROP INDEX agent_session_activity, agent_session_numbers, agent_session_expiry,"
        " agent_session_retention"
    ),
    "and without the foreign key": (
        "ALTER TABLE agent_sessions_message DROP CONSTRAINT {foreign_key}"
    ),
}
ONE, MANY = 1, 100


class Share:
    """Appends of a number of messages, through more and more of the layers."""

    def __init__(self, peers: dict[str, Peer], count: int) -> None:
        from django.db import connection

        from agent_sessions.postgresql.append_function import NAME

        ours, floor, cte = (
            peers[name] for name in ("agent_sessions", FLOOR, "raw psycopg, one CTE")
        )
        contents = [text(number) for number in range(count)]
        rows = json.dumps([["user", content, {}, None, None] for content in contents])
        call = f"SELECT {NAME}(%s, NULL, NULL, %s, %s, %s, NULL)"
        bare, conversation = floor.converse(1), ours.converse(1)
        raw: Any = floor._raw  # type: ignore[attr-defined]
        other: Any = cte._raw  # type: ignore[attr-defined]
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_backend_pid()")
            django = cursor.fetchone()[0]

        def append(peer: Peer, where: str) -> Callable[[], Any]:
            if count == ONE:
                return lambda: peer.append(where, contents[0])
            return lambda: peer.append_many(where, contents)

        def values() -> tuple[str, ...]:
            now = datetime.now(UTC).isoformat()
            return conversation, now, now, rows

        def by_django() -> None:
            with connection.cursor() as cursor:
                cursor.execute(call, values())
                cursor.fetchone()

        self.layers: dict[str, tuple[Callable[[], Any], int]] = {
            "raw psycopg, INSERT": (append(floor, bare), raw.info.backend_pid),
            "raw psycopg, one CTE": (append(cte, bare), other.info.backend_pid),
            "the function, by raw psycopg": (
                lambda: raw.execute(call, values()).fetchone(),
                raw.info.backend_pid,
            ),
            "the function, by Django's cursor": (by_django, django),
            "the repository": (append(ours, conversation), django),
        }
        what = "one append's" if count == ONE else f"an append of {count}'s"
        self.table = Table(
            f"Where {what} CPU time goes",
            ["client µs", "server µs", "both"],
            name="shares" if count == ONE else f"shares-{count}",
            note="For calls one after the other. The server's time is that of the process of the"
            " connection, without background work.",
        )

    def measure(self, layer: str, turns: int, name: str = "") -> None:
        self.table.rows[name or layer] = _cpu(*self.layers[layer], turns)


def measure(peers: dict[str, Peer], options: Options) -> list[Table]:
    """Measure the layers. This drops indexes: nothing can be measured afterwards."""
    from django.db import connection

    from agent_sessions.postgresql import search_index

    turns = options.rounds * options.calls
    shares = {Share(peers, ONE): turns, Share(peers, MANY): max(1, turns // 5)}
    for share, times in shares.items():
        for layer in share.layers:
            share.measure(layer, times)
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT quote_ident(conname) FROM pg_constraint WHERE contype = 'f'"
            " AND conrelid = 'agent_sessions_message'::regclass"
        )
        dropped = {"foreign_key": cursor.fetchone()[0], "search_index": search_index.NAME}
        for name, statement in DROPS.items():
            cursor.execute(statement.format(**dropped))
            for share, times in shares.items():
                share.measure("the function, by raw psycopg", times, f"… {name}")
    return [share.table for share in shares]


def _cpu(work: Callable[[], Any], pid: int, turns: int) -> list[Any]:
    found = []
    for _ in range(5):
        work()
        client, server = time.process_time(), server_cpu(pid)
        for _turn in range(turns):
            work()
        client, server = time.process_time() - client, server_cpu(pid) - server
        found.append((client / turns * 1e6, server / turns * 1e6))
    mine, its = (statistics.median(times) for times in zip(*found, strict=True))
    return [mine, its, mine + its]
