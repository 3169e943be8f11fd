from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
import uvicorn
from asgiref.sync import async_to_sync
from django.contrib.auth import get_user_model
from django.contrib.auth.backends import BaseBackend
from django.core.asgi import get_asgi_application
from django.db import connection
from django.test import AsyncClient
from django.test.utils import CaptureQueriesContext
from rest_framework.test import APIClient

from agent_sessions.api import events
from agent_sessions.models import Message, Session
from agent_sessions.repository import SyncSessionRepository
from tests.agent_sessions.test_concurrency import Worker
from tests.api.conftest import make_user, say, url
from tests.services import free_port

PASSWORD = "secret"


@pytest.fixture
def server(transactional_db: None) -> Iterator[int]:
    """The port of a real ASGI server."""
    port = free_port()
    config = uvicorn.Config(
        get_asgi_application(), host="127.0.0.1", port=port, lifespan="off", log_level="error"
    )
    running = uvicorn.Server(config)
    thread = threading.Thread(target=running.run)
    thread.start()
    while not running.started:
        assert thread.is_alive()
        time.sleep(0.01)
    yield port
    running.should_exit = running.force_exit = True
    thread.join(30)
    assert not thread.is_alive()


@pytest.fixture
def live_session(transactional_db: None) -> Session:
    user = get_user_model().objects.create_user("live", password=PASSWORD)  # type: ignore[attr-defined]
    return SyncSessionRepository().create(Session(user=user, agent_id="a"))


class Stream:
    """An EventSource: reads events, and remembers where it was."""

    def __init__(self, port: int, session: Any, user: str = "live", query: str = "") -> None:
        self.port, self.session = port, session
        self.user, self.query = user, query
        self.seen: list[int] = []
        self.texts: list[str] = []
        self.status = 0
        self.comments = 0
        self.opened = 0

    async def _lines(self) -> AsyncIterator[str]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        self.opened += 1
        login = base64.b64encode(f"{self.user}:{PASSWORD}".encode()).decode()
        last = f"Last-Event-ID: {self.seen[-1]}\r\n" if self.seen else ""
        writer.write(
            f"GET {url(self.session, 'events')}{self.query} HTTP/1.1\r\nHost: 127.0.0.1\r\n"
            f"Accept: text/event-stream\r\nConnection: close\r\n"
            f"Authorization: Basic {login}\r\n{last}\r\n".encode()
        )
        try:
            self.status = int((await reader.readline()).split()[1])
            while line := await reader.readline():
                yield line.decode().strip()
        finally:
            writer.close()

    async def read_until(self, count: int) -> None:
        """Read events until *count* were seen in all; then hang up."""
        lines = self._lines()
        async with contextlib.aclosing(lines):
            async for line in lines:
                self.comments += line.startswith(":")
                if line.startswith("data: "):
                    event = json.loads(line.removeprefix("data: "))
                    self.seen.append(event["sequence"])
                    self.texts.append(event["message"]["content"])
                    if len(self.seen) >= count:
                        return


def in_another_thread(work: Any) -> threading.Thread:
    def run() -> None:
        try:
            work()
        finally:
            connection.close()

    thread = threading.Thread(target=run)
    thread.start()
    return thread


def connections_to_the_database() -> int:
    if connection.vendor != "postgresql":
        return 0
    try:
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
            )
            count: int = cursor.fetchone()[0]
            return count
    finally:
        connection.close()


