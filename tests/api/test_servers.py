"""The API as it is run: gunicorn and uvicorn, several processes, one database."""

from __future__ import annotations

import asyncio
import http.client
import json
import re
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.api.test_events import Stream
from tests.processes import Project, end, project, wait_until
from tests.services import RedisServer, free_port

pytestmark = pytest.mark.slow

SETUP = """
import django; django.setup()
from django.contrib.auth import get_user_model
get_user_model().objects.create_user("live", password="secret")
"""
LONG = """
import django; django.setup()
from django.contrib.auth import get_user_model
from agent_sessions.models import Session
from agent_sessions.repository import SyncSessionRepository
repository = SyncSessionRepository()
session = repository.create(Session(user=get_user_model().objects.get(), agent_id="long"))
for _ in range(50):
    repository.add_messages(session.pk, [{"role": "user", "content": "x" * 1000}] * 1000)
print(session.pk)
"""
SESSIONS = "/api/v1/sessions/"
GUNICORN = "-m gunicorn example_project.wsgi:application --workers 2 --threads 4 --log-level error"
UVICORN = "-m uvicorn example_project.asgi:application --lifespan off --log-level error"


class Server:
    """A server on a port of its own, which stays its own when it is started again."""

    def __init__(self, site: Project, command: str, **environment: str) -> None:
        self.port = free_port()
        self._site = Project(site.directory, {**site.environment, **environment})
        bind = f"--bind 127.0.0.1:{self.port}" if "gunicorn" in command else f"--port {self.port}"
        self._command = [*command.split(), *bind.split()]
        self.start()

    def start(self) -> None:
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self.process = self._site.start(*self._command, **quiet)
        wait_until("the server answers", self.answers)

    def answers(self) -> bool:
        assert self.process.poll() is None
        try:
            return self.ask("GET", "/api/v1/health/")[0] == 200
        except OSError:
            return False

    def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        end(self.process, number)

    def ask(
        self, method: str, path: str, body: Any = None, **headers: str
    ) -> tuple[int, dict[str, Any]]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(*self.request(method, path, body, headers))
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read() or b"{}")
        finally:
            connection.close()

    @staticmethod
    def request(
        method: str, path: str, body: Any, headers: dict[str, str]
    ) -> tuple[str, str, bytes | None, dict[str, str]]:
        login = {"Authorization": "Basic bGl2ZTpzZWNyZXQ=", "Content-Type": "application/json"}
        content = None if body is None else json.dumps(body).encode()
        return method, path, content, {**login, **headers}

    def memory(self) -> int:
        """Return the most bytes that the processes of the server ever held."""
        pids = [self.process.pid]
        tasks = Path(f"/proc/{pids[0]}/task").glob("*/children")
        pids += [int(pid) for task in tasks for pid in task.read_text().split()]
        statuses = [Path(f"/proc/{pid}/status").read_text() for pid in pids]
        return sum(int(re.findall(r"VmHWM:\s+(\d+)", status)[0]) * 1024 for status in statuses)


@pytest.fixture(scope="module")
def redis_of_site() -> Iterator[RedisServer]:
    server = RedisServer()
    server.start()
    yield server
    server.close()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, redis_of_site: RedisServer) -> Iterator[Project]:
    with project(tmp_path_factory.mktemp("servers")) as made:
        made.environment.update(
            DJANGO_SETTINGS_MODULE="tests.api.server_settings", REDIS_URL=redis_of_site.url
        )
        run(made, SETUP)
        yield made


def run(site: Project, program: str) -> str:
    process = site.start("-c", program)
    output, errors = process.communicate(timeout=180)
    assert process.returncode == 0, errors.decode()
    return output.decode().strip()


@pytest.fixture(scope="module")
def wsgi(site: Project) -> Iterator[Server]:
    server = Server(site, GUNICORN)
    yield server
    server.stop()


@pytest.fixture(scope="module")
def asgi(site: Project) -> Iterator[Server]:
    server = Server(site, UVICORN)
    yield server
    server.stop()


def new_session(server: Server) -> str:
    status, session = server.ask("POST", SESSIONS, {"agent_id": "a"})
    assert status == 201
    return f"{SESSIONS}{session['id']}/"


def say(server: Server, session: str, text: str) -> None:
    body = {"role": "user", "content": text}
    assert server.ask("POST", f"{session}messages/", body)[0] == 201


def test_one_key_sent_to_several_processes_at_once_counts_once(wsgi: Server, asgi: Server) -> None:
    batch = {"messages": [{"role": "user", "content": str(number)} for number in range(3)]}
    with ThreadPoolExecutor(8) as threads:
        session = new_session(wsgi)
        for path, body in ((SESSIONS, {"agent_id": "k"}), (f"{session}messages/", batch)):
            for number in range(5):
                key = {"Idempotency-Key": f"{path}{number}"}
                answers = threads.map(
                    lambda server, key=key, path=path, body=body: server.ask(
                        "POST", path, body, **key
                    ),
                    [wsgi, asgi] * 4,
                )
                [answer] = {json.dumps(answer) for answer in answers}
                assert answer.startswith("[201")
        assert wsgi.ask("GET", session)[1]["message_count"] == 15
        assert len(wsgi.ask("GET", f"{SESSIONS}?agent_id=k")[1]["results"]) == 5


