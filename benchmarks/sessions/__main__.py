"""The session store against raw psycopg and a plain ORM pair, in one PostgreSQL, in one run.

    make bench-sessions [ARGS="--sessions 1000000 --messages 10000000"]

DATABASE_URL names the server; the benchmark makes a database of its own there and drops it.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import multiprocessing
import os
import time
from collections.abc import Callable, Iterator
from typing import Any
from uuid import UUID

import psycopg
from tqdm import tqdm

WORDS = [
    "loop",
    "agent",
    "cache",
    "django",
    "python",
    "error",
    "answer",
    "retry",
    "index",
    "message",
    "token",
    "window",
]
LONG, SHORT = 50_000, 10
RAW_INSERT = (
    "INSERT INTO raw_message (session_id, sequence, role, content, metadata, created_at) "
    "VALUES (%s, %s, 'user', %s, '{}', now())"
)


def configure() -> dict[str, Any]:
    os.environ["DJANGO_SETTINGS_MODULE"] = "benchmarks.settings"
    import django

    django.setup()
    from django.db import connection

    return connection.settings_dict


def dsn(database: dict[str, Any]) -> dict[str, Any]:
    return {
        "host": database["HOST"],
        "port": database["PORT"] or 5432,
        "user": database["USER"],
        "password": database["PASSWORD"] or None,
        "dbname": database["NAME"],
    }


def text(number: int) -> str:
    return " ".join(WORDS[(number * step) % len(WORDS)] for step in (1, 3, 5, 7, 11)) + f" {number}"


class Data:
    """Users with few, many and very many sessions; a session of 50,000 messages for each store."""

    def __init__(self, sessions: int, messages: int) -> None:
        from django.contrib.auth import get_user_model

        create = get_user_model().objects.create_user
        self.few, self.many, self.most = (create(name) for name in ("few", "many", "most"))
        owners = [(self.few.pk, 100), (self.many.pk, 10_000)]
        if sessions >= 100_000:
            owners.append((self.most.pk, 60_000))
        rest = sessions - sum(count for _, count in owners)
        crowd = [create(f"user{n}").pk for n in range(max(1, min(rest // 100, 300)))]
        self.owners = list(
            itertools.chain(
                *(itertools.repeat(pk, count) for pk, count in owners),
                itertools.islice(itertools.cycle(crowd), max(rest, 0)),
            )
        )
        self.per_session = max(1, messages // len(self.owners))
        self.load()

    def load(self) -> None:
        from django.db import connection

        from agent_sessions.ids import uuid7

        ids = [uuid7() for _ in self.owners]
        self.long, self.short = ids[0], ids[1]
        lengths = [self.per_session] * len(ids)
        lengths[0], lengths[1] = LONG, SHORT
        sessions = (
            (id, user, "agent", f"Session {n} {WORDS[n % 12]}", length, length)
            for n, (id, user, length) in enumerate(zip(ids, self.owners, lengths, strict=True))
        )
        self.copy(
            "agent_sessions_session (id, user_id, agent_id, title, message_count, last_sequence,"
            " status, context, metadata, created_at, updated_at, last_activity_at, expires_at,"
            " idempotency_digest)",
            (
                (*row, "active", "{}", "{}", now, now, now, later, "")
                for row in sessions
                for now, later in [("2026-01-01T00:00:00Z", "2100-01-01T00:00:00Z")]
            ),
            len(ids),
        )
        self.copy(
            "agent_sessions_message (session_id, user_id, sequence, role, content, metadata,"
            " created_at)",
            (
                (id, user, sequence, "user", text(n + sequence), "{}", "2026-01-01T00:00:00Z")
                for n, (id, user, length) in enumerate(zip(ids, self.owners, lengths, strict=True))
                for sequence in range(1, length + 1)
            ),
            sum(lengths),
        )
        with connection.cursor() as cursor:
            cursor.execute(
                "CREATE TABLE raw_message (id bigserial PRIMARY KEY, session_id uuid NOT NULL,"
                " sequence int NOT NULL, role text NOT NULL, content text NOT NULL,"
                " metadata jsonb NOT NULL, created_at timestamptz NOT NULL,"
                " UNIQUE (session_id, sequence))"
            )
            cursor.execute(
                "INSERT INTO raw_message (session_id, sequence, role, content, metadata,"
                " created_at) SELECT session_id, sequence, role, content, metadata, created_at"
                " FROM agent_sessions_message"
            )
        from benchmarks.naive.models import NaiveMessage, NaiveSession

        self.naive_long, self.naive_short = (
            NaiveSession.objects.create(user=self.many, title=title) for title in ("long", "short")
        )
        for session, length in ((self.naive_long, LONG), (self.naive_short, SHORT)):
            NaiveMessage.objects.bulk_create(
                [NaiveMessage(session=session, role="user", content=text(n)) for n in range(length)]
            )
        NaiveSession.objects.bulk_create(
            [NaiveSession(user=self.many, title=f"Session {n}") for n in range(10_000)]
        )
        with connection.cursor() as cursor:
            cursor.execute("VACUUM ANALYZE")

    @staticmethod
    def copy(target: str, rows: Iterator[tuple[Any, ...]], total: int) -> None:
        from django.db import connection

        with connection.cursor() as cursor, cursor.copy(f"COPY {target} FROM STDIN") as copy:
            for row in tqdm(rows, total=total, desc=target.split()[0], unit="row"):
                copy.write_row(row)


def single_calls(data: Data, raw: psycopg.Connection[Any], rounds: int) -> None:
    from agent_sessions.models import Session
    from agent_sessions.repository import SessionRepository, SyncSessionRepository
    from benchmarks.measure import Result, table, take_turns
    from benchmarks.naive.models import NaiveMessage, NaiveSession

    repository = SyncSessionRepository()
    loop = asyncio.new_event_loop()
    awaited = SessionRepository()
    counter = itertools.count(10_000_000)
    message = {"role": "user", "content": text(1), "metadata": {"source": "bench"}}
    hundred = [message] * 100

    def raw_append(session: UUID) -> Callable[[], None]:
        return lambda: raw.execute(RAW_INSERT, (session, next(counter), text(1))) and None

    def raw_batch() -> None:
        with raw.transaction(), raw.cursor() as cursor:
            cursor.executemany(
                RAW_INSERT, [(data.short, next(counter), text(1)) for _ in range(100)]
            )

    def naive_append(session: NaiveSession) -> None:
        from django.db import transaction

        with transaction.atomic():
            NaiveMessage.objects.create(session=session, role="user", content=text(1))
            session.message_count = session.messages.count()
            session.save()

    def show(title: str, floor: str, results: dict[str, Result]) -> None:
        print(table(title, results, floor=floor), flush=True)

    for title, ours, naive in (
        (f"Append one message to a session of {SHORT}", data.short, data.naive_short),
        (f"Append one message to a session of {LONG}", data.long, data.naive_long),
    ):
        show(
            title,
            "raw INSERT",
            take_turns(
                {
                    "raw INSERT": raw_append(ours),
                    "repository": lambda ours=ours: repository.add_message_to_session(
                        ours, message
                    ),
                    "repository, awaited": lambda ours=ours: loop.run_until_complete(
                        awaited.add_message_to_session(ours, message)
                    ),
                    "plain ORM pair": lambda naive=naive: naive_append(naive),
                },
                rounds=rounds,
            ),
        )
    show(
        "Append 100 messages in one call",
        "raw executemany",
        take_turns(
            {
                "raw executemany": raw_batch,
                "repository": lambda: repository.add_messages(data.short, hundred),
                "plain ORM pair": lambda: [naive_append(data.naive_short) for _ in range(100)],
            },
            rounds=max(3, rounds // 10),
        ),
    )
    show(
        f"Last 50 of {LONG} messages",
        "raw SELECT",
        take_turns(
            {
                "raw SELECT": lambda: raw.execute(
                    "SELECT * FROM raw_message WHERE session_id = %s"
                    " ORDER BY sequence DESC LIMIT 50",
                    (data.long,),
                ).fetchall(),
                "repository": lambda: repository.get_messages(data.long, limit=50),
                "plain ORM pair": lambda: list(
                    data.naive_long.messages.order_by("-created_at")[:50]
                ),
            },
            rounds=rounds,
        ),
    )
    user = data.most if len(data.owners) >= 100_000 else data.many
    listing = {
        "newest 50 of 100": lambda: repository.get_user_sessions(data.few.pk, limit=50),
        "newest 50 of 10,000": lambda: repository.get_user_sessions(data.many.pk, limit=50),
        "newest 50 of the largest": lambda: repository.get_user_sessions(user.pk, limit=50),
        "statistics of 10,000": lambda: repository.get_session_stats(data.many.pk),
        "plain ORM pair, newest 50 of 10,000": lambda: list(
            NaiveSession.objects.filter(user=data.many).order_by("-updated_at")[:50]
        ),
    }
    show("Sessions of a user", "newest 50 of 100", take_turns(listing, rounds=rounds))
    show(
        "Search",
        "a word, user of 100 sessions",
        take_turns(
            {
                "a word, user of 100 sessions": lambda: repository.search_sessions(
                    data.few.pk, "window"
                ),
                "a rare word, user of 10,000": lambda: repository.search_sessions(
                    data.many.pk, "9999"
                ),
                "a common word, user of 10,000": lambda: repository.search_sessions(
                    data.many.pk, "window"
                ),
                "a part of a word, user of 10,000": lambda: repository.search_sessions(
                    data.many.pk, "indo"
                ),
            },
            rounds=max(3, rounds // 10),
        ),
    )
    loop.close()
    print(f"\n{Session.objects.count():,} sessions in the table")


def append_for(seconds: float, session: UUID, database: dict[str, Any], raw: bool) -> int:
    """In a process of its own: append until the time is over; return how many."""
    count = 0
    end = time.monotonic() + seconds
    if raw:
        with psycopg.connect(**dsn(database), autocommit=True) as connection:
            while time.monotonic() < end:
                count += 1
                number = os.getpid() * 100_000 % 1_000_000_000 + count
                connection.execute(RAW_INSERT, (session, number, text(count)))
        return count
    os.environ["BENCH_DATABASE"] = database["NAME"]
    configure()
    from agent_sessions.repository import SyncSessionRepository

    repository = SyncSessionRepository()
    while time.monotonic() < end:
        repository.add_message_to_session(session, {"role": "user", "content": text(count)})
        count += 1
    return count


def processes(data: Data, database: dict[str, Any], seconds: float) -> None:
    from django.db import connections

    from agent_sessions.models import Session

    sessions = list(Session.objects.for_user(data.many).values_list("pk", flat=True)[:8])
    connections.close_all()
    context = multiprocessing.get_context("spawn")
    print(f"\n### Eight processes, {seconds:g} s each\n\n| | messages/s |\n|---|---|")
    with context.Pool(8) as pool:
        # Imports and connections first, so that they are not measured.
        pool.starmap(append_for, [(0.5, session, database, False) for session in sessions], 1)
        for name, targets, raw in (
            ("raw INSERT, distinct sessions", sessions, True),
            ("repository, distinct sessions", sessions, False),
            ("repository, one session", sessions[:1] * 8, False),
        ):
            counts = pool.starmap(
                append_for, [(seconds, session, database, raw) for session in targets], 1
            )
            print(f"| {name} | {sum(counts) / seconds:,.0f} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sessions", type=int, default=100_000)
    parser.add_argument("--messages", type=int, default=300_000)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=5, help="of each run of eight processes")
    options = parser.parse_args()

    os.environ["BENCH_DATABASE"] = name = f"bench_{os.getpid()}"
    database = configure()
    server = {**dsn(database), "dbname": "postgres"}
    with psycopg.connect(**server, autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {name}")
    try:
        from django.core.management import call_command
        from django.db import connections

        call_command("migrate", verbosity=0)
        # The plain pair has no migrations; its tables need those of the users first.
        call_command("migrate", verbosity=0, run_syncdb=True)
        print(json.dumps({"sessions": options.sessions, "messages": options.messages}))
        data = Data(options.sessions, options.messages)
        with psycopg.connect(**dsn(database), autocommit=True) as raw:
            single_calls(data, raw, options.rounds)
        processes(data, database, options.seconds)
        connections.close_all()
    finally:
        with psycopg.connect(**server, autocommit=True) as admin:
            admin.execute(f"DROP DATABASE {name} WITH (FORCE)")


if __name__ == "__main__":
    main()