@pytest.mark.slow
def test_two_hundred_streams_see_each_message_once_and_in_order(
    server: int, live_session: Session, settings: Any
) -> None:
    settings.AGENT_SESSIONS_MAX_STREAMS_PER_USER = 200
    say(live_session, "before")
    streams = [Stream(server, live_session) for _ in range(200)]

    async def follow() -> None:
        reading = []
        async with asyncio.timeout(60):
            for start in range(0, len(streams), 20):
                wave = streams[start : start + 20]
                reading += [asyncio.create_task(stream.read_until(21)) for stream in wave]
                while not all(stream.seen for stream in wave):
                    await asyncio.sleep(0.02)
        assert await asyncio.to_thread(connections_to_the_database) < 20
        for number in range(20):
            await asyncio.to_thread(
                in_another_thread(lambda n=number: say(live_session, str(n))).join
            )
        await asyncio.wait_for(asyncio.gather(*reading), 60)

    asyncio.run(follow())
    for stream in streams:
        assert stream.seen == list(range(1, 22))
        assert stream.texts == ["before", *map(str, range(20))]


@pytest.fixture
def writers(live_session: Session) -> Iterator[list[Worker]]:
    """Two processes, each about to append thirty messages one by one."""
    made = [Worker("append", live_session.pk, 30, name) for name in ("a", "b")]
    for worker in made:
        assert worker.line() == "ready"
    yield made
    for worker in made:
        if worker.process.poll() is None:
            worker.process.kill()
        worker.process.communicate()


async def until_open(stream: Stream) -> None:
    async with asyncio.timeout(30):
        while not stream.seen:
            await asyncio.sleep(0.02)


@pytest.mark.slow
def test_what_other_processes_append_arrives_once_and_in_order(
    server: int, live_session: Session, writers: list[Worker], settings: Any
) -> None:
    # No sign of life comes to the help of the looks at the database.
    settings.AGENT_SESSIONS_EVENTS_KEEP_ALIVE_SECONDS = 3600.0
    say(live_session, "before")
    stream = Stream(server, live_session)

    async def follow() -> None:
        reading = asyncio.create_task(stream.read_until(61))
        await until_open(stream)
        for writer in writers:
            writer.start()
        await asyncio.wait_for(reading, 60)

    asyncio.run(follow())
    assert stream.seen == list(range(1, 62))
    for name in ("a", "b"):
        mine = [text for text in stream.texts if text.startswith(f"{name} ")]
        assert mine == [f"{name} {number}" for number in range(30)]


@pytest.mark.slow
def test_a_client_that_drops_and_returns_misses_nothing(
    server: int, live_session: Session, writers: list[Worker]
) -> None:
    stream = Stream(server, live_session)
    for writer in writers:
        writer.start()

    async def follow() -> None:
        for seen in (1, 7, 30, 60):
            await asyncio.wait_for(stream.read_until(seen), 60)

    asyncio.run(follow())
    assert stream.seen == list(range(1, 61))


def test_what_the_same_process_appends_waits_for_no_look_at_the_database(
    server: int, live_session: Session, settings: Any
) -> None:
    settings.AGENT_SESSIONS_EVENTS_POLL_SECONDS = 3600.0
    settings.AGENT_SESSIONS_EVENTS_KEEP_ALIVE_SECONDS = 3600.0
    say(live_session, "before")
    stream = Stream(server, live_session)

    async def follow() -> None:
        reading = asyncio.create_task(stream.read_until(11))
        await until_open(stream)
        for number in range(10):
            await asyncio.to_thread(
                in_another_thread(lambda n=number: say(live_session, str(n))).join
            )
        await asyncio.wait_for(reading, 30)

    asyncio.run(follow())
    assert stream.texts == ["before", *map(str, range(10))]


@pytest.mark.slow
@pytest.mark.postgres
def test_an_open_stream_goes_on_when_its_connection_is_killed(
    server: int, live_session: Session, writers: list[Worker]
) -> None:
    say(live_session, "before")
    stream = Stream(server, live_session)

    def kill_connections() -> int:
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
            killed: int = cursor.fetchone()[0]
        connection.close()
        return killed

    async def follow() -> None:
        reading = asyncio.create_task(stream.read_until(61))
        await until_open(stream)
        for seen, writer in zip((1, 31), writers, strict=True):
            assert await asyncio.to_thread(kill_connections) > 0
            writer.start()
            await asyncio.wait_for(asyncio.to_thread(writer.result), 60)
            async with asyncio.timeout(30):
                while len(stream.seen) < seen + 30:
                    await asyncio.sleep(0.02)
        await asyncio.wait_for(reading, 30)

    connection.close()  # Of this test's own: it would be killed along.
    asyncio.run(follow())
    # One connection of the client's all the while: it was never told to come back.
    assert stream.opened == 1
    assert stream.seen == list(range(1, 62))


