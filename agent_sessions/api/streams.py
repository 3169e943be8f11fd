"""Limits the open streams of a user and of a process."""

from __future__ import annotations

import os
import threading
from collections import Counter
from collections.abc import Callable

from django.http import StreamingHttpResponse
from rest_framework.exceptions import Throttled

from agent_sessions.conf import settings

_RETRY_SECONDS = 5

_lock = threading.Lock()
_open: Counter[tuple[str, object]] = Counter()


class _CountedResponse(StreamingHttpResponse):
    """A streaming response that is counted until the server closes it."""

    release: Callable[[], None]

    def close(self) -> None:
        super().close()
        self.release()


def counted(
    kind: str,
    user_id: object,
    limit: int,
    response: StreamingHttpResponse,
    limit_of_kind: int | None = None,
) -> StreamingHttpResponse:
    """Return the response, which has not begun to stream, counted until the server closes it.

    AGENT_SESSIONS_MAX_STREAMS limits all open responses of a process.

    Args:
        kind: What the response streams.
        user_id: The key of the user who reads it.
        limit: Largest number of open responses of this kind and user in this process.
        response: The response.
        limit_of_kind: Largest number of open responses of this kind in this process; None for any
            number.

    Raises:
        Throttled: One of the limits is reached.
    """
    limits = {(kind, user_id): limit, ("all", None): settings.MAX_STREAMS}
    if limit_of_kind is not None:
        limits[f"all {kind}", None] = limit_of_kind
    with _lock:
        if any(_open[place] >= most for place, most in limits.items()):
            raise Throttled(_RETRY_SECONDS)
        _open.update(limits.keys())
    released = threading.Event()

    def release() -> None:
        global _open
        with _lock:
            if not released.is_set():
                released.set()
                # What is open no more leaves no zero behind.
                _open -= Counter(limits.keys())

    response.__class__ = _CountedResponse
    response.release = release  # type: ignore[attr-defined]
    return response


def _after_fork() -> None:
    # Another thread of the parent may have held the lock, and its streams are not the child's.
    global _lock
    _lock = threading.Lock()
    _open.clear()


os.register_at_fork(after_in_child=_after_fork)
