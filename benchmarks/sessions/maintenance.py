"""Work on many rows while others write: completing expired sessions, contexts, bulk status."""

from __future__ import annotations

import multiprocessing
import random
import time
import uuid
from multiprocessing.connection import Connection
from typing import Any

import psycopg
from tqdm import tqdm

from benchmarks.report import Table
from benchmarks.sessions.database import Dsn, configure
from benchmarks.sessions.options import Options

WRITERS = 8
KEYS = 40
BULK_WRITERS = 4
BULK_TURNS = 5


def cleanup(dsn: Dsn, options: Options) -> Table:
    """Complete expired sessions, by the repository and by one UPDATE, beside an appender."""
    made = Table(
        f"Complete {options.expired:,} expired sessions of {options.sessions:,}",
        ["s", "completed", "appends meanwhile", "longest append ms"],
        name="cleanup",
        note="Another process appends to sessions that are being completed.",
    )
    for name, complete in (("agent_sessions", _repository), ("one UPDATE", _one_update)):
        ids = _expire(options.expired)
        with _Appender(dsn, ids) as appender:
            before = time.perf_counter()
            count = complete()
            took = time.perf_counter() - before
        made.rows[name] = [took, count, len(appender.times), max(appender.times) * 1e3]
    return made


def _expire(count: int) -> list[uuid.UUID]:
    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE agent_sessions_session SET status = 'active', expires_at = '2026-02-01'"
            " WHERE id IN (SELECT id FROM agent_sessions_session WHERE agent_id = 'mass'"
            " ORDER BY id LIMIT %s) RETURNING id",
            (count,),
        )
        ids = [id for (id,) in cursor.fetchall()]
        cursor.execute("VACUUM ANALYZE agent_sessions_session")
    return ids


def _repository() -> int:
    from agent_sessions.repository import SyncSessionRepository

    return SyncSessionRepository().cleanup_expired_sessions()


def _one_update() -> int:
    from django.db.models.functions import Now

    from agent_sessions.models import Session, SessionStatus

    expired = Session.objects.filter(status__in=["active", "paused"], expires_at__lt=Now())
    return expired.update(status=SessionStatus.COMPLETED)


class _Appender:
    """Another process that appends to random ones of the sessions, and notes how long it took."""

    def __init__(self, dsn: Dsn, ids: list[uuid.UUID]) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, there = context.Pipe()
        self._process = context.Process(target=_append, args=(dsn, ids, there), daemon=True)
        self.times: list[float] = []

    def __enter__(self) -> _Appender:
        self._process.start()
        self._pipe.recv()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._pipe.send("stop")
        self.times = self._pipe.recv() if self._pipe.poll(60) else [60.0]
        self._process.join(10)
        self._process.kill()


def _append(dsn: Dsn, ids: list[uuid.UUID], pipe: Connection) -> None:
    configure(dsn["dbname"])
    from agent_sessions.repository import SyncSessionRepository

    repository, choice, times = SyncSessionRepository(), random.Random(1), []
    for turn in range(1_000_000):
        before = time.perf_counter()
        repository.add_message_to_session(
            choice.choice(ids), {"role": "user", "content": "still here"}
        )
        times.append(time.perf_counter() - before)
        if turn == 5:
            times.clear()
            pipe.send("ready")
        if pipe.poll():
            break
        time.sleep(0.002)
    pipe.send(times or [0.0])


def contexts(dsn: Dsn) -> Table:
    """Writers that each merge keys of their own into one session's context."""
    made = Table(
        f"{WRITERS} writers merge {KEYS} keys each into one context",
        ["keys lost", f"of {WRITERS * KEYS}", "merges/s"],
        name="contexts",
        note="The plain pair reads the session, changes its context and saves it.",
    )
    for name in ("agent_sessions", "plain ORM pair"):
        target = _target(name)
        began = time.perf_counter()
        _in_processes(_merge, [(dsn, name, target, number) for number in range(WRITERS)])
        took = time.perf_counter() - began
        kept = len(_context(name, target))
        total = WRITERS * KEYS
        made.rows[name] = [total - kept, total, total / took]
    return made


def _target(name: str) -> Any:
    from agent_sessions.models import Session
    from benchmarks.naive.models import NaiveSession
    from benchmarks.sessions.peers.ours import user_key

    owner = {"user_id": user_key("talker")}
    model = Session if name == "agent_sessions" else NaiveSession
    return model.objects.create(**owner, title="context").pk


def _context(name: str, target: Any) -> dict[str, Any]:
    from agent_sessions.models import Session
    from benchmarks.naive.models import NaiveSession

    model = Session if name == "agent_sessions" else NaiveSession
    context: dict[str, Any] = model.objects.get(pk=target).context
    return context


def _merge(dsn: Dsn, name: str, target: Any, number: int) -> int:
    configure(dsn["dbname"])
    from agent_sessions.repository import SyncSessionRepository
    from benchmarks.naive.models import NaiveSession

    repository = SyncSessionRepository()
    for turn in range(KEYS):
        delta = {f"{number}:{turn}": turn}
        if name == "agent_sessions":
            repository.update_session_context(target, delta)
        else:
            session = NaiveSession.objects.get(pk=target)
            session.context.update(delta)
            session.save()
    return 0


def bulk_status(dsn: Dsn, options: Options) -> Table:
    """Writers that set the status of the same sessions, each in an order of its own."""
    made = Table(
        f"{BULK_WRITERS} writers set the status of the same {options.bulk:,} sessions, shuffled",
        ["deadlocks", "s"],
        name="bulk",
        note="`one UPDATE`: of the rows whose ids are given, as psycopg sends it.",
    )
    from agent_sessions.models import Session

    ids = list(Session.objects.filter(agent_id="mass").values_list("pk", flat=True)[: options.bulk])
    for name in ("agent_sessions", "one UPDATE"):
        began = time.perf_counter()
        deadlocks = _in_processes(
            _set_status, [(dsn, name, ids, number) for number in range(BULK_WRITERS)]
        )
        made.rows[name] = [sum(deadlocks), time.perf_counter() - began]
    return made


def _set_status(dsn: Dsn, name: str, ids: list[uuid.UUID], number: int) -> int:
    configure(dsn["dbname"])
    from agent_sessions.repository import SyncSessionRepository

    repository, choice, deadlocks = SyncSessionRepository(), random.Random(number), 0
    with psycopg.connect(**dsn, autocommit=True) as raw:
        for turn in range(BULK_TURNS):
            shuffled = choice.sample(ids, len(ids))
            status = "paused" if (turn + number) % 2 else "active"
            try:
                if name == "agent_sessions":
                    repository.bulk_update_session_status(shuffled, status)
                else:
                    raw.execute(
                        "UPDATE agent_sessions_session SET status = %s FROM unnest(%s::uuid[])"
                        " AS given (id) WHERE agent_sessions_session.id = given.id",
                        (status, shuffled),
                    )
            except Exception as error:
                if "deadlock" not in str(error):
                    raise
                deadlocks += 1
    return deadlocks


def _in_processes(work: Any, calls: list[tuple[Any, ...]]) -> list[int]:
    context = multiprocessing.get_context("forkserver")
    with context.Pool(len(calls)) as pool:
        jobs = [pool.apply_async(work, call) for call in calls]
        return [job.get(300) for job in tqdm(jobs, desc=work.__name__.strip("_"), leave=False)]
