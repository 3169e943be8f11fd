"""The OpenAI Agents SDK's SQLAlchemySession, over asyncpg as its documentation shows."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Any

from benchmarks.sessions.database import Dsn, url
from benchmarks.sessions.peers import Peer, text
from benchmarks.sessions.peers.ours import message


class SQLAlchemy(Peer):
    name = "OpenAI Agents SQLAlchemySession"
    awaited = True

    def __init__(self, dsn: Dsn) -> None:
        from agents.extensions.memory import SQLAlchemySession
        from sqlalchemy.ext.asyncio import create_async_engine

        self._engine = create_async_engine(url(dsn, "postgresql+asyncpg"))
        self._class = SQLAlchemySession

    def set_up(self) -> None:
        session = self._class("first", engine=self._engine, create_tables=True)
        self.run(session.add_items([message("first")]))

    def converse(self, length: int) -> str:
        from sqlalchemy import text as sql

        name = str(uuid.uuid4())

        async def fill() -> None:
            await self.append(self.open(name), text(0))
            async with self._engine.begin() as connection:
                await connection.execute(
                    sql(
                        "INSERT INTO agent_messages (session_id, message_data, created_at)"
                        " SELECT session_id, message_data,"
                        " created_at + number * interval '1 microsecond'"
                        " FROM agent_messages, generate_series(2, :length) AS number"
                        " WHERE session_id = :name"
                    ),
                    {"length": length, "name": name},
                )

        self.run(fill())
        return name

    def open(self, name: str) -> Any:
        return self._class(name, engine=self._engine)

    async def append(self, conversation: Any, content: str) -> Any:
        await conversation.add_items([message(content)])

    async def append_many(self, conversation: Any, contents: Sequence[str]) -> Any:
        await conversation.add_items([message(content) for content in contents])

    async def last(self, conversation: Any, count: int) -> Any:
        return await conversation.get_items(limit=count)

    async def read(self, conversation: Any) -> Any:
        return [item["content"] for item in await conversation.get_items()]

    async def aclose(self) -> None:
        await self._engine.dispose()
