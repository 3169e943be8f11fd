"""Every operation on sessions and messages, synchronous and awaited."""

from __future__ import annotations

from agent_sessions.repository.asynchronous import SessionRepository, UserSessionRepository
from agent_sessions.repository.history import History
from agent_sessions.repository.results import Change, ChangeKind, Erased, Page, SessionStats
from agent_sessions.repository.sessions import CHANGEABLE
from agent_sessions.repository.sync import SyncSessionRepository
from agent_sessions.repository.users import SyncUserSessionRepository

__all__ = [
    "CHANGEABLE",
    "Change",
    "ChangeKind",
    "Erased",
    "History",
    "Page",
    "SessionRepository",
    "SessionStats",
    "SyncSessionRepository",
    "SyncUserSessionRepository",
    "UserSessionRepository",
]
