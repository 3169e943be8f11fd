"""Rates for reading and for writing, from our own settings.

They count in the project's cache, so on `cache_layer`'s backend they hold while Redis is away
(then each process counts for itself).
"""

from __future__ import annotations

from rest_framework.throttling import UserRateThrottle

from agent_sessions.conf import settings


class ReadThrottle(UserRateThrottle):
    """Requests that change nothing: AGENT_SESSIONS_READ_RATE."""

    scope = "agent_sessions_read"

    def get_rate(self) -> str | None:
        """Return such as "600/min"; None is no limit."""
        return settings.READ_RATE


class WriteThrottle(UserRateThrottle):
    """Requests that change something: AGENT_SESSIONS_WRITE_RATE."""

    scope = "agent_sessions_write"

    def get_rate(self) -> str | None:
        """Return such as "120/min"; None is no limit."""
        return settings.WRITE_RATE
