"""The undocumented attributes of redis-py's connections that the transports use.

Bypassing redis-py halves the time of a command. If a version of redis-py lacks these attributes,
redis-py's own clients send the commands, which only takes more time.
"""

from __future__ import annotations

import logging
from typing import Any, Final

import redis

#: A client of redis-py, whose types mix blocking and awaited replies.
Client = Any
#: A connection of redis-py, with its undocumented attributes.
Connection = Any

logger = logging.getLogger("cache_layer")

#: Attributes of a synchronous connection.
SYNC: Final = ("_sock",)
#: Attributes of an asynchronous connection.
ASYNC: Final = ("_reader", "_writer")

_warned = False


def are_known(connection: object, names: tuple[str, ...]) -> bool:
    """Return whether an unconnected connection has the attributes; if not, log one warning."""
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
