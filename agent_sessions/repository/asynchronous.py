"""The awaited operations, with the signatures and docstrings of the synchronous ones."""

from __future__ import annotations

from asyncio import CancelledError
from collections.abc import Callable, Coroutine
from functools import wraps
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar

from asgiref.sync import sync_to_async

from agent_sessions.exceptions import AppendOutcomeUnknown, ChangeOutcomeUnknown
from agent_sessions.repository.connections import keeps_connection
from agent_sessions.repository.sync import SyncSessionRepository
from agent_sessions.repository.users import SyncUserSessionRepository, User

Sync = TypeVar("Sync", bound=SyncSessionRepository | SyncUserSessionRepository)
# The operations whose outcome must be known before they are tried again.
_OUTCOMES = {
    "add_message_to_session": AppendOutcomeUnknown,
    "add_messages": AppendOutcomeUnknown,
    "pop_message": ChangeOutcomeUnknown,
    "replace_tail": ChangeOutcomeUnknown,
}
P = ParamSpec("P")
R = TypeVar("R")


class _Awaited(Generic[Sync]):
    def __init__(self, sync: Sync) -> None:
        self.sync = sync

    @property
    def using(self) -> str:
        """The alias of the database."""
        return self.sync.using


def _awaited(
    method: Callable[Concatenate[Sync, P], R],
) -> Callable[Concatenate[_Awaited[Sync], P], Coroutine[Any, Any, R]]:
    @wraps(method)
    async def operation(self: _Awaited[Sync], /, *args: P.args, **kwargs: P.kwargs) -> R:
        token = keeps_connection.set(True)
        try:
            return await sync_to_async(method)(self.sync, *args, **kwargs)
        except CancelledError as cancelled:
            if (unknown := _OUTCOMES.get(method.__name__)) is not None:
                session_id = kwargs.get("session_id", args[0] if args else "?")
                raise cancelled from unknown(str(session_id))
            raise
        finally:
            keeps_connection.reset(token)

    return operation


class UserSessionRepository(_Awaited[SyncUserSessionRepository]):
    """Operations on the sessions of one user in one tenant; no other sessions exist in it.

    ``SessionRepository.for_user()`` makes one. The methods are those of
    ``SyncUserSessionRepository``, awaited.
    """

    create = _awaited(SyncUserSessionRepository.create)
    get = _awaited(SyncUserSessionRepository.get)
    get_user_sessions = _awaited(SyncUserSessionRepository.get_user_sessions)
    get_session_with_messages = _awaited(SyncUserSessionRepository.get_session_with_messages)
    get_messages = _awaited(SyncUserSessionRepository.get_messages)
    add_message_to_session = _awaited(SyncUserSessionRepository.add_message_to_session)
    add_messages = _awaited(SyncUserSessionRepository.add_messages)
    get_changes = _awaited(SyncUserSessionRepository.get_changes)
    pop_message = _awaited(SyncUserSessionRepository.pop_message)
    delete_message = _awaited(SyncUserSessionRepository.delete_message)
    clear_messages = _awaited(SyncUserSessionRepository.clear_messages)
    replace_tail = _awaited(SyncUserSessionRepository.replace_tail)
    update_message = _awaited(SyncUserSessionRepository.update_message)
    update_session_context = _awaited(SyncUserSessionRepository.update_session_context)
    update_session = _awaited(SyncUserSessionRepository.update_session)
    delete = _awaited(SyncUserSessionRepository.delete)
    delete_user_data = _awaited(SyncUserSessionRepository.delete_user_data)
    bulk_update_session_status = _awaited(SyncUserSessionRepository.bulk_update_session_status)
    get_session_stats = _awaited(SyncUserSessionRepository.get_session_stats)
    get_paginated_user_sessions = _awaited(SyncUserSessionRepository.get_paginated_user_sessions)
    search_sessions = _awaited(SyncUserSessionRepository.search_sessions)


class SessionRepository(_Awaited[SyncSessionRepository]):
    """Operations on sessions and messages, for asynchronous code.

    The methods are those of ``SyncSessionRepository``, each awaited with one change of thread for
    any number of queries. Django runs the ORM calls of one request or task one after the other;
    gathering them does not overlap them.

    A cancelled operation goes on in its thread, and may or may not succeed. The CancelledError of
    an append has AppendOutcomeUnknown as its cause, that of ``pop_message`` and ``replace_tail``
    ChangeOutcomeUnknown.
    """

    def __init__(self, using: str | None = None) -> None:
        super().__init__(SyncSessionRepository(using))

    def for_user(self, user: User, tenant: str | None = "") -> UserSessionRepository:
        """See SyncSessionRepository.for_user()."""
        return UserSessionRepository(self.sync.for_user(user, tenant))

    create = _awaited(SyncSessionRepository.create)
    get = _awaited(SyncSessionRepository.get)
    get_user_sessions = _awaited(SyncSessionRepository.get_user_sessions)
    get_session_with_messages = _awaited(SyncSessionRepository.get_session_with_messages)
    get_messages = _awaited(SyncSessionRepository.get_messages)
    add_message_to_session = _awaited(SyncSessionRepository.add_message_to_session)
    add_messages = _awaited(SyncSessionRepository.add_messages)
    get_changes = _awaited(SyncSessionRepository.get_changes)
    pop_message = _awaited(SyncSessionRepository.pop_message)
    delete_message = _awaited(SyncSessionRepository.delete_message)
    clear_messages = _awaited(SyncSessionRepository.clear_messages)
    replace_tail = _awaited(SyncSessionRepository.replace_tail)
    update_message = _awaited(SyncSessionRepository.update_message)
    update_session_context = _awaited(SyncSessionRepository.update_session_context)
    update_session = _awaited(SyncSessionRepository.update_session)
    delete = _awaited(SyncSessionRepository.delete)
    delete_user_data = _awaited(SyncSessionRepository.delete_user_data)
    cleanup_expired_sessions = _awaited(SyncSessionRepository.cleanup_expired_sessions)
    purge_old_sessions = _awaited(SyncSessionRepository.purge_old_sessions)
    reencrypt = _awaited(SyncSessionRepository.reencrypt)
    find_undecryptable = _awaited(SyncSessionRepository.find_undecryptable)
    verify_counters = _awaited(SyncSessionRepository.verify_counters)
    bulk_update_session_status = _awaited(SyncSessionRepository.bulk_update_session_status)
    get_session_stats = _awaited(SyncSessionRepository.get_session_stats)
    get_paginated_user_sessions = _awaited(SyncSessionRepository.get_paginated_user_sessions)
    search_sessions = _awaited(SyncSessionRepository.search_sessions)


SessionRepository.for_user.__doc__ = SyncSessionRepository.for_user.__doc__
