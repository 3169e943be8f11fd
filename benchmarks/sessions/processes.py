"""Eight processes that append at once: to conversations of their own, and to one."""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import time
from collections.abc import Mapping
from multiprocessing.synchronize import Event
from typing import Any

from benchmarks.measure import Failed
from benchmarks.report import Cell, Table
from benchmarks.sessions.database import Dsn, configure
from benchmarks.sessions.options import Options
from benchmarks.sessions.peers import Peer, connect, text

WORKERS = 8
#: Appends of each process to the one conversation.
EACH = 60
LIMIT = 120.0

_peers: dict[str, Peer] = {}
_done: Event


def measure(
    peers: Mapping[str, Peer], failed: Mapping[str, Failed], dsn: Dsn, options: Options
) -> list[Table]:
    # Forked from a process that has imported everything: eight times the imports of the
    # frameworks would take longer than the measurement.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["benchmarks.sessions.preload"])
    done = context.Event()
    distinct = Table(
        f"{WORKERS} processes, each its own conversation",
        ["messages/s", "of raw INSERT", "errors"],
        name="distinct",
    )
    shared = Table(
        f"{WORKERS} processes, {EACH} appends each to one conversation",
        ["messages/s", "errors", "lost", "behind the reader"],
        name="shared",
        note="Another process reads the conversation all the time. Behind: messages that appeared"
        " at a place before what it had read, where a reader that follows never sees them.",
    )
    names = [*peers]
    with context.Pool(WORKERS + 1, _start, (dsn, names, done)) as pool:
        # Each worker has to have connected; they take one task each, as all wait.
        pool.map(_ready, range(WORKERS + 1), chunksize=1)
        for name, peer in peers.items():
            maker = peers["agent_sessions"] if name.endswith(", awaited") else peer
            try:
                distinct.rows[name] = _distinct(pool, name, maker, options)
                if peer.has("read"):
                    shared.rows[name] = _shared(pool, name, maker, done)
            except Exception as error:
                distinct.rows.setdefault(name, [f"failed: {Failed.by(error).reason}"])
                shared.rows[name] = [f"failed: {Failed.by(error).reason}"]
    floor = distinct.column("messages/s")["raw INSERT"]
    for cells in distinct.rows.values():
        if isinstance(cells[0], int | float):
            cells.insert(1, cells[0] / floor)
    # One INSERT gives no order: there is nothing to follow.
    shared.rows.pop("raw INSERT", None)
    for name, reason in failed.items():
        distinct.rows[name] = shared.rows[name] = [f"failed: {reason.reason}"]
    return [distinct, shared]


def _distinct(pool: Any, name: str, maker: Peer, options: Options) -> list[Cell]:
    talks = [maker.converse(1) for _ in range(WORKERS)]
    start = time.time() + 0.3
    jobs = [
        pool.apply_async(_append_for, (name, talk, start, options.seconds)) for talk in talks
    ]
    done = [job.get(LIMIT) for job in jobs]
    return [sum(count for count, _ in done) / options.seconds, sum(errors for _, errors in done)]


def _shared(pool: Any, name: str, maker: Peer, done: Event) -> list[Cell]:
    talk = maker.converse(1)
    done.clear()
    reader = pool.apply_async(_follow, (name, talk))
    start = time.time() + 0.5
    jobs = [
        pool.apply_async(_append_times, (name, talk, start, number)) for number in range(WORKERS)
    ]
    try:
        results = [job.get(LIMIT) for job in jobs]
    finally:
        done.set()
    behind, found = reader.get(LIMIT)
    errors = sum(count for count, _ in results)
    took = max(seconds for _, seconds in results)
    appended = WORKERS * EACH - errors
    return [appended / took, errors, appended - (found - 1), behind]


def _start(dsn: Dsn, names: list[str], done: Event) -> None:
    global _done
    _done = done
    configure(dsn["dbname"])
    asyncio.set_event_loop(asyncio.new_event_loop())
    _peers.update(connect(names, dsn)[0])


def _ready(number: int) -> None:
    time.sleep(0.5)


def _append_for(name: str, talk: str, start: float, seconds: float) -> tuple[int, int]:
    """Append until the time is over; return how many, and how many failed."""
    peer, count, errors = _peers[name], 0, 0
    opened = peer.open(talk)
    peer.run(peer.append(opened, text(0)))
    time.sleep(max(0.0, start - time.time()))
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            peer.run(peer.append(opened, text(count)))
            count += 1
        except Exception:
            errors += 1
    return count, errors


def _append_times(name: str, talk: str, start: float, number: int) -> tuple[int, float]:
    """Append so many times; return how many failed, and the seconds."""
    peer, errors = _peers[name], 0
    opened = peer.open(talk)
    time.sleep(max(0.0, start - time.time()))
    began = time.monotonic()
    for turn in range(EACH):
        try:
            peer.run(peer.append(opened, f"{number}:{turn}"))
        except Exception:
            errors += 1
            with contextlib.suppress(Exception):
                opened = peer.open(talk)
    return errors, time.monotonic() - began


def _follow(name: str, talk: str) -> tuple[int, int]:
    """Read again and again; return how many messages appeared too late, and how many there are."""
    peer = _peers[name]
    opened = peer.open(talk)
    seen: set[str] = set()
    behind, texts = 0, []
    finished = False
    while not finished:
        finished = _done.is_set()
        texts = peer.run(peer.read(opened))
        last = max((place for place, text in enumerate(texts) if text in seen), default=-1)
        behind += sum(text not in seen for text in texts[: last + 1])
        seen.update(texts)
        time.sleep(0.001)
    return behind, len(texts)
