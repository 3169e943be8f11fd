"""The places of open streams, which are limited for each user and for a process."""

from __future__ import annotations

import pytest
from django.http import StreamingHttpResponse
from rest_framework.exceptions import Throttled

from agent_sessions.api import streams

# The end of a response looks at connections that another test may have left.
pytestmark = pytest.mark.django_db


def take(user: int, limit: int = 1) -> StreamingHttpResponse:
    return streams.counted("events", user, limit, StreamingHttpResponse([]))


def test_a_closed_stream_gives_its_place_back_once() -> None:
    first, second = take(1, 2), take(1, 2)
    with pytest.raises(Throttled):
        take(1, 2)
    first.close()
    # A server may close a response more than once.
    first.close()
    third = take(1, 2)
    with pytest.raises(Throttled):
        take(1, 2)
    second.close()
    third.close()


def test_users_who_left_take_no_memory() -> None:
    before = dict(streams._open)
    for user in range(100):
        take(user).close()
    assert dict(streams._open) == before
