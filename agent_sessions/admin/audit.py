"""Records in the audit log what staff read, search, export and delete in the admin."""

from __future__ import annotations

import logging

from django.http import HttpRequest

VIEW_SESSION = "agent_sessions.view_session"
VIEW_MESSAGE = "agent_sessions.view_message"
DELETE_SESSION = "agent_sessions.delete_session"
DELETE_MESSAGE = "agent_sessions.delete_message"

_logger = logging.getLogger("agent_sessions.audit")


def may_read_messages(request: HttpRequest) -> bool:
    """Return whether the user may see the texts of messages."""
    return bool(request.user.has_perm(VIEW_MESSAGE))


def record(request: HttpRequest, action: str, permission: str) -> None:
    """Write the user, the action and the permission to the audit log."""
    reason = "superuser" if getattr(request.user, "is_superuser", False) else permission
    # Escaped: a line break in a search term must not begin a line of the log.
    text = action.encode("unicode_escape").decode()
    _logger.info("User %s %s in the admin (%s).", request.user.pk, text, reason)
