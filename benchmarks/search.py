"""Search of one user's sessions among all users' messages, on PostgreSQL and on SQLite.

    python -m benchmarks.search [--messages 1000000] [--explain qz] [--database NAME]
    python -m benchmarks.search --sqlite [--messages 300000]

DATABASE_URL names the PostgreSQL server; the benchmark makes a database of its own there and
drops it. Texts are pieces of Python's own documentation, with Chinese, Japanese and Arabic ones
of drawn characters; one user has 100,000 messages, another has 1,000.
"""

from __future__ import annotations

import argparse
import itertools
import os
import random
import re
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

from tqdm import tqdm

from benchmarks.measure import server_cpu

PER_SESSION = 10
OPEN_AT_ONCE = 1_000
ENGLISH = re.sub(r"\s+", " ", " ".join(topics.values()))
KANA = "".join(map(chr, range(0x3042, 0x3094)))
ARABIC = "ابتثجحخدذرزسشصضطظعغفقكلمنهويأإةى"
TERMS = {
    "a common word": "the",
    "a word": "generator",
    "a rare word": "needle",
    "no word at all": "xylophone",
    "the beginning of a word": "gener",
    "the inside of a word": "terat",
    "a rare inside": "eedl",
    "two words": "class instance",
    "two letters, beginning of a word": "py",
    "two letters, inside of a word": "yt",
    "two letters that never occur": "qz",
    "one letter": "x",
    "a common Chinese character": "\u4e00",
    "two Chinese characters": "\u4e00\u4e01",
    "a rare Chinese character": "\u5780",
    "a Japanese word": "\u306e\u3042",
    "an Arabic word": "\u0633\u0644\u0627\u0645",
    "signs": "__",
}