def test_the_stream_of_a_deleted_session_ends_and_is_404_afterwards(
    server: int, live_session: Session
) -> None:
    say(live_session, "one")
    stream = Stream(server, live_session)

    async def follow() -> None:
        reading = asyncio.create_task(stream.read_until(2))
        async with asyncio.timeout(30):
            while not stream.seen:
                await asyncio.sleep(0.05)
        key = live_session.pk
        await asyncio.to_thread(in_another_thread(lambda: SyncSessionRepository().delete(key)).join)
        await asyncio.wait_for(reading, 30)
        assert stream.status == 200
        await asyncio.wait_for(stream.read_until(2), 30)
        assert stream.status == 404

    asyncio.run(follow())
    assert stream.seen == [1]


def ends_with(stream: Stream, change: Callable[[], Any], status: int) -> None:
    """Demand that the change ends the open stream, and that coming back has the status."""

    async def follow() -> None:
        reading = asyncio.create_task(stream.read_until(100))
        await until_open(stream)
        await asyncio.to_thread(in_another_thread(change).join)
        await asyncio.wait_for(reading, 30)
        assert (stream.opened, stream.status) == (1, 200)
        await asyncio.wait_for(stream.read_until(100), 30)
        assert stream.status == status

    asyncio.run(follow())


@pytest.mark.parametrize("poll", [0.1, 3600.0])
def test_a_session_given_away_takes_its_stream_along(
    server: int, live_session: Session, settings: Any, poll: float
) -> None:
    settings.AGENT_SESSIONS_EVENTS_POLL_SECONDS = poll
    say(live_session, "mine")
    other = make_user("other")

    def give_away() -> None:
        Session.objects.filter(pk=live_session.pk).update(user=other)
        say(live_session, "no longer mine")

    stream = Stream(server, live_session)
    ends_with(stream, give_away, 404)
    assert stream.texts == ["mine"]


def test_a_user_who_is_locked_out_is_out_of_the_streams_too(
    server: int, live_session: Session, settings: Any
) -> None:
    settings.AGENT_SESSIONS_EVENTS_KEEP_ALIVE_SECONDS = 0.5
    say(live_session, "before")
    users = get_user_model().objects.filter(username="live")
    ends_with(Stream(server, live_session), lambda: users.update(is_active=False), 401)


def test_staff_who_lose_the_permission_lose_the_stream(
    server: int, live_session: Session, settings: Any
) -> None:
    settings.AGENT_SESSIONS_EVENTS_KEEP_ALIVE_SECONDS = 0.5
    say(live_session, "before")
    staff = make_user("staff", "view_message", staff=True)
    staff.set_password(PASSWORD)
    staff.save()
    stream = Stream(server, live_session, "staff", f"?user={live_session.user_id}")
    ends_with(stream, staff.user_permissions.clear, 403)


class Unreachable(BaseBackend):
    """A directory of permissions that does not answer while streams ask."""

    def has_perm(self, user_obj: Any, perm: str, obj: Any = None) -> bool:
        if threading.current_thread().name.startswith("agent-sessions-follow"):
            raise OSError("The directory does not answer.")
        return False


