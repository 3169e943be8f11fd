"""A deploy does not wait for open event streams."""

from __future__ import annotations

import http.client
import signal
import subprocess

import pytest

from tests.api.test_servers import (  # noqa: F401  (fixtures)
    UVICORN,
    Server,
    new_session,
    redis_of_site,
    say,
    site,
)
from tests.processes import Project

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
            assert b"retry" in answer.readline()
            streams.append((connection, answer))
        server.process.send_signal(number)
        # By itself a stream lives for five minutes.
        server.process.wait(timeout=60)
        for connection, answer in streams:
            assert b"Hello" in answer.read()
            answer.close()
            connection.close()
    except subprocess.TimeoutExpired:
        pytest.fail("the server waits for its streams")
    finally:
        server.stop()
