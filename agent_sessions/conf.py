"""The settings of agent_sessions: names, types and defaults.

Each name stands in the Django settings behind the prefix ``AGENT_SESSIONS_`` and is read at
each use, so that ``override_settings`` works on all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.conf import settings as django_settings

PREFIX = "AGENT_SESSIONS_"


class Settings:
    """Typed view of the ``AGENT_SESSIONS_…`` settings."""

    MAX_MESSAGES: int | None = 100
    """Messages in a session after which each append logs a warning. None: never."""

    EXPIRY_HOURS: float | None = 24
    """Hours without a new message after which a session expires. None: never."""

    RETENTION_DAYS: float | None = None
    """Days after which finished sessions may be purged. None: they are kept."""

    MAX_MESSAGE_BYTES: int = 8 * 1024 * 1024
    """Largest message accepted, in bytes of its JSON form."""

    EXTRA_ROLES: Sequence[str] = ()
    """Message roles accepted beside the ones of ``MessageRole``."""

    MAX_PAGE_SIZE: int = 100
    """Largest page that may be asked for by number."""

    CLEANUP_BATCH_SIZE: int = 500
    """Rows changed in one transaction by cleanup, purge, bulk changes and erasure."""

    MAX_REQUEST_BYTES: int = 32 * 1024 * 1024
    """Largest body of a REST request. JSON escapes make it larger than what it holds."""

    READ_RATE: str | None = None
    """REST requests that change nothing, by one user, such as "600/min". None: no limit."""

    WRITE_RATE: str | None = None
    """REST requests that change something, by one user, such as "120/min". None: no limit."""

    EVENTS_POLL_SECONDS: float = 0.25
    """Seconds between two looks at the database for messages that other processes appended."""

    EVENTS_KEEP_ALIVE_SECONDS: float = 15.0
    """Seconds of silence after which an event stream sends a sign of life."""

    EVENTS_MAX_SECONDS: float = 300.0
    """Seconds after which an event stream ends. The client comes back with its last id, and
    its rights are looked at again."""

    def __getattribute__(self, name: str) -> Any:
        default = super().__getattribute__(name)
        if name.isupper():
            return getattr(django_settings, PREFIX + name, default)
        return default

    @classmethod
    def defaults(cls) -> dict[str, Any]:
        """Return every setting (without the prefix) with its default."""
        return {name: vars(cls)[name] for name in cls.__annotations__}


settings = Settings()
