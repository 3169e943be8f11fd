"""Google ADK's DatabaseSessionService, over asyncpg as its documentation shows."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Any

from benchmarks.sessions.database import Dsn, url
from benchmarks.sessions.peers import Peer, text

APP, USER = "bench", "talker"


class Adk(Peer):
    name = "ADK DatabaseSessionService"
    awaited = True

    def __init__(self, dsn: Dsn) -> None:
        from google.adk.events import Event
        from google.adk.sessions import DatabaseSessionService
        from google.adk.sessions.base_session_service import GetSessionConfig
        from google.genai import types

        self._service = DatabaseSessionService(db_url=url(dsn, "postgresql+asyncpg"))
        self._event, self._types, self._config = Event, types, GetSessionConfig

    def set_up(self) -> None:
        self.run(self._service.create_session(app_name=APP, user_id=USER))

    def converse(self, length: int) -> str:
        name = str(uuid.uuid4())

        async def fill() -> None:
            session = await self._service.create_session(
                app_name=APP, user_id=USER, session_id=name
            )
            await self.append(session, text(0))
            await self._execute(
                "INSERT INTO events (id, app_name, user_id, session_id, invocation_id,"
                " timestamp, event_data)"
                " SELECT gen_random_uuid()::text, app_name, user_id, session_id, invocation_id,"
                " timestamp - number * interval '1 millisecond', event_data"
                " FROM events, generate_series(2, :length) AS number WHERE session_id = :name",
                length=length,
                name=name,
            )

        self.run(fill())
        return name

    def open(self, name: str) -> Any:
        return self.run(self._get(name, 1))

    async def append(self, conversation: Any, content: str) -> Any:
        part = self._types.Part(text=content)
        event = self._event(
            author="user",
            invocation_id="turn",
            content=self._types.Content(role="user", parts=[part]),
        )
        return await self._service.append_event(conversation, event)

    async def append_many(self, conversation: Any, contents: Sequence[str]) -> Any:
        for content in contents:
            await self.append(conversation, content)

    async def last(self, conversation: Any, count: int) -> Any:
        return (await self._get(conversation.id, count)).events

    async def read(self, conversation: Any) -> Any:
        found = await self._get(conversation.id, None)
        return [event.content.parts[0].text for event in found.events]

    def populate(self, user: str, count: int) -> None:
        async def fill() -> None:
            await self._service.create_session(app_name=APP, user_id=user)
            await self._execute(
                "INSERT INTO sessions (app_name, user_id, id, state, create_time, update_time)"
                " SELECT app_name, user_id, gen_random_uuid()::text, state, create_time,"
                " update_time - number * interval '1 second'"
                " FROM sessions, generate_series(2, :count) AS number WHERE user_id = :user_id",
                count=count,
                user_id=user,
            )

        self.run(fill())

    async def newest(self, user: str, count: int) -> Any:
        # It lists all of them, oldest first.
        found = await self._service.list_sessions(app_name=APP, user_id=user)
        return found.sessions[-count:]

    async def _get(self, name: str, count: int | None) -> Any:
        config = None if count is None else self._config(num_recent_events=count)
        return await self._service.get_session(
            app_name=APP, user_id=USER, session_id=name, config=config
        )

    async def _execute(self, statement: str, **given: Any) -> None:
        from sqlalchemy import text as sql

        async with self._service.db_engine.begin() as connection:
            await connection.execute(sql(statement), given)

    async def aclose(self) -> None:
        await self._service.close()