def test_a_retry_after_a_lost_answer_adds_nothing(wsgi: Server) -> None:
    session = new_session(wsgi)
    body = {"role": "user", "content": "x"}
    for number in range(10):
        key = {"Idempotency-Key": str(number)}
        connection = http.client.HTTPConnection("127.0.0.1", wsgi.port, timeout=60)
        connection.request(*wsgi.request("POST", f"{session}messages/", body, key))
        # The answer is on its way, or the request is: nobody knows.
        time.sleep(0.01 * number)
        connection.close()
        status, answer = wsgi.ask("POST", f"{session}messages/", body, **key)
        assert (status, answer["sequence"]) == (201, number + 1)
    assert wsgi.ask("GET", session)[1]["message_count"] == 10


def test_a_body_in_chunks_is_refused_rather_than_taken_for_none(wsgi: Server, asgi: Server) -> None:
    for server in (wsgi, asgi):
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
        method, path, content, headers = server.request("POST", SESSIONS, {"agent_id": "a"}, {})
        connection.request(method, path, iter([content]), headers, encode_chunked=True)
        answer = connection.getresponse()
        assert answer.status == 411
        assert json.loads(answer.read())["code"] == "length_required"
        connection.close()


def follow(server: Server, session: str) -> Stream:
    return Stream(server.port, session.removeprefix(SESSIONS).rstrip("/"))


def test_news_of_another_process_waits_for_no_look_at_the_database(
    site: Project, wsgi: Server
) -> None:
    server = Server(site, UVICORN, POLL_SECONDS="3600")
    try:
        session = new_session(wsgi)
        say(wsgi, session, "before")
        stream = follow(server, session)

        async def read() -> None:
            reading = asyncio.create_task(stream.read_until(11))
            async with asyncio.timeout(60):
                while not stream.seen:
                    await asyncio.sleep(0.02)
            for number in range(10):
                await asyncio.to_thread(say, wsgi, session, str(number))
            # A notice that found nobody listening keeps its sender silent for a second.
            for _ in range(30):
                if reading.done():
                    break
                await asyncio.sleep(1)
                if not reading.done():
                    await asyncio.to_thread(say, wsgi, session, "more")
            await reading

        asyncio.run(read())
        assert stream.opened == 1
        assert stream.texts == ["before", *map(str, range(10))]
    finally:
        server.stop()


def test_a_server_that_dies_and_comes_back_loses_and_repeats_nothing(
    wsgi: Server, asgi: Server, redis_of_site: RedisServer
) -> None:
    session = new_session(wsgi)
    stream = follow(asgi, session)

    def restart_server() -> None:
        asgi.stop(signal.SIGKILL)
        asgi.start()

    async def until_seen(count: int) -> None:
        async with asyncio.timeout(90):
            while len(stream.seen) < count:
                await asyncio.sleep(0.01)

    async def read() -> None:
        reading = asyncio.create_task(come_back_until(stream, 61))
        for number, fault in enumerate((restart_server, redis_of_site.restart, restart_server)):
            texts = [str(number * 20 + place) for place in range(20)]
            writing = asyncio.create_task(
                asyncio.to_thread(lambda texts=texts: [say(wsgi, session, text) for text in texts])
            )
            await until_seen(number * 20 + 5)
            await asyncio.to_thread(fault)
            await writing
            await until_seen(number * 20 + 20)
        await asyncio.to_thread(say, wsgi, session, "60")
        await asyncio.wait_for(reading, 90)

    asyncio.run(read())
    assert stream.opened >= 3
    assert stream.seen == list(range(1, 62))
    assert stream.texts == list(map(str, range(61)))


async def come_back_until(stream: Stream, count: int) -> None:
    while len(stream.seen) < count:
        try:
            await stream.read_until(count)
        except (OSError, IndexError):
            # The server is away: no connection, or one that ends without an answer.
            await asyncio.sleep(0.05)


def test_long_answers_and_slow_clients_stay_out_of_memory(
    site: Project, wsgi: Server, asgi: Server
) -> None:
    session = f"{SESSIONS}{run(site, LONG).splitlines()[-1]}/"
    small = new_session(wsgi)
    for server in (wsgi, asgi):
        for path in ("export/", "messages/"):
            exchange(server, small + path)
        before = server.memory()
        assert exchange(server, f"{session}export/") > 50_000_000
        assert exchange(server, f"{SESSIONS}export/") > 50_000_000
        assert server.memory() - before < 25_000_000
    before = asgi.memory()
    slow = [open_and_read_nothing(asgi, f"{session}events/") for _ in range(5)]
    time.sleep(3)
    assert asgi.memory() - before < 25_000_000
    for stream in slow:
        assert stream.recv(12) == b"HTTP/1.1 200"
        stream.close()


def exchange(server: Server, path: str) -> int:
    """Return how many bytes the answer has."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=120)
    connection.request(*server.request("GET", path, None, {}))
    answer = connection.getresponse()
    assert answer.status == 200
    size = 0
    while piece := answer.read(1 << 16):
        size += len(piece)
    connection.close()
    return size


def open_and_read_nothing(server: Server, path: str) -> socket.socket:
    stream = socket.create_connection(("127.0.0.1", server.port), timeout=60)
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    method, _path, _content, headers = server.request("GET", path, None, {})
    lines = [f"{method} {path} HTTP/1.1", "Host: 127.0.0.1"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    stream.sendall(("\r\n".join(lines) + "\r\n\r\n").encode())
    return stream
