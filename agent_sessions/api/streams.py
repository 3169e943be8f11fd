"""Limits of what streams: how many a user and a process may hold open."""

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
    """Gives its places back when the server closes it."""

    release: Callable[[], None]

    def close(self) -> None:
        super().close()
        self.release()


def counted(
    kind: str, user_id: object, limit: int | None, make: Callable[[], StreamingHttpResponse]
) -> StreamingHttpResponse:
    """Return the response that *make* returns, counted until the server closes it.

    *limit* is the most open responses of this kind and user in this process, None for any number;
    all of a process together are limited by AGENT_SESSIONS_MAX_STREAMS. Raises Throttled.
    """
    mine, every = (kind, user_id), ("all", None)
    with _lock:
        too_many = limit is not None and _open[mine] >= limit
        if too_many or _open[every] >= settings.MAX_STREAMS:
            raise Throttled(_RETRY_SECONDS)
        _open.update((mine, every))
    released = threading.Event()

    def release() -> None:
        with _lock:
            if not released.is_set():
                released.set()
                _open.subtract((mine, every))
                for place in (mine, every):
                    if not _open[place]:
                        del _open[place]

    try:
        response = make()
    except BaseException:
        release()
        raise
    response.__class__ = _CountedResponse
    response.release = release  # type: ignore[attr-defined]
    return response


def _after_fork() -> None:
    # Another thread of the parent may have held the lock, and its streams are not the child's.
    global _lock
    _lock = threading.Lock()
    _open.clear()


os.register_at_fork(after_in_child=_after_fork)
