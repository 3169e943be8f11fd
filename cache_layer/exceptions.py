"""The errors that the cache layer raises on purpose."""

from __future__ import annotations


class CacheLayerError(Exception):
    """The base class of every error of the cache layer."""


def is_time_limit(error: object) -> bool:
    """Return whether this is Celery's SoftTimeLimitExceeded.

    A signal handler raises it, so it comes out of any line, and nothing may take it for an error
    of that line.
    """
    return any(cls.__name__ == "SoftTimeLimitExceeded" for cls in type(error).__mro__)


class UnsupportedValueError(CacheLayerError, TypeError):
    """A value cannot be stored exactly by the configured serializer.

    The message names the key, the type, the place of the object in the value, and a remedy.
    """


class NotAnIntegerError(CacheLayerError, ValueError):
    """``increment`` found a value that is not an integer, and changed nothing."""


class CommandRefusedError(CacheLayerError):
    """Redis refuses a command, to this user or to everybody, and there is no other way to do it.

    Keys that the call was to delete may still exist, all of them or some.
    """


class CodecError(CacheLayerError, ValueError):
    """Stored bytes are corrupt, foreign or tampered with; the backend answers with a miss."""


class UnstableArgumentError(CacheLayerError, TypeError):
    """An argument has no text that is the same in every process, so a key cannot contain it."""
