"""A deploy does not wait for open event streams."""

from __future__ import annotations

import http.client
import signal
import subprocess
from typing import Any

import psycopg
import pytest

from agent_sessions.api import live
from tests.api.test_servers import (  # noqa: F401  (fixtures)
    UVICORN,
    Server,
    new_session,
    redis_of_site,
    say,
    site,
)
from tests.processes import Project, wait_until

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_open_streams_end_when_the_server_is_told_to_end(
    site: Project,  # noqa: F811
    number: signal.Signals,
) -> None:
    server = Server(site, UVICORN)
    try:
        session = new_session(server)
        say(server, session, "Hello")
        streams = []
        for _ in range(3):
            connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
            connection.request(
                *server.request("GET", f"{session}events/", None, {"Accept": "text/event-stream"})
            )
            answer = connection.getresponse()
            assert b"Hello" in b"".join(answer.readline() for _ in range(5))
            streams.append((connection, answer))
        server.process.send_signal(number)
        # By itself a stream lives for five minutes.
        server.process.wait(timeout=60)
        for connection, answer in streams:
            assert answer.read().strip() == b""
            answer.close()
            connection.close()
    except subprocess.TimeoutExpired:
        pytest.fail("the server waits for its streams")
    finally:
        server.stop()


def test_a_stream_that_opens_when_the_server_is_ending_ends_too(
    site: Project,  # noqa: F811
) -> None:
    url = site.environment["DATABASE_URL"]
    if not url.startswith("postgres"):
        pytest.skip("only PostgreSQL can keep a request waiting")
    server = Server(site, UVICORN)
    try:
        session = new_session(server)
        events = server.request("GET", f"{session}events/", None, {"Accept": "text/event-stream"})
        first, second = (
            http.client.HTTPConnection("127.0.0.1", server.port, timeout=60) for _ in range(2)
        )
        first.request(*events)
        answer = first.getresponse()
        assert b"retry" in answer.readline()
        with psycopg.connect(url) as database:
            database.execute("LOCK TABLE auth_user IN ACCESS EXCLUSIVE MODE")
            second.request(*events)
            wait_until("the second request waits", lambda: waiting(site))
            server.process.terminate()
            # The first stream shows that the signal has arrived.
            answer.read()
        assert second.getresponse().status == 200
        # By itself a stream lives for five minutes.
        server.process.wait(timeout=60)
        first.close()
        second.close()
    finally:
        server.stop()


@pytest.mark.parametrize("handler", [signal.SIG_IGN, None], ids=["ignored", "not of Python"])
def test_a_signal_that_cannot_be_passed_on_is_not_taken(
    handler: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[int] = []
    monkeypatch.setattr(live, "_ending", set())
    monkeypatch.setattr(signal, "getsignal", lambda number: handler)
    monkeypatch.setattr(signal, "signal", lambda number, new: taken.append(number))
    live._end_streams_at_shutdown()
    assert taken == []


def waiting(site: Project) -> bool:  # noqa: F811
    return bool(
        site.scalar(
            "SELECT count(*) FROM pg_stat_activity "
            "WHERE datname = current_database() AND wait_event_type = 'Lock'"
        )
    )
