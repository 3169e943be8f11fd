"""The admin of sessions and messages, fast with millions of rows; it writes with the repository."""

from agent_sessions.admin.messages import MessageAdmin
from agent_sessions.admin.sessions import SessionAdmin

__all__ = ["MessageAdmin", "SessionAdmin"]
