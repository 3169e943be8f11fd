"""Every operation on sessions and messages, synchronous and awaited."""

from __future__ import annotations

from agent_sessions.repository.asynchronous import SessionRepository
from agent_sessions.repository.results import Erased, Page, SessionStats
from agent_sessions.repository.sync import SyncSessionRepository

__all__ = ["Erased", "Page", "SessionRepository", "SessionStats", "SyncSessionRepository"]
