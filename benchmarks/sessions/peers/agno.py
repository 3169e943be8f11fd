"""agno's PostgresDb, called as its agent calls it: a run a turn, numbered by the caller."""

from __future__ import annotations

import itertools
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.sessions.database import Dsn, url
from benchmarks.sessions.peers import Peer, text

USER = "talker"


@dataclass
class Opened:
    name: str
    numbers: itertools.count[int]


class Agno(Peer):
    name = "agno PostgresDb"

    def __init__(self, dsn: Dsn) -> None:
        from agno.db.base import SessionType
        from agno.db.postgres import PostgresDb
        from agno.models.message import Message
        from agno.run.agent import RunOutput
        from agno.session.agent import AgentSession

        self._db = PostgresDb(db_url=url(dsn, "postgresql+psycopg"))
        self._type, self._message, self._run = SessionType.AGENT, Message, RunOutput
        self._session = AgentSession

    def set_up(self) -> None:
        self._make("first", USER)
        self._upsert("first", 0, ["first"])

    def converse(self, length: int) -> str:
        name = str(uuid.uuid4())
        self._make(name, USER)
        self._upsert(name, 0, [text(0)])
        self._execute(
            "INSERT INTO ai.agno_runs (run_id, session_id, run_type, agent_id, user_id, status,"
            " run_index, run_data, created_at, updated_at)"
            " SELECT gen_random_uuid()::text, session_id, run_type, agent_id, user_id, status,"
            " number - 1, run_data, created_at, updated_at"
            " FROM ai.agno_runs, generate_series(2, :length) AS number"
            " WHERE session_id = :name",
            length=length,
            name=name,
        )
        return name

    def open(self, name: str) -> Any:
        last = self._db.get_session(name, self._type, runs_limit=1, deserialize=False)
        assert isinstance(last, dict)
        runs = last["runs"] or []
        start = (runs[-1].get("run_index") or 0) + 1 if runs else 0
        if runs and not runs[-1].get("run_index"):
            start = self._count(name)
        return Opened(name, itertools.count(start))

    def append(self, conversation: Any, content: str) -> Any:
        self._upsert(conversation.name, next(conversation.numbers), [content])

    def append_many(self, conversation: Any, contents: Sequence[str]) -> Any:
        self._upsert(conversation.name, next(conversation.numbers), contents)

    def last(self, conversation: Any, count: int) -> Any:
        session = self._db.get_session(conversation.name, self._type, runs_limit=count)
        return [message for run in session.runs for message in run.messages]

    def read(self, conversation: Any) -> Any:
        session = self._db.get_session(conversation.name, self._type)
        return [message.content for run in session.runs for message in run.messages]

    def populate(self, user: str, count: int) -> None:
        name = str(uuid.uuid4())
        self._make(name, user)
        self._execute(
            "INSERT INTO ai.agno_sessions (session_id, session_type, agent_id, user_id,"
            " session_data, created_at, updated_at)"
            " SELECT gen_random_uuid()::text, session_type, agent_id, user_id, session_data,"
            " created_at, updated_at - number"
            " FROM ai.agno_sessions, generate_series(2, :count) AS number"
            " WHERE session_id = :name",
            count=count,
            name=name,
        )

    def newest(self, user: str, count: int) -> Any:
        return self._db.get_sessions(
            self._type,
            user_id=user,
            limit=count,
            sort_by="updated_at",
            sort_order="desc",
            include_runs=False,
        )

    def page(self, user: str, number: int, size: int) -> Any:
        return self._db.get_sessions(
            self._type,
            user_id=user,
            limit=size,
            page=number,
            sort_by="updated_at",
            sort_order="desc",
            include_runs=False,
        )

    def _make(self, name: str, user: str) -> None:
        now = int(time.time())
        self._db.upsert_session(
            self._session(session_id=name, agent_id="agent", user_id=user, created_at=now)
        )

    def _upsert(self, name: str, number: int, contents: Sequence[str]) -> None:
        run = self._run(
            run_id=str(uuid.uuid4()),
            agent_id="agent",
            session_id=name,
            messages=[self._message(role="user", content=content) for content in contents],
        )
        self._db.upsert_run(run, session_id=name, user_id=USER, run_index=number)

    def _count(self, name: str) -> int:
        from sqlalchemy import text as sql

        with self._db.db_engine.connect() as connection:
            found = connection.execute(
                sql("SELECT max(run_index) + 1 FROM ai.agno_runs WHERE session_id = :name"),
                {"name": name},
            )
            return int(found.scalar() or 0)

    def _execute(self, statement: str, **given: Any) -> None:
        from sqlalchemy import text as sql

        with self._db.db_engine.begin() as connection:
            connection.execute(sql(statement), given)
