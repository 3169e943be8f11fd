"""What is used of redis-py's connections beyond their documented interface.

Commands go past redis-py for half of its time. A version of it that keeps its sockets elsewhere
costs that, and nothing else: redis-py's own clients do the work then.
"""

from __future__ import annotations

import logging
from typing import Any, Final

import redis

#: A client of redis-py, whose types of replies say both blocking and awaited.
Client = Any
#: A connection of redis-py, of which more is used than it documents.
Connection = Any

logger = logging.getLogger("cache_layer")

#: Attributes of a synchronous connection.
SYNC: Final = ("_sock",)
#: Attributes of an asynchronous connection.
ASYNC: Final = ("_reader", "_writer")

_warned = False


def are_known(connection: object, names: tuple[str, ...]) -> bool:
    """Return whether a connection, not connected yet, has these; log one warning where not."""
    global _warned
    if all(hasattr(connection, name) for name in names):
        return True
    if not _warned:
        _warned = True
        logger.warning(
            "redis-py %s keeps its connections in a way that cache_layer does not know, so the "
            "cache uses redis-py's own, slower clients and no near cache. Upgrade "
            "django-agent-sessions, or pin redis-py to an older version.",
            redis.__version__,
        )
    return False