class Texts:
    """Texts of many lengths (median 150 characters), a rare word in one of 10,000."""

    def __init__(self) -> None:
        self.random = random.Random(7)
        self.han = [chr(0x4E00 + number) for number in range(3_000)]
        self.arabic = ["".join(self.random.choices(ARABIC, k=2 + n % 6)) for n in range(5_000)]
        self.zipf = [1 / (rank + 3) for rank in range(5_000)]

    def __call__(self, number: int, language: str) -> str:
        length = min(4_000, int(self.random.lognormvariate(5.0, 0.9))) + 10
        draw = self.random.choices
        if language == "english":
            start = self.random.randrange(len(ENGLISH) - length)
            text = ENGLISH[start : start + length].partition(" ")[2]
        elif language == "chinese":
            drawn = draw(self.han, self.zipf[:3_000], k=length // 3)
            text = "\uff0c".join("".join(drawn[at : at + 9]) for at in range(0, len(drawn), 9))
        elif language == "japanese":
            pairs = zip(
                draw(self.han, self.zipf[:3_000], k=length // 4),
                draw(KANA, k=length // 4),
                strict=True,
            )
            text = "".join(itertools.chain.from_iterable(pairs))
        else:
            text = " ".join(draw(self.arabic, self.zipf, k=length // 6 + 1))
        return f"{text} ref{number}{' needle' if number % 10_000 == 17 else ''}"


class Data:
    """Yield sessions of ten messages, a thousand of them interleaved."""

    def __init__(self, messages: int) -> None:
        from django.contrib.auth import get_user_model

        create = get_user_model().objects.create_user
        sessions = max(messages // PER_SESSION, 300)
        self.users = {
            min(100_000, messages // 3): create("large").pk,
            min(1_000, messages // 3): create("small").pk,
        }
        owners = [pk for size, pk in self.users.items() for _ in range(size // PER_SESSION)]
        crowd = [create(f"user{n}").pk for n in range(max(1, sessions // 111))]
        owners += itertools.islice(itertools.cycle(crowd), sessions - len(owners))
        self.texts = Texts()
        draw = self.texts.random
        draw.shuffle(owners)
        languages = ["english"] * 88 + ["chinese"] * 5 + ["japanese"] * 4 + ["arabic"] * 3
        self.sessions = [(owner, draw.choice(languages)) for owner in owners]

    def load(self) -> None:
        from agent_sessions.ids import uuid7

        begin = datetime(2026, 1, 1, tzinfo=UTC)
        ids = [uuid7() for _ in self.sessions]
        moments = [begin + timedelta(minutes=number) for number in range(len(ids))]
        copy(
            "agent_sessions_session (id, user_id, tenant, agent_id, title, message_count,"
            " last_sequence, status, context, metadata, created_at, updated_at, last_message_at,"
            " last_activity_at, idempotency_digest)",
            (
                (
                    *(id, owner, "", "agent", self.texts(n, language)[:40].strip()),
                    *(PER_SESSION, PER_SESSION, "active", "{}", "{}"),
                    *(moment, moment, moment, moment, ""),
                )
                for n, (id, moment, (owner, language)) in enumerate(
                    zip(ids, moments, self.sessions, strict=True)
                )
            ),
            len(ids),
        )
        copy(
            "agent_sessions_message (session_id, user_id, sequence, role, content, metadata,"
            " created_at)",
            self._messages(ids, moments),
            len(ids) * PER_SESSION,
        )

    def _messages(self, ids: list[Any], moments: list[datetime]) -> Iterator[tuple[Any, ...]]:
        number = itertools.count()
        for first in range(0, len(ids), OPEN_AT_ONCE):
            places = list(range(first, min(first + OPEN_AT_ONCE, len(ids))))
            for sequence in range(1, PER_SESSION + 1):
                self.texts.random.shuffle(places)
                for place in places:
                    owner, language = self.sessions[place]
                    text = self.texts(next(number), language)
                    yield ids[place], owner, sequence, "user", text, "{}", moments[place]


def copy(target: str, rows: Iterator[tuple[Any, ...]], total: int) -> None:
    from django.db import connection

    with connection.cursor() as cursor, cursor.copy(f"COPY {target} FROM STDIN") as stream:
        for row in tqdm(rows, total=total, desc=target.split(" ")[0], mininterval=5):
            stream.write_row(row)


def timed(
    call: Callable[[], Any], rounds: int, clock: Callable[[], float] = time.perf_counter
) -> tuple[float, Any]:
    """The median in milliseconds, after one unmeasured call, and what the call returned."""
    times = []
    answer = call()
    for _ in range(rounds):
        before = clock()
        call()
        times.append((clock() - before) * 1e3)
    return statistics.median(times), answer


def build_index() -> None:
    from django.db import connection

    from agent_sessions.postgresql import search_index

    before = time.perf_counter()
    with connection.cursor() as cursor:
        cursor.execute("SET client_min_messages = warning")
        search_index.create(connection, concurrently=True)
        cursor.execute("SELECT pg_size_pretty(pg_relation_size(%s::regclass))", [search_index.NAME])
        [size] = cursor.fetchone()
    print(
        f"{search_index.NAME}: {size}, built concurrently in {time.perf_counter() - before:.0f} s"
    )


def fill(messages: int) -> dict[int, Any]:
    from django.db import connection

    from agent_sessions.postgresql import search_index

    with connection.cursor() as cursor:
        cursor.execute(f"DROP INDEX {search_index.NAME}")
    data = Data(messages)
    data.load()
    build_index()
    with connection.cursor() as cursor:
        cursor.execute("VACUUM ANALYZE")
    return data.users


def filled() -> dict[int, Any]:
    """The number of messages and the key of the two users, where the database has them."""
    from django.contrib.auth import get_user_model
    from django.db.models import Sum

    users = get_user_model().objects.filter(username__in=("large", "small"))
    numbers = users.annotate(messages=Sum("agent_sessions__message_count"))
    return {number: pk for number, pk in numbers.values_list("messages", "pk") if number}


def search_postgresql(users: dict[int, Any], rounds: int) -> None:
    """Medians, and the CPU time of the server, in which other processes do not show."""
    from django.db import connection

    from agent_sessions.repository import SyncSessionRepository

    repository = SyncSessionRepository()
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        [pid] = cursor.fetchone()
    sizes = sorted(users)
    heads = (f"{size:,} messages: ms | server CPU, ms | found" for size in sizes)
    print("\n| | term |", " | ".join(heads), "|")
    print("|---|---|" + "---|---|---|" * len(sizes))
    for name, term in TERMS.items():
        cells = []
        for size in sizes:
            search = partial(repository.search_sessions, users[size], term)
            search()
            cpu = server_cpu(pid)
            median, found = timed(search, rounds)
            spent = 1e3 * (server_cpu(pid) - cpu) / (rounds + 1)
            cells.append(f"{median:.1f} | {spent:.1f} | {len(found)}")
        print(f"| {name} | `{term}` |", " | ".join(cells), "|", flush=True)


def explain_search(user: Any, term: str) -> None:
    from django.db import connection
    from django.test.utils import CaptureQueriesContext

    from agent_sessions.repository import SyncSessionRepository

    with CaptureQueriesContext(connection) as queries:
        SyncSessionRepository().search_sessions(user, term, excerpts=0)
    print(f"\n`{term}`:\n")
    with connection.cursor() as cursor:
        # The log has the statement with its values.
        cursor.execute("EXPLAIN (ANALYZE, BUFFERS) " + queries[0]["sql"])
        print("\n".join(line for (line,) in cursor.fetchall()))


def search_admin(rounds: int) -> None:
    from agent_sessions.models import Session

    print("\n| ms | first page in the admin, all users | count |\n|---|---|---|")
    for name in ("a common word", "a word", "a rare word", "no word at all"):
        found = Session.objects.search(TERMS[name], newest=10_000)
        page, _ = timed(lambda: list(found.order_by("-id")[:50]), rounds)  # noqa: B023
        count, _ = timed(lambda: found.order_by()[:10_001].count(), rounds)  # noqa: B023
        print(f"| {name} | {page:.1f} | {count:.1f} |", flush=True)


def writers(messages: int = 4_000) -> None:
    """Return the server's CPU time of an insert into the full table, deferred work included."""
    from django.db import connection

    from agent_sessions.postgresql import search_index

    print("\n| server CPU, ms a message | English | Chinese |\n|---|---|---|")
    insert = (
        "INSERT INTO agent_sessions_message"
        " (session_id, user_id, sequence, role, content, metadata, created_at)"
        " VALUES (%s, %s, %s, 'user', %s, '{}', now())"
    )
    with connection.cursor() as cursor:
        cursor.execute("SET synchronous_commit = off")
        cursor.execute("SELECT pg_backend_pid()")
        [pid] = cursor.fetchone()
        cursor.execute("SELECT id, user_id FROM agent_sessions_session ORDER BY md5(id::text)")
        sessions = cursor.fetchmany(messages)
        cursor.execute(f"SELECT gin_clean_pending_list('{search_index.NAME}')")
        sequence = itertools.count(1_000)
        spent: dict[tuple[bool, str], list[float]] = {}
        for _, kept, language in itertools.product(range(2), (True, False), ("english", "chinese")):
            # A superuser may say that writers leave an index alone.
            cursor.execute(
                "UPDATE pg_index SET indisready = %s WHERE indexrelid = %s::regclass",
                [kept, search_index.NAME],
            )
            texts = Texts()
            rows = [(*each, next(sequence), texts(1, language)) for each in sessions]
            before = server_cpu(pid)
            for row in rows:
                cursor.execute(insert, row)
            if kept:
                cursor.execute(f"SELECT gin_clean_pending_list('{search_index.NAME}')")
            cpu = 1e3 * (server_cpu(pid) - before) / len(rows)
            spent.setdefault((kept, language), []).append(cpu)
        for name, kept in (("with the index", True), ("without", False)):
            cells = (f"{min(spent[kept, language]):.3f}" for language in ("english", "chinese"))
            print(f"| {name} | {' | '.join(cells)} |", flush=True)
        cursor.execute("DELETE FROM agent_sessions_message WHERE sequence >= 1000")
        cursor.execute("UPDATE pg_index SET indisready = true WHERE NOT indisready")
        cursor.execute("VACUUM agent_sessions_message")


def search_sqlite(messages: int, rounds: int) -> None:
    """What search does on SQLite, against SQLite's full-text index of trigrams."""
    texts = Texts()
    sessions = messages // PER_SESSION
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "search.sqlite3"
        database = sqlite3.connect(path)
        database.executescript(
            "CREATE TABLE session (id INTEGER PRIMARY KEY, user_id INTEGER);"
            "CREATE TABLE message (id INTEGER PRIMARY KEY, session_id INTEGER, sequence INTEGER,"
            " content TEXT, UNIQUE (session_id, sequence));"
            "CREATE INDEX session_user ON session (user_id, id DESC)"
        )
        database.executemany(
            "INSERT INTO session VALUES (?, ?)", ((n, n % 3) for n in range(sessions))
        )
        number = itertools.count()
        database.executemany(
            "INSERT INTO message (session_id, sequence, content) VALUES (?, ?, ?)",
            (
                (first + place, sequence, texts(next(number), "english"))
                for first in range(0, sessions, OPEN_AT_ONCE)
                for sequence in range(PER_SESSION)
                for place in range(min(OPEN_AT_ONCE, sessions - first))
            ),
        )
        database.commit()
        plain = path.stat().st_size
        scan = (
            "SELECT id FROM session s WHERE user_id = 1 AND EXISTS (SELECT 1 FROM message"
            " WHERE session_id = s.id AND content LIKE ?) ORDER BY id DESC LIMIT 20"
        )
        terms = [TERMS[name] for name in ("a common word", "a word", "a rare word")] + ["zebra"]

        def milliseconds(query: str, pattern: str) -> float:
            return timed(
                lambda: database.execute(query, [pattern]).fetchall(), rounds, time.process_time
            )[0]

        scanned = [milliseconds(scan, f"%{term}%") for term in terms]
        appended = sqlite_append(database, texts, 0)
        before = time.process_time()
        database.executescript(
            "CREATE VIRTUAL TABLE found USING fts5(content, content='message',"
            " content_rowid='id', tokenize='trigram');"
            "INSERT INTO found (found) VALUES ('rebuild');"
            "CREATE TRIGGER message_found AFTER INSERT ON message BEGIN"
            " INSERT INTO found (rowid, content) VALUES (new.id, new.content); END;"
            "CREATE TRIGGER message_lost AFTER DELETE ON message BEGIN"
            " INSERT INTO found (found, rowid, content) VALUES ('delete', old.id, old.content);"
            " END"
        )
        built = time.process_time() - before
        query = (
            "SELECT DISTINCT s.id FROM found f JOIN message m ON m.id = f.rowid"
            " JOIN session s ON s.id = m.session_id WHERE found MATCH ? AND s.user_id = 1"
            " ORDER BY s.id DESC LIMIT 20"
        )
        print(f"\n{messages // 3:,} messages of one user, {messages:,} in all, SQLite "
              f"{sqlite3.sqlite_version}\n\n| CPU time | LIKE | FTS5 |\n|---|---|---|")  # fmt: skip
        for term, before in zip(terms, scanned, strict=True):
            match = milliseconds(query, f'"{term}"')
            print(f"| `{term}`, ms | {before:.1f} | {match:.1f} |")
        print(f"| append, ms | {appended:.3f} | {sqlite_append(database, texts, 1):.3f} |")
        print(f"| size, MB | {plain / 1e6:.0f} | {path.stat().st_size / 1e6:.0f} |")
        print(f"| to build, s | | {built:.0f} |")


def sqlite_append(database: sqlite3.Connection, texts: Texts, session: int) -> float:
    database.execute("PRAGMA synchronous = off")
    numbers = itertools.count(1_000_000)

    def append() -> None:
        database.execute(
            "INSERT INTO message (session_id, sequence, content) VALUES (?, ?, ?)",
            [session, next(numbers), texts(1, "english")],
        )
        database.commit()

    return timed(append, 200, time.process_time)[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--messages", type=int, default=1_000_000)
    parser.add_argument(
        "--database", metavar="NAME", help="fill it if it is empty, and keep it for the next time"
    )
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--explain", nargs="*", default=[], metavar="TERM")
    parser.add_argument("--sqlite", action="store_true", help="compare LIKE and FTS5 instead")
    options = parser.parse_args()
    if options.sqlite:
        search_sqlite(options.messages, options.rounds)
        return

    os.environ["DJANGO_SETTINGS_MODULE"] = "benchmarks.settings"
    name = options.database or f"bench_search_{os.getpid()}"
    os.environ["BENCH_DATABASE"] = name
    import django

    django.setup()
    import psycopg
    from django.core.management import call_command
    from django.db import connection, connections

    server = {**connection.get_connection_params(), "dbname": "postgres"}
    server = {
        key: server[key] for key in ("host", "port", "user", "password", "dbname") if key in server
    }
    with psycopg.connect(**server, autocommit=True) as admin:
        is_there = admin.execute("SELECT FROM pg_database WHERE datname = %s", [name]).fetchone()
        if is_there is None:
            admin.execute(f"CREATE DATABASE {name}")
    try:
        call_command("migrate", verbosity=0)
        users = filled() or fill(options.messages)
        search_postgresql(users, options.rounds)
        for term in options.explain:
            for user in users.values():
                explain_search(user, term)
        search_admin(options.rounds)
        writers()
        connections.close_all()
    finally:
        if options.database is None:
            with psycopg.connect(**server, autocommit=True) as admin:
                admin.execute(f"DROP DATABASE {name} WITH (FORCE)")


if __name__ == "__main__":
    main()
