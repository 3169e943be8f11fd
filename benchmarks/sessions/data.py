"""The mass of sessions and messages, loaded by COPY in steps, so that growth can be measured."""

from __future__ import annotations

import contextlib
import itertools
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

from tqdm import tqdm

from benchmarks.sessions.options import Options
from benchmarks.sessions.peers import WORDS, text
from benchmarks.sessions.peers.ours import user_key

EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
FAR = datetime(2100, 1, 1, tzinfo=UTC)
SIZES = (1_000, 10_000, 100_000, 1_000_000, 10_000_000)
COPY_ROWS = 500_000

SESSION_COLUMNS = (
    "id, user_id, tenant, agent_id, title, status, context, metadata, created_at, updated_at,"
    " last_message_at, last_activity_at, expires_at, message_count, last_sequence,"
    " idempotency_digest"
)
MESSAGE_COLUMNS = "session_id, user_id, sequence, role, content, metadata, created_at"


def listed(count: int) -> str:
    """The user who has so many sessions."""
    return f"owner of {count:,}"


class Mass:
    """Sessions of users with few, many and very many of them, among those of a crowd."""

    def __init__(self, options: Options) -> None:
        self.options = options
        few, *more = options.listed
        crowd = [user_key(f"crowd{number}") for number in range(300)]
        owners = itertools.chain(
            itertools.repeat(user_key(listed(few)), few),
            itertools.islice(itertools.cycle(crowd), max(0, min(1000, options.sessions) - few)),
            *(itertools.repeat(user_key(listed(count)), count) for count in more),
            itertools.cycle(crowd),
        )
        self._owners = itertools.islice(owners, options.sessions)
        self._each = max(1, options.messages // options.sessions)
        self.loaded = 0

    def steps(self) -> Iterator[int]:
        """Load up to each size on the way; yield the number of sessions then in the table."""
        reached = [size for size in SIZES if size < self.options.sessions]
        for size in [*reached, self.options.sessions]:
            self._load(size - self.loaded)
            yield self.loaded

    def _load(self, count: int) -> None:
        from django.db import connection

        from agent_sessions.ids import uuid7

        made = [
            (uuid7(), owner, number)
            for number, owner in enumerate(itertools.islice(self._owners, count), self.loaded)
        ]
        self._copy(
            f"agent_sessions_session ({SESSION_COLUMNS})",
            (self._session(id, owner, number) for id, owner, number in made),
            len(made),
        )
        with _without_search_index():
            self._copy(
                f"agent_sessions_message ({MESSAGE_COLUMNS})",
                (
                    (id, owner, sequence, "user", text(number + sequence), "{}", EPOCH)
                    for id, owner, number in made
                    for sequence in range(1, self._each + 1)
                ),
                len(made) * self._each,
            )
        with connection.cursor() as cursor:
            # The same for the raw statements. Ids are in order of time, by milliseconds.
            first = min(id for id, _, _ in made)
            cursor.execute(
                "INSERT INTO raw_session SELECT session.id, username, message_count,"
                " last_activity_at, expires_at FROM agent_sessions_session AS session"
                " JOIN auth_user ON auth_user.id = user_id"
                " WHERE session.id >= %s AND agent_id = 'mass'",
                (first,),
            )
            cursor.execute(
                "INSERT INTO raw_message (session_id, sequence, role, content, metadata,"
                " created_at) SELECT session_id, sequence, role, content, metadata, created_at"
                " FROM agent_sessions_message WHERE session_id >= %s AND created_at = %s",
                (first, EPOCH),
            )
            cursor.execute("VACUUM ANALYZE")
        self.loaded += len(made)

    def _session(self, id: Any, owner: Any, number: int) -> tuple[Any, ...]:
        at = EPOCH + timedelta(seconds=number)
        title = f"Session {number} {WORDS[number % len(WORDS)]}"
        counters = (self._each, self._each, "")
        return (id, owner, "", "mass", title, "active", "{}", "{}", at, at, at, at, FAR, *counters)

    @staticmethod
    def _copy(target: str, rows: Iterator[tuple[Any, ...]], total: int) -> None:
        from django.db import connection

        bar = tqdm(total=total, desc=target.split()[0], unit=" rows", mininterval=1)
        with bar, connection.cursor() as cursor:
            # What checks the rows at the end of a transaction waits in memory until then.
            for _ in range(0, total, COPY_ROWS):
                with cursor.copy(f"COPY {target} FROM STDIN") as copy:
                    for row in itertools.islice(rows, COPY_ROWS):
                        copy.write_row(row)
                        bar.update()


@contextlib.contextmanager
def _without_search_index() -> Iterator[None]:
    """Drop the search index and build it after the block: rows alone load many times faster."""
    from django.db import connection

    from agent_sessions.postgresql import search_index

    with connection.cursor() as cursor:
        cursor.execute(f"DROP INDEX IF EXISTS {search_index.NAME}")
        yield
        tqdm.write("Building the search index …", file=sys.stderr)
        before = time.monotonic()
        cursor.execute("SET maintenance_work_mem = '512MB'")
        search_index.create(connection)
        cursor.execute("RESET maintenance_work_mem")
        tqdm.write(f"… took {time.monotonic() - before:.0f} s.", file=sys.stderr)
