"""The admin of sessions and messages, quick with millions of them.

Writes go through the repository.
"""

from agent_sessions.admin.messages import MessageAdmin
from agent_sessions.admin.sessions import SessionAdmin

__all__ = ["MessageAdmin", "SessionAdmin"]
