"""Streams hear at once of what their own process does, and live as long as they may.

Neither a look at the database nor a sign of life comes to the help of these tests: both are an
hour apart, or said otherwise.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable
from typing import Any

import pytest

from agent_sessions.api import live
from agent_sessions.models import Session
from agent_sessions.repository import SyncSessionRepository
from tests.api import test_events
from tests.api.conftest import make_user, say
from tests.api.test_events import PASSWORD, Stream, in_another_thread, until_open

HOUR = 3600.0

server = test_events.server
live_session = test_events.live_session


@pytest.fixture
def only_news(settings: Any) -> None:
    settings.AGENT_SESSIONS_EVENTS_POLL_SECONDS = HOUR
    settings.AGENT_SESSIONS_EVENTS_KEEP_ALIVE_SECONDS = HOUR
    settings.AGENT_SESSIONS_EVENTS_MAX_SECONDS = HOUR


async def do(work: Callable[[], Any]) -> None:
    await asyncio.to_thread(in_another_thread(work).join)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.02)


@pytest.mark.usefixtures("only_news")
def test_a_message_of_the_same_process_wakes_its_streams_and_no_other(
    server: int,
    live_session: Session,
) -> None:
    other = SyncSessionRepository().create(Session(user=live_session.user, agent_id="b"))
    say(live_session, "before")
    say(other, "before")
    streams = [Stream(server, live_session), Stream(server, live_session), Stream(server, other)]

    async def follow() -> None:
        reading = [asyncio.create_task(stream.read_until(4)) for stream in streams]
        for stream in streams:
            await until_open(stream)
        for number in range(3):
            await do(lambda number=number: say(live_session, str(number)))
            await until(lambda number=number: len(streams[0].seen) == number + 2)
        await asyncio.wait_for(asyncio.gather(*reading[:2]), 30)
        assert streams[2].texts == ["before"]
        await do(lambda: say(other, "a", "b", "c"))
        await asyncio.wait_for(reading[2], 30)

    asyncio.run(follow())
    assert streams[0].texts == streams[1].texts == ["before", "0", "1", "2"]
    assert streams[2].texts == ["before", "a", "b", "c"]
    assert [stream.comments for stream in streams] == [0, 0, 0]


@pytest.mark.usefixtures("only_news")
def test_a_session_deleted_by_the_same_process_ends_its_streams_at_once(
    server: int,
    live_session: Session,
) -> None:
    say(live_session, "before")
    stream = Stream(server, live_session)
    key = live_session.pk

    async def follow() -> None:
        reading = asyncio.create_task(stream.read_until(100))
        await until_open(stream)
        await do(lambda: SyncSessionRepository().delete(key))
        await asyncio.wait_for(reading, 30)

    asyncio.run(follow())
    assert (stream.opened, stream.texts) == (1, ["before"])


def tenant_of(request: Any) -> str:
    return "acme"


def test_the_stream_of_a_tenant_follows_its_session(
    server: int, live_session: Session, settings: Any
) -> None:
    keep_looking(settings)
    settings.AGENT_SESSIONS_API_TENANT = "tests.api.test_events_wake_up.tenant_of"
    Session.objects.filter(pk=live_session.pk).update(tenant="acme")
    say(live_session, "before")
    stream = Stream(server, live_session)

    async def follow() -> None:
        reading = asyncio.create_task(stream.read_until(2))
        # As many looks at the session in the database.
        await until(lambda: stream.comments >= 3)
        await do(lambda: say(live_session, "after"))
        await asyncio.wait_for(reading, 30)

    asyncio.run(follow())
    assert (stream.opened, stream.texts) == (1, ["before", "after"])


def keep_looking(settings: Any) -> None:
    """Have each stream look at its reader's rights ten times a second."""
    settings.AGENT_SESSIONS_EVENTS_POLL_SECONDS = 0.05
    settings.AGENT_SESSIONS_EVENTS_KEEP_ALIVE_SECONDS = 0.1


def test_nothing_goes_on_looking_for_a_stream_that_has_ended(
    server: int,
    live_session: Session,
    settings: Any,
    caplog: pytest.LogCaptureFixture,
) -> None:
    keep_looking(settings)
    say(live_session, "before")

    async def follow() -> None:
        await asyncio.wait_for(Stream(server, live_session).read_until(1), 30)
        await until(lambda: not live._hubs)
        # Some looks at the database later.
        await asyncio.sleep(0.5)

    asyncio.run(follow())
    # What goes on fails in the background, which is logged as soon as it is forgotten.
    gc.collect()
    assert [record for record in caplog.records if record.name == "asyncio"] == []


@pytest.mark.parametrize("reader", ["the owner", "permitted staff", "a superuser"])
def test_an_allowed_stream_lives_past_looks_at_its_rights(
    server: int,
    live_session: Session,
    settings: Any,
    reader: str,
) -> None:
    keep_looking(settings)
    say(live_session, "before")
    if reader == "the owner":
        stream = Stream(server, live_session)
    else:
        permissions = ["view_message"] if reader == "permitted staff" else []
        staff = make_user("staff", *permissions, staff=True)
        staff.is_superuser = reader == "a superuser"
        staff.set_password(PASSWORD)
        staff.save()
        stream = Stream(server, live_session, "staff", f"?user={live_session.user_id}")

    async def follow() -> None:
        reading = asyncio.create_task(stream.read_until(2))
        # As many signs of life; the rights are looked at as often.
        await until(lambda: stream.comments >= 12)
        assert not reading.done()
        await do(lambda: say(live_session, "after many looks"))
        await asyncio.wait_for(reading, 30)

    asyncio.run(follow())
    assert stream.texts == ["before", "after many looks"]
    assert (stream.opened, stream.status) == (1, 200)


def test_the_stream_of_one_who_lost_the_right_ends_and_the_others_go_on(
    server: int,
    live_session: Session,
    settings: Any,
) -> None:
    keep_looking(settings)
    say(live_session, "before")
    staff = make_user("staff", "view_message", staff=True)
    staff.set_password(PASSWORD)
    staff.save()
    owner = Stream(server, live_session)
    guest = Stream(server, live_session, "staff", f"?user={live_session.user_id}")

    async def follow() -> None:
        reading = asyncio.create_task(owner.read_until(2))
        visiting = asyncio.create_task(guest.read_until(2))
        await until_open(owner)
        await until_open(guest)
        await do(staff.user_permissions.clear)
        await asyncio.wait_for(visiting, 30)
        assert not reading.done()
        await do(lambda: say(live_session, "not for guests"))
        await asyncio.wait_for(reading, 30)

    asyncio.run(follow())
    assert owner.texts == ["before", "not for guests"]
    assert guest.texts == ["before"]
