"""Work on many rows while others write: completing expired sessions, contexts, bulk status."""

from __future__ import annotations

import random
import time
import uuid
from typing import Any

from benchmarks.report import Table
from benchmarks.sessions import workers
from benchmarks.sessions.options import Options
from benchmarks.sessions.workers import Workers

KEYS = 40


def measure(pool: Workers, options: Options) -> list[Table]:
    return [cleanup(pool, options), contexts(pool), bulk_status(pool, options)]


def cleanup(pool: Workers, options: Options) -> Table:
    """Complete expired sessions, by the repository and by one UPDATE, beside an appender."""
    made = Table(
        f"Complete {options.expired:,} expired sessions of {options.sessions:,}",
        ["s", "completed", "appends meanwhile", "longest append ms"],
        name="cleanup",
        note="Another process appends to these sessions all the time; the ones that it reaches"
        " first stay active.",
    )
    for name, complete in (("agent_sessions", _repository), ("one UPDATE", _one_update)):
        ids = _expire(options.expired)
        with pool.beside(_append, ids) as appended:
            time.sleep(0.3)
            before = time.time()
            count = complete()
            took = time.time() - before
        meanwhile = [
            end - begin for begin, end in appended[0] if begin < before + took and end > before
        ]
        longest = max(meanwhile, default=0.0) * 1e3
        made.rows[name] = [took, count, len(meanwhile), longest]
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


def _append(ids: list[uuid.UUID]) -> list[tuple[float, float]]:
    """Append to random ones of the sessions; return when each append began and ended."""
    from agent_sessions.repository import SyncSessionRepository

    repository, choice, times = SyncSessionRepository(), random.Random(1), []
    while not workers.over():
        before = time.time()
        repository.add_message_to_session(
            choice.choice(ids), {"role": "user", "content": "still here"}
        )
        times.append((before, time.time()))
        time.sleep(0.002)
    return times


def contexts(pool: Workers) -> Table:
    """Writers that each merge keys of their own into one session's context."""
    from agent_sessions.models import Session
    from benchmarks.naive.models import NaiveSession
    from benchmarks.sessions.peers.ours import user_key

    made = Table(
        f"{pool.writers} processes merge {KEYS} keys each into one context",
        ["keys lost", "merges/s"],
        name="contexts",
        note="The plain pair reads the session, changes its context and saves it.",
    )
    models: dict[str, Any] = {"agent_sessions": Session, "plain ORM pair": NaiveSession}
    for name, model in models.items():
        target = model.objects.create(user_id=user_key("talker"), title="context").pk
        _, took = pool.together(_merge, [(name, target, number) for number in range(pool.writers)])
        kept = len(model.objects.get(pk=target).context)
        made.rows[name] = [pool.writers * KEYS - kept, pool.writers * KEYS / took]
    return made


def _merge(name: str, target: Any, number: int) -> None:
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


def bulk_status(pool: Workers, options: Options) -> Table:
    """Writers that set the status of the same sessions, each in an order of its own."""
    from agent_sessions.models import Session

    writers = max(2, pool.writers // 2)
    made = Table(
        f"{writers} processes set the status of the same {options.bulk:,} sessions, shuffled",
        ["deadlocks", "s"],
        name="bulk",
        note=f"Each process sets it {options.bulk_turns} times. `row by row`: in one transaction,"
        " in the given order.",
    )
    found = Session.objects.filter(agent_id="mass").order_by("pk").values_list("pk", flat=True)
    ids = list(found[: options.bulk])
    for name in ("agent_sessions", "row by row"):
        deadlocks, took = pool.together(
            _set_status, [(name, ids, number, options.bulk_turns) for number in range(writers)]
        )
        made.rows[name] = [sum(deadlocks), took]
    return made


def _set_status(name: str, ids: list[uuid.UUID], number: int, turns: int) -> int:
    from django.db import OperationalError, transaction

    from agent_sessions.models import Session
    from agent_sessions.repository import SyncSessionRepository

    repository, choice, deadlocks = SyncSessionRepository(), random.Random(number), 0
    for turn in range(turns):
        shuffled = choice.sample(ids, len(ids))
        status = "paused" if (turn + number) % 2 else "active"
        try:
            if name == "agent_sessions":
                repository.bulk_update_session_status(shuffled, status)
                continue
            with transaction.atomic():
                for pk in shuffled:
                    Session.objects.filter(pk=pk).update(status=status)
        except OperationalError as error:
            if "deadlock" not in str(error):
                raise
            deadlocks += 1
    return deadlocks
