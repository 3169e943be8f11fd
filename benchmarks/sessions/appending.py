"""Eight processes that append at once: to conversations of their own, and to one."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping

from benchmarks.measure import Failed
from benchmarks.report import Cell, Table
from benchmarks.sessions import workers
from benchmarks.sessions.options import Options
from benchmarks.sessions.peers import Peer, text
from benchmarks.sessions.workers import Workers

#: Appends of each process to the one conversation.
EACH = 60


def measure(
    pool: Workers, peers: Mapping[str, Peer], failed: Mapping[str, Failed], options: Options
) -> list[Table]:
    distinct = Table(
        f"{pool.writers} processes, each its own conversation",
        ["messages/s", "of raw psycopg", "errors"],
        name="distinct",
    )
    shared = Table(
        f"{pool.writers} processes, {EACH} appends each to one conversation",
        ["messages/s", "errors", "lost", "behind the reader"],
        name="shared",
        note="Another process reads the conversation all the time. Behind: messages that appeared"
        " before the position that the reader had reached, so that a reader who follows misses"
        " them. A writer whose append is refused reloads the conversation and continues.",
    )
    for name, peer in peers.items():
        maker = peers["agent_sessions"] if name.startswith("agent_sessions") else peer
        distinct.rows[name] = _tried(lambda: _distinct(pool, name, maker, options))  # noqa: B023
        # A plain INSERT has no order that a reader could follow.
        if name != "raw psycopg":
            shared.rows[name] = _tried(lambda: _shared(pool, name, maker))  # noqa: B023
    floor = distinct.column("messages/s")["raw psycopg"]
    for cells in distinct.rows.values():
        if isinstance(cells[0], float):
            cells.insert(1, cells[0] / floor)
    for name, reason in failed.items():
        distinct.rows[name] = shared.rows[name] = [f"failed: {reason.reason}"]
    return [distinct, shared]


def _tried(measurement: Callable[[], list[Cell]]) -> list[Cell]:
    try:
        return measurement()
    except Exception as error:
        return [f"failed: {Failed.by(error).reason}"]


def _distinct(pool: Workers, name: str, maker: Peer, options: Options) -> list[Cell]:
    talks = [maker.converse(1) for _ in range(pool.writers)]
    done, _ = pool.together(_append_for, [(name, talk, options.seconds) for talk in talks])
    return [sum(rate for rate, _ in done), sum(errors for _, errors in done)]


def _shared(pool: Workers, name: str, maker: Peer) -> list[Cell]:
    talk = maker.converse(1)
    with pool.beside(_follow, name, talk) as follower:
        results, took = pool.together(
            _append_times, [(name, talk, number) for number in range(pool.writers)]
        )
    ((behind, found),) = follower
    errors = sum(results)
    appended = pool.writers * EACH - errors
    return [appended / took, errors, appended - (found - 1), behind]


def _append_for(name: str, talk: str, seconds: float) -> tuple[float, int]:
    """Append for some seconds; return the rate and the number of failures."""
    peer, count, errors = workers.peers[name], 0, 0
    opened = peer.open(talk)
    peer.run(peer.append(opened, text(0)))
    began = now = time.monotonic()
    while now < began + seconds:
        try:
            peer.run(peer.append(opened, text(count)))
            count += 1
        except Exception:
            errors += 1
        now = time.monotonic()
    return count / (now - began), errors


def _append_times(name: str, talk: str, number: int) -> int:
    """Append a number of times; return how many failed."""
    peer, errors = workers.peers[name], 0
    opened = peer.open(talk)
    for turn in range(EACH):
        try:
            peer.run(peer.append(opened, f"{number}:{turn}"))
        except Exception:
            errors += 1
            with contextlib.suppress(Exception):
                opened = peer.open(talk)
    return errors


def _follow(name: str, talk: str) -> tuple[int, int]:
    """Read until the writers end; return how many messages came too late, and how many exist."""
    peer = workers.peers[name]
    opened = peer.open(talk)
    seen: set[str] = set()
    behind, texts, last_look = 0, [], False
    while not last_look:
        last_look = workers.over()
        texts = peer.run(peer.read(opened))
        last = max((place for place, text in enumerate(texts) if text in seen), default=-1)
        behind += sum(text not in seen for text in texts[: last + 1])
        seen.update(texts)
        time.sleep(0.001)
    return behind, len(texts)
