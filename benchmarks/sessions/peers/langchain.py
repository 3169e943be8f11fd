"""LangChain's PostgresChatMessageHistory, over a psycopg connection as its documentation shows."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Any

import psycopg

from benchmarks.sessions.database import Dsn
from benchmarks.sessions.peers import Peer, text

TABLE = "chat_history"


class History(Peer):
    name = "LangChain PostgresChatMessageHistory"

    def __init__(self, dsn: Dsn) -> None:
        from langchain_core.messages import HumanMessage
        from langchain_postgres import PostgresChatMessageHistory

        self._raw = psycopg.connect(**dsn)
        self._class, self._human = PostgresChatMessageHistory, HumanMessage

    def set_up(self) -> None:
        self._class.create_tables(self._raw, TABLE)

    def converse(self, length: int) -> str:
        name = str(uuid.uuid4())
        if length:
            self.append(self.open(name), text(0))
            self._raw.execute(
                f"INSERT INTO {TABLE} (session_id, message, created_at)"
                f" SELECT session_id, message, created_at FROM {TABLE},"
                " generate_series(2, %s) WHERE session_id = %s",
                (length, name),
            )
        self._raw.commit()
        return name

    def open(self, name: str) -> Any:
        return self._class(TABLE, name, sync_connection=self._raw)

    def append(self, conversation: Any, content: str) -> Any:
        conversation.add_messages([self._human(content=content)])

    def append_many(self, conversation: Any, contents: Sequence[str]) -> Any:
        conversation.add_messages([self._human(content=content) for content in contents])

    def last(self, conversation: Any, count: int) -> Any:
        found = conversation.get_messages()[-count:]
        # Its reads leave the transaction open, which the caller has to end.
        self._raw.commit()
        return found

    def read(self, conversation: Any) -> Any:
        found = [message.content for message in conversation.get_messages()]
        self._raw.commit()
        return found
