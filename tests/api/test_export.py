from __future__ import annotations

import io
import json
import tracemalloc
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.test import AsyncClient
from rest_framework.test import APIClient

from agent_sessions.models import Session
from agent_sessions.repository import SyncSessionRepository
from agent_sessions.transfer import Importer, Outcome, read_lines
from tests.api.conftest import API, say, url

pytestmark = pytest.mark.django_db
ALL = f"{API}sessions/export/"


def lines(response: Any) -> list[dict[str, Any]]:
    assert response.status_code == 200
    assert response["Content-Type"] == "application/x-ndjson"
    text = b"".join(response.streaming_content).decode()
    assert text == "" or text.endswith("\n")
    return [json.loads(line) for line in text.splitlines()]


def test_one_session_and_all_of_ones_own(
    api: APIClient, owner: Any, session: Session, stranger: Any
) -> None:
    repository = SyncSessionRepository()
    second = repository.create(Session(user=owner, agent_id="b"))
    foreign = repository.create(Session(user=stranger, agent_id="c"))
    messages = [
        {"role": "user", "content": "NUL \x00 and half a pair \ud800"},
        {"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]},
    ]
    repository.add_messages(session.pk, messages)
    say(second, "hello")
    say(foreign, "secret")
    [one] = lines(api.get(url(session, "export")))
    assert one["messages"] == messages
    assert (one["title"], one["agent_id"]) == ("Debug Python script", "code_agent")
    first, other = lines(api.get(ALL))
    assert first == one
    assert other["messages"] == [{"role": "user", "content": "hello"}]
    assert api.get(ALL)["Content-Disposition"] == 'attachment; filename="sessions.jsonl"'


def test_an_export_has_what_an_import_needs(api: APIClient, owner: Any, session: Session) -> None:
    say(session, "hello", "again")
    response = api.get(ALL)
    text = b"".join(response.streaming_content)
    (before,) = map(json.loads, text.splitlines())
    assert before["id"] == str(session.pk)
    assert len(before["message_times"]) == 2
    SyncSessionRepository().delete(session.pk)
    (result,) = Importer(owner.pk, "backup").run(read_lines(io.BytesIO(text)))
    assert result.session_id == session.pk
    assert lines(api.get(ALL)) == [before]
    (again,) = Importer(owner.pk, "backup").run(read_lines(io.BytesIO(text)))
    assert again.outcome is Outcome.PRESENT


def test_both_names_of_json_lines_and_problems_as_json(api: APIClient, session: Session) -> None:
    assert lines(api.get(ALL, headers={"Accept": "application/x-ndjson"}))
    assert api.get(ALL, headers={"Accept": "image/png"}).status_code == 406
    missing = api.get(url("x", "export"), headers={"Accept": "application/x-ndjson"})
    assert missing.status_code == 404
    assert missing["Content-Type"] == "application/problem+json"


@pytest.mark.slow
def test_memory_does_not_grow_with_the_session(api: APIClient, session: Session) -> None:
    for _ in range(20):
        say(session, *["x" * 20_000] * 100)
    response = api.get(url(session, "export"))
    tracemalloc.start()
    size = sum(len(piece) for piece in response.streaming_content)
    _now, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert size > 40_000_000
    assert peak < size / 3


@pytest.mark.parametrize("order", ["long first", "empty first"])
def test_memory_does_not_grow_with_a_long_session_beside_an_empty_one(
    api: APIClient, owner: Any, order: str
) -> None:
    repository = SyncSessionRepository()
    made = [repository.create(Session(user=owner, agent_id="a")) for _ in range(2)]
    long = made[0] if order == "long first" else made[1]
    for _ in range(5):
        say(long, *["x" * 10_000] * 600)
    response = api.get(ALL)
    tracemalloc.start()
    size = sum(len(piece) for piece in response.streaming_content)
    _now, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert size > 30_000_000
    assert peak < size / 2


def test_an_asynchronous_server_streams_too(owner: Any, session: Session) -> None:
    say(session, *["x" * 1000] * 200)

    async def read() -> list[bytes]:
        client = AsyncClient()
        await client.aforce_login(owner)
        response = await client.get(url(session, "export"))
        assert response.is_async
        return [piece async for piece in response.streaming_content]

    pieces = async_to_sync(read)()
    assert len(pieces) > 1
    assert len(json.loads(b"".join(pieces))["messages"]) == 200
