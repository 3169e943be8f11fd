"""agent_sessions, through the repository: synchronous and awaited."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from benchmarks.sessions.database import Dsn
from benchmarks.sessions.peers import Peer, text


def message(content: str) -> dict[str, Any]:
    return {"role": "user", "content": content}


class Sync(Peer):
    name = "agent_sessions"

    def __init__(self, dsn: Dsn) -> None:
        from agent_sessions.repository import SyncSessionRepository

        self._repository: Any = SyncSessionRepository()

    def converse(self, length: int) -> str:
        from agent_sessions.models import Session
        from agent_sessions.repository import SyncSessionRepository

        repository = SyncSessionRepository()
        session = repository.create(Session(user_id=user_key("talker"), agent_id="agent"))
        for start in range(0, length, 1000):
            numbers = range(start, min(start + 1000, length))
            repository.add_messages(session.pk, [message(text(number)) for number in numbers])
        return str(session.pk)

    def append(self, conversation: Any, content: str) -> Any:
        return self._repository.add_message_to_session(conversation, message(content))

    def append_many(self, conversation: Any, contents: Sequence[str]) -> Any:
        return self._repository.add_messages(conversation, [message(text) for text in contents])

    def last(self, conversation: Any, count: int) -> Any:
        return self._repository.get_messages(conversation, limit=count)

    def read(self, conversation: Any) -> Any:
        found = self._repository.get_messages(conversation, limit=None)
        return [message.content for message in found]

    def newest(self, user: str, count: int) -> Any:
        return self._repository.get_user_sessions(user_key(user), limit=count)

    def page(self, user: str, number: int, size: int) -> Any:
        return self._repository.get_paginated_user_sessions(user_key(user), number, size)

    def stats(self, user: str) -> Any:
        return self._repository.get_session_stats(user_key(user))


class Prepared(Sync):
    """Over a connection that prepares what it is asked often."""

    name = "agent_sessions, prepared"

    def __init__(self, dsn: Dsn) -> None:
        from agent_sessions.repository import SyncSessionRepository

        self._repository = SyncSessionRepository(using="prepared")


class AwaitedFace(Sync):
    name = "agent_sessions, awaited"
    awaited = True

    def __init__(self, dsn: Dsn) -> None:
        from agent_sessions.repository import SessionRepository

        self._repository = SessionRepository()

    async def read(self, conversation: Any) -> Any:
        found = await self._repository.get_messages(conversation, limit=None)
        return [message.content for message in found]

    async def aclose(self) -> None:
        from asgiref.sync import sync_to_async
        from django.db import connections

        await sync_to_async(connections.close_all)()


_keys: dict[str, Any] = {}


def user_key(name: str) -> Any:
    """The key of the user of that name, who is made when there is none."""
    if name not in _keys:
        from django.contrib.auth import get_user_model

        user, _ = get_user_model().objects.get_or_create(username=name)
        _keys[name] = user.pk
    return _keys[name]
