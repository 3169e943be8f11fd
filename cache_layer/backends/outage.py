"""The policy for an outage, ``ON_OUTAGE``: memory answers, or an error is raised."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from cache_layer.exceptions import CacheLayerError

if TYPE_CHECKING:
    from redis.exceptions import ConnectionError as _ConnectionError
else:
    try:
        from redis.exceptions import ConnectionError as _ConnectionError
    except ImportError:
        # Memory only.
        _ConnectionError = ConnectionError


class CacheUnavailableError(CacheLayerError, _ConnectionError):
    """Redis cannot be used, and the memory of one process cannot answer this call.

    It is a ``ConnectionError`` of redis-py too, so that code written for django-redis catches it.
    """


_POLICIES: Final = ("memory", "raise")


def raises_on_outage(option: object, namespace: str) -> bool:
    """Return whether calls for the keys of a namespace raise an error during an outage.

    Args:
        option: The ``ON_OUTAGE`` of an entry's ``OPTIONS``: ``"memory"``, ``"raise"``, or one of
            them for each namespace that is not ``"memory"``.
        namespace: The namespace; ``""`` are keys without one.
    """
    if isinstance(option, Mapping):
        option = option.get(namespace)
    return option == "raise"


def outage_option_problem(option: object) -> str:
    """Return the mistake in a value of ``ON_OUTAGE``, or an empty text."""
    given = list(option.values()) if isinstance(option, Mapping) else [option]
    if all(each in _POLICIES for each in given if isinstance(each, str)) and all(
        isinstance(each, str) for each in given
    ):
        return ""
    return 'it must be "memory", "raise", or a dictionary of them by namespace'
