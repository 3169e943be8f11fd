"""Where the CPU time of one append goes: what each layer adds, and what each index costs."""

from __future__ import annotations

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

#: What is dropped, one after the other, while the function is called.
DROPS = {
    "without the search index": "DROP INDEX agent_message_text",
    "and without the session's indexes on what an append changes": (
        "DROP INDEX agent_session_activity, agent_session_numbers, agent_session_expiry,"
        " agent_session_retention"
    ),
    "and without the foreign key": (
        "ALTER TABLE agent_sessions_message DROP CONSTRAINT {foreign_key}"
    ),
}


def measure(peers: dict[str, Peer], options: Options) -> list[Table]:
    """Spoils the tables: nothing can be measured afterwards."""
    from django.db import connection

    from agent_sessions.append_function import NAME

    ours, floor, cte = (peers[name] for name in ("agent_sessions", FLOOR, "raw psycopg, one CTE"))
    conversation = ours.converse(1)
    call = f"SELECT {NAME}(%s, NULL, %s, %s, %s, NULL)"
    rows = f'[["user", "{text(1)}", {{}}, null, null]]'

    def values() -> tuple[str, ...]:
        now = datetime.now(UTC).isoformat()
        return conversation, now, now, rows

    raw: Any = floor._raw  # type: ignore[attr-defined]
    other: Any = cte._raw  # type: ignore[attr-defined]

    def by_django() -> None:
        with connection.cursor() as cursor:
            cursor.execute(call, values())
            cursor.fetchone()

    def by_psycopg() -> None:
        raw.execute(call, values()).fetchone()

    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        django = cursor.fetchone()[0]
        cursor.execute(
            "SELECT quote_ident(conname) FROM pg_constraint WHERE contype = 'f'"
            " AND conrelid = 'agent_sessions_message'::regclass"
        )
        (foreign_key,) = cursor.fetchone()
    bare = floor.converse(1)
    made = Table(
        "Where one append's CPU time goes",
        ["client µs", "server µs", "both"],
        name="shares",
        note="Of calls one after the other. The server's is that of its process for the"
        " connection, and without what it does in the background.",
    )
    turns = options.rounds * options.calls
    layers: dict[str, tuple[Callable[[], Any], int]] = {
        "raw psycopg, INSERT": (lambda: floor.append(bare, text(1)), raw.info.backend_pid),
        "raw psycopg, one CTE": (lambda: cte.append(bare, text(1)), other.info.backend_pid),
        "the function, by raw psycopg": (by_psycopg, raw.info.backend_pid),
        "the function, by Django's cursor": (by_django, django),
        "the repository": (lambda: ours.append(conversation, text(1)), django),
    }
    for name, (work, pid) in layers.items():
        made.rows[name] = _cpu(work, pid, turns)
    for name, statement in DROPS.items():
        raw.execute(statement.format(foreign_key=foreign_key))
        made.rows[f"… {name}"] = _cpu(by_psycopg, raw.info.backend_pid, turns)
    return [made]


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
