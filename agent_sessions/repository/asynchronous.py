"""The operations, awaited."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any
from uuid import UUID

from asgiref.sync import sync_to_async

from agent_sessions.models import Message, Session
from agent_sessions.repository.locking import Check
from agent_sessions.repository.results import Erased, Page, SessionStats
from agent_sessions.repository.sync import SessionId, SyncSessionRepository


class SessionRepository:
    """Operations on sessions and messages, for asynchronous code.

    The methods are those of :class:`SyncSessionRepository`, each awaited with one change of
    thread, whatever number of queries it needs. Django runs the ORM calls of one request or
    task one after the other; gathering them does not overlap them.
    """

    def __init__(self, using: str | None = None) -> None:
        self.sync = SyncSessionRepository(using)

    @property
    def using(self) -> str:
        """The alias of the database."""
        return self.sync.using

    async def create(self, session: Session, messages: Iterable[Mapping[str, Any]] = ()) -> Session:
        """See SyncSessionRepository.create()."""
        return await sync_to_async(self.sync.create)(session, messages)

    async def get(self, session_id: SessionId) -> Session:
        """See SyncSessionRepository.get()."""
        return await sync_to_async(self.sync.get)(session_id)

    async def get_user_sessions(
        self, user_id: Any, active_only: bool = True, limit: int = 50
    ) -> list[Session]:
        """See SyncSessionRepository.get_user_sessions()."""
        return await sync_to_async(self.sync.get_user_sessions)(user_id, active_only, limit)

    async def get_session_with_messages(self, session_id: SessionId) -> Session:
        """See SyncSessionRepository.get_session_with_messages()."""
        return await sync_to_async(self.sync.get_session_with_messages)(session_id)

    async def get_messages(
        self,
        session_id: SessionId,
        after: int | None = None,
        before: int | None = None,
        limit: int | None = 50,
        user_id: Any = None,
    ) -> list[Message]:
        """See SyncSessionRepository.get_messages()."""
        return await sync_to_async(self.sync.get_messages)(
            session_id, after, before, limit, user_id
        )

    async def add_message_to_session(
        self, session_id: SessionId, message: Mapping[str, Any], user_id: Any = None
    ) -> Message:
        """See SyncSessionRepository.add_message_to_session()."""
        return await sync_to_async(self.sync.add_message_to_session)(session_id, message, user_id)

    async def add_messages(
        self,
        session_id: SessionId,
        messages: Iterable[Mapping[str, Any]],
        user_id: Any = None,
        idempotency_key: str | None = None,
    ) -> list[Message]:
        """See SyncSessionRepository.add_messages()."""
        return await sync_to_async(self.sync.add_messages)(
            session_id, messages, user_id, idempotency_key
        )

    async def update_session_context(
        self,
        session_id: SessionId,
        context: Mapping[str, Any],
        replace: bool = False,
        user_id: Any = None,
        check: Check = None,
    ) -> Session:
        """See SyncSessionRepository.update_session_context()."""
        return await sync_to_async(self.sync.update_session_context)(
            session_id, context, replace, user_id, check
        )

    async def update_session(
        self,
        session_id: SessionId,
        changes: Mapping[str, Any],
        user_id: Any = None,
        check: Check = None,
    ) -> Session:
        """See SyncSessionRepository.update_session()."""
        return await sync_to_async(self.sync.update_session)(session_id, changes, user_id, check)

    async def delete(self, session_id: SessionId, user_id: Any = None, check: Check = None) -> None:
        """See SyncSessionRepository.delete()."""
        return await sync_to_async(self.sync.delete)(session_id, user_id, check)

    async def delete_user_data(self, user_id: Any) -> Erased:
        """See SyncSessionRepository.delete_user_data()."""
        return await sync_to_async(self.sync.delete_user_data)(user_id)

    async def cleanup_expired_sessions(self, progress: Callable[[int], None] | None = None) -> int:
        """See SyncSessionRepository.cleanup_expired_sessions()."""
        return await sync_to_async(self.sync.cleanup_expired_sessions)(progress)

    async def purge_old_sessions(
        self, days: float | None = None, progress: Callable[[int], None] | None = None
    ) -> int:
        """See SyncSessionRepository.purge_old_sessions()."""
        return await sync_to_async(self.sync.purge_old_sessions)(days, progress)

    async def verify_counters(
        self, repair: bool = False, progress: Callable[[int], None] | None = None
    ) -> list[UUID]:
        """See SyncSessionRepository.verify_counters()."""
        return await sync_to_async(self.sync.verify_counters)(repair, progress)

    async def bulk_update_session_status(
        self, session_ids: Iterable[SessionId], status: str, user_id: Any = None
    ) -> int:
        """See SyncSessionRepository.bulk_update_session_status()."""
        return await sync_to_async(self.sync.bulk_update_session_status)(
            session_ids, status, user_id
        )

    async def get_session_stats(self, user_id: Any) -> SessionStats:
        """See SyncSessionRepository.get_session_stats()."""
        return await sync_to_async(self.sync.get_session_stats)(user_id)

    async def get_paginated_user_sessions(
        self, user_id: Any, page: int, page_size: int
    ) -> Page[Session]:
        """See SyncSessionRepository.get_paginated_user_sessions()."""
        return await sync_to_async(self.sync.get_paginated_user_sessions)(user_id, page, page_size)

    async def search_sessions(
        self, user_id: Any, search_term: str, limit: int = 20, excerpts: int = 3
    ) -> list[Session]:
        """See SyncSessionRepository.search_sessions()."""
        return await sync_to_async(self.sync.search_sessions)(user_id, search_term, limit, excerpts)


# Readers of help() should not have to look in two places.
for _name, _method in vars(SyncSessionRepository).items():
    if not _name.startswith("_") and _name != "using":
        getattr(SessionRepository, _name).__doc__ = _method.__doc__
