"""psycopg by itself: the floor. One INSERT; and one statement that does what a store promises."""

from __future__ import annotations

import itertools
import os
import uuid
from collections.abc import Sequence
from typing import Any

import psycopg

from benchmarks.sessions.database import Dsn
from benchmarks.sessions.peers import Peer, text

TABLES = """
CREATE TABLE raw_session (
    id uuid PRIMARY KEY, owner text NOT NULL, message_count int NOT NULL,
    last_activity_at timestamptz NOT NULL, expires_at timestamptz NOT NULL);
CREATE INDEX ON raw_session (owner, last_activity_at DESC, id DESC);
CREATE TABLE raw_message (
    id bigserial PRIMARY KEY, session_id uuid NOT NULL, sequence int NOT NULL,
    role text NOT NULL, content text NOT NULL, metadata jsonb NOT NULL,
    created_at timestamptz NOT NULL, UNIQUE (session_id, sequence));
"""
INSERT = (
    "INSERT INTO raw_message (session_id, sequence, role, content, metadata, created_at)"
    " VALUES (%s, %s, 'user', %s, '{}', now())"
)
#: Sequence, counters and expiry move with the message, under the lock of the session's row.
CTE = """
WITH session AS (
    UPDATE raw_session SET message_count = message_count + 1, last_activity_at = now(),
        expires_at = greatest(expires_at, now() + interval '1 day')
    WHERE id = %s RETURNING id, message_count)
INSERT INTO raw_message (session_id, sequence, role, content, metadata, created_at)
SELECT id, message_count, 'user', %s, '{}', now() FROM session RETURNING id, sequence
"""
CTE_MANY = """
WITH session AS (
    UPDATE raw_session SET message_count = message_count + %(count)s, last_activity_at = now(),
        expires_at = greatest(expires_at, now() + interval '1 day')
    WHERE id = %(id)s RETURNING id, message_count)
INSERT INTO raw_message (session_id, sequence, role, content, metadata, created_at)
SELECT id, message_count - %(count)s + place, 'user', content, '{}', now()
FROM session, unnest(%(contents)s::text[]) WITH ORDINALITY AS given (content, place)
RETURNING id, sequence
"""


class Insert(Peer):
    name = "raw psycopg"

    def __init__(self, dsn: Dsn) -> None:
        self._raw = psycopg.connect(**dsn, autocommit=True)
        # Nobody counts here: numbers have only to differ, between processes too.
        self._numbers = itertools.count(1_000_000 + os.getpid() % 20_000 * 100_000)

    def set_up(self) -> None:
        self._raw.execute(TABLES)

    def converse(self, length: int) -> str:
        session = uuid.uuid4()
        self._raw.execute(
            "INSERT INTO raw_session VALUES (%s, '', %s, now(), now())", (session, length)
        )
        with self._raw.cursor() as cursor:
            columns = "session_id, sequence, role, content, metadata, created_at"
            with cursor.copy(f"COPY raw_message ({columns}) FROM STDIN") as copy:
                for number in range(1, length + 1):
                    copy.write_row((session, number, "user", text(number), "{}", "2026-01-01"))
        return str(session)

    def append(self, conversation: Any, content: str) -> Any:
        self._raw.execute(INSERT, (conversation, next(self._numbers), content))

    def append_many(self, conversation: Any, contents: Sequence[str]) -> Any:
        rows = [(conversation, next(self._numbers), content) for content in contents]
        with self._raw.transaction(), self._raw.cursor() as cursor:
            cursor.executemany(INSERT, rows)

    def last(self, conversation: Any, count: int) -> Any:
        return self._raw.execute(
            "SELECT id, sequence, role, content, metadata, created_at FROM raw_message"
            " WHERE session_id = %s ORDER BY sequence DESC LIMIT %s",
            (conversation, count),
        ).fetchall()[::-1]

    def read(self, conversation: Any) -> Any:
        rows = self._raw.execute(
            "SELECT content FROM raw_message WHERE session_id = %s ORDER BY sequence",
            (conversation,),
        )
        return [content for (content,) in rows]

    def newest(self, user: str, count: int) -> Any:
        return self._raw.execute(
            "SELECT * FROM raw_session WHERE owner = %s"
            " ORDER BY last_activity_at DESC, id DESC LIMIT %s",
            (user, count),
        ).fetchall()

    def page(self, user: str, number: int, size: int) -> Any:
        total = self._raw.execute(
            "SELECT count(*) FROM raw_session WHERE owner = %s", (user,)
        ).fetchone()
        return total, self._raw.execute(
            "SELECT * FROM raw_session WHERE owner = %s"
            " ORDER BY last_activity_at DESC, id DESC LIMIT %s OFFSET %s",
            (user, size, (number - 1) * size),
        ).fetchall()

    def stats(self, user: str) -> Any:
        return self._raw.execute(
            "SELECT count(*), sum(message_count) FROM raw_session WHERE owner = %s", (user,)
        ).fetchone()


class Cte(Peer):
    """Appends as a complete store has to, in one statement. What it reads is the same."""

    name = "raw psycopg, one CTE"

    def __init__(self, dsn: Dsn) -> None:
        self._plain = Insert(dsn)
        self._raw = self._plain._raw

    def converse(self, length: int) -> str:
        return self._plain.converse(length)

    def append(self, conversation: Any, content: str) -> Any:
        return self._raw.execute(CTE, (conversation, content)).fetchone()

    def append_many(self, conversation: Any, contents: Sequence[str]) -> Any:
        given = {"id": conversation, "count": len(contents), "contents": list(contents)}
        return self._raw.execute(CTE_MANY, given).fetchall()

    def read(self, conversation: Any) -> Any:
        return self._plain.read(conversation)
