"""Conversations of AI agents as Django models, with a repository of ready operations."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from agent_sessions.exceptions import (
        AgentSessionsError,
        AppendOutcomeUnknown,
        ChangeOutcomeUnknown,
        IdempotencyConflict,
        SessionArchived,
        SessionChanged,
    )
    from agent_sessions.models import Message, MessageRole, Session, SessionStatus
    from agent_sessions.repository import (
        SessionRepository,
        SyncSessionRepository,
        SyncUserSessionRepository,
        UserSessionRepository,
    )

__version__ = "0.1.0"

# INSTALLED_APPS imports this module before models may be imported, hence lazily.
_HOMES = {
    "AgentSessionsError": "exceptions",
    "AppendOutcomeUnknown": "exceptions",
    "ChangeOutcomeUnknown": "exceptions",
    "IdempotencyConflict": "exceptions",
    "SessionArchived": "exceptions",
    "SessionChanged": "exceptions",
    "Message": "models",
    "MessageRole": "models",
    "Session": "models",
    "SessionStatus": "models",
    "SessionRepository": "repository",
    "SyncSessionRepository": "repository",
    "SyncUserSessionRepository": "repository",
    "UserSessionRepository": "repository",
}

__all__ = [
    "AgentSessionsError",
    "AppendOutcomeUnknown",
    "ChangeOutcomeUnknown",
    "IdempotencyConflict",
    "Message",
    "MessageRole",
    "Session",
    "SessionArchived",
    "SessionChanged",
    "SessionRepository",
    "SessionStatus",
    "SyncSessionRepository",
    "SyncUserSessionRepository",
    "UserSessionRepository",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"agent_sessions.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
