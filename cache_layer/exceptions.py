"""The errors that the cache layer raises on purpose."""

from __future__ import annotations


class CacheLayerError(Exception):
    """The base class of every error of the cache layer."""


class UnsupportedValueError(CacheLayerError, TypeError):
    """A value cannot be stored exactly by the configured serializer.

    The message names the key, the type, where in the value it sits, and what to do about it.
    """


class NotAnIntegerError(CacheLayerError, ValueError):
    """``increment`` found a value that is not an integer, and changed nothing."""


class CommandRefusedError(CacheLayerError):
    """Redis refuses a command, to this user or to everybody, and nothing else can do its work.

    What was to be deleted may still be there, in part or as a whole.
    """


class CodecError(CacheLayerError, ValueError):
    """Stored bytes are corrupt, foreign or tampered with; the backend answers with a miss."""


class UnstableArgumentError(CacheLayerError, TypeError):
    """An argument has no form that is the same in every process, so it cannot be in a key."""