def test_staff_whose_permission_nobody_can_look_up_lose_the_stream(
    server: int, live_session: Session, settings: Any
) -> None:
    settings.AGENT_SESSIONS_EVENTS_KEEP_ALIVE_SECONDS = 0.5
    settings.AUTHENTICATION_BACKENDS = [
        *settings.AUTHENTICATION_BACKENDS,
        f"{__name__}.{Unreachable.__name__}",
    ]
    say(live_session, "before")
    staff = make_user("staff", "view_message", staff=True)
    staff.set_password(PASSWORD)
    staff.save()
    stream = Stream(server, live_session, "staff", f"?user={live_session.user_id}")
    ends_with(stream, lambda: staff.user_permissions.clear(), 403)


def test_a_quiet_stream_gives_signs_of_life_and_ends_some_day(
    server: int, live_session: Session, settings: Any
) -> None:
    settings.AGENT_SESSIONS_EVENTS_KEEP_ALIVE_SECONDS = 0.1
    settings.AGENT_SESSIONS_EVENTS_MAX_SECONDS = 1.0
    stream = Stream(server, live_session)
    asyncio.run(asyncio.wait_for(stream.read_until(1), 30))
    assert stream.status == 200
    assert stream.comments >= 1
    assert stream.seen == []


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("is_async", [True, False], ids=["asgi", "wsgi"])
def test_an_open_stream_of_an_asynchronous_server_holds_no_connection(
    api: APIClient, session: Session, is_async: bool
) -> None:
    async def get() -> Any:
        client = AsyncClient()
        await client.aforce_login(session.user)
        return await client.get(url(session, "events"))

    connection.ensure_connection()
    # A server's thread that serves the request synchronously goes on reading on its own.
    response = async_to_sync(get)() if is_async else api.get(url(session, "events"))
    assert response.status_code == 200
    assert (connection.connection is None) is is_async
    # A proxy may hold back what ends, not what stays open.
    assert response.get("X-Accel-Buffering") == ("no" if is_async else None)
    response.close()


@pytest.mark.django_db
def test_a_synchronous_server_sends_what_there_is(api: APIClient, session: Session) -> None:
    say(session, "a\nb", "\x00\ud800", *map(str, range(150)))
    response = api.get(url(session, "events"), headers={"Last-Event-ID": "1"})
    assert response["Content-Type"] == "text/event-stream"
    sent = b"".join(response.streaming_content).decode().split("\n\n")
    assert sent[0] == "retry: 1000"
    assert sent[1].splitlines()[0] == "id: 2"
    assert json.loads(sent[1].split("data: ")[1])["message"]["content"] == "\x00\ud800"
    assert len(sent) == 1 + 151 + 1


@pytest.mark.django_db
def test_a_message_with_the_number_0_is_sent_too(api: APIClient, session: Session) -> None:
    Message.objects.create(session=session, sequence=0, role="user", content="zero")
    say(session, "one")
    for after, numbers in (("", [0, 1]), ("0", [1]), ("1", [])):
        response = api.get(url(session, "events"), headers={"Last-Event-ID": after})
        sent = b"".join(response.streaming_content).decode().split("\n\n")[1:-1]
        assert [int(event.split("\n")[0].removeprefix("id: ")) for event in sent] == numbers


@pytest.mark.django_db
def test_messages_larger_than_a_window_are_read_one_by_one(
    api: APIClient, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "_WINDOW_BYTES", 10)
    say(session, *map(str, range(30)))
    response = api.get(url(session, "events"))
    with CaptureQueriesContext(connection) as queries:
        sent = b"".join(response.streaming_content).decode().split("\n\n")[1:-1]
    found = [json.loads(event.split("data: ")[1])["message"]["content"] for event in sent]
    assert found == [*map(str, range(30))]
    # How large they are is known after the first twenty.
    assert len(queries) >= 1 + 10


@pytest.mark.django_db
def test_odd_places_are_400(api: APIClient, session: Session) -> None:
    for place in ("x", "-1", "1.5", "٣", "9" * 11):
        assert api.get(url(session, "events"), {"after": place}).status_code == 400
    assert api.get(url(session, "events"), {"after": "9" * 10}).status_code == 200
