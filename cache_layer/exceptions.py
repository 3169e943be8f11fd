"""The named errors of the cache layer."""

from __future__ import annotations


class CacheLayerError(Exception):
    """Base class of every error that the cache layer raises on purpose."""


class UnsupportedValueError(CacheLayerError, TypeError):
    """A value cannot be stored exactly by the configured serializer.

    The message names the key, the type, where in the value it sits, and what to do about it.
    """


class NotAnIntegerError(CacheLayerError, ValueError):
    """``increment`` met a stored value that is not an integer; nothing was changed."""


class CodecError(CacheLayerError, ValueError):
    """Stored bytes are corrupt, foreign or tampered with; the backend answers with a miss."""


class UnstableArgumentError(CacheLayerError, TypeError):
    """An argument has no form that is the same in every process, so it cannot be in a key."""
