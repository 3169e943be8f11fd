from __future__ import annotations

import json
from typing import Any

import pytest
from rest_framework.test import APIClient

from agent_sessions.models import Message, Session
from tests.api.conftest import say, url

pytestmark = pytest.mark.django_db


def sequences(body: dict[str, Any]) -> list[int]:
    return [item["sequence"] for item in body["results"]]


@pytest.mark.parametrize(
    "message",
    [
        {"role": "user", "content": "Help me debug this code", "metadata": {"source": "web"}},
        {"role": "user", "content": ""},
        {"role": "system", "content": "NUL \x00, half a pair \ud83d, 🦊, 中文, العربية"},
        {"role": "user", "content": [{"type": "text", "text": "\udead"}, "plain", {"n": 1e300}]},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"id": "1", "function": {"name": "f", "arguments": "{\x00"}}],
        },
        {"role": "tool", "content": "21 °C", "tool_call_id": "1", "name": "weather"},
        {"role": "user", "content": "x", "created_at": "mine", "sequence": -1, "id": None},
        {"role": "user", "content": "x", "metadata": {"\x00": "\ud800", "big": 10**50, "f": -0.0}},
    ],
)
def test_a_message_comes_back_equal(
    api: APIClient, session: Session, message: dict[str, Any]
) -> None:
    response = api.post(url(session, "messages"), message, format="json")
    assert response.status_code == 201, response.content
    assert response.json()["message"] == message
    assert response.json()["sequence"] == 1
    [listed] = api.get(url(session, "messages")).json()["results"]
    assert listed == response.json()
    # Any client can decode the answer: it is ASCII.
    assert response.content.isascii()


@pytest.mark.parametrize(
    ("window", "numbers", "earlier", "later"),
    [
        ("limit=3", [4, 5, 6], "before=4", None),
        ("limit=6", [1, 2, 3, 4, 5, 6], None, None),
        ("limit=3&before=4", [1, 2, 3], None, "after=3"),
        ("limit=2&before=4", [2, 3], "before=2", "after=3"),
        ("limit=2&after=0", [1, 2], None, "after=2"),
        ("limit=2&after=4", [5, 6], "before=5", None),
        ("limit=2&after=1&before=5", [2, 3], "before=2", "after=3"),
        ("after=6", [], None, None),
    ],
)
def test_a_window_links_to_what_is_around_it(
    api: APIClient,
    session: Session,
    window: str,
    numbers: list[int],
    earlier: str | None,
    later: str | None,
) -> None:
    say(session, *map(str, range(6)))
    body = api.get(f"{url(session, 'messages')}?{window}").json()
    assert sequences(body) == numbers
    for link, place in ((body["previous"], earlier), (body["next"], later)):
        assert (link is None) == (place is None), link
        assert place is None or place in link.split("?")[1].split("&")


def test_a_batch_is_appended_in_order(api: APIClient, session: Session) -> None:
    batch = [{"role": "user", "content": str(number)} for number in range(5)]
    response = api.post(url(session, "messages"), {"messages": batch}, format="json")
    assert response.status_code == 201
    assert [item["message"] for item in response.json()["results"]] == batch
    assert sequences(response.json()) == [1, 2, 3, 4, 5]
    session.refresh_from_db()
    assert session.message_count == 5


def test_a_bad_message_in_a_batch_adds_nothing_and_is_pointed_at(
    api: APIClient, session: Session
) -> None:
    batch = [{"role": "user", "content": "fine"}, {"role": "king", "content": "bad"}, 7]
    response = api.post(url(session, "messages"), {"messages": batch}, format="json")
    assert response.status_code == 400
    pointers = {error["pointer"] for error in response.json()["errors"]}
    assert pointers == {"#/messages/1/role", "#/messages/2"}
    assert not Message.objects.exists()


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({}, "#/role"),
        ({"role": "user"}, "#/content"),
        ({"role": "user", "content": 7}, "#/content"),
        ({"role": "user", "content": {"a": 1}}, "#/content"),
        ({"role": "user", "content": [7]}, "#/content"),
        ({"role": "user", "content": None}, "#/content"),
        ({"role": "king", "content": "x"}, "#/role"),
        ({"role": None, "content": "x"}, "#/role"),
        ({"role": "user", "content": "x", "metadata": []}, "#/metadata"),
        ({"role": "user", "content": "x", "idempotency_key": ""}, "#/idempotency_key"),
        ({"messages": []}, "#/messages"),
        ({"messages": "x"}, "#/messages"),
        ({"messages": [{"role": "user", "content": "x"}] * 1001}, "#/messages"),
        ([], "#"),
        (None, "#"),
        ("x", "#"),
    ],
)
def test_what_is_no_message_is_400_and_pointed_at(
    api: APIClient, session: Session, body: Any, pointer: str
) -> None:
    response = api.post(url(session, "messages"), body, format="json")
    assert response.status_code == 400, response.content
    assert pointer in [error["pointer"] for error in response.json()["errors"]]
    assert not Message.objects.exists()


def test_windows_follow_after_before_and_limit(api: APIClient, session: Session) -> None:
    say(session, *(str(number) for number in range(1, 11)))
    address = url(session, "messages")
    assert sequences(api.get(f"{address}?limit=3").json()) == [8, 9, 10]
    assert sequences(api.get(f"{address}?after=0&limit=3").json()) == [1, 2, 3]
    assert sequences(api.get(f"{address}?after=9").json()) == [10]
    assert sequences(api.get(f"{address}?before=4&limit=2").json()) == [2, 3]
    assert sequences(api.get(f"{address}?after=2&before=6").json()) == [3, 4, 5]
    assert sequences(api.get(f"{address}?after=10").json()) == []
    assert sequences(api.get(f"{address}?after=2147483647").json()) == []


@pytest.mark.parametrize("start", ["limit=3", "after=0&limit=3"])
def test_links_lead_through_all_messages_once(api: APIClient, session: Session, start: str) -> None:
    say(session, *(str(number) for number in range(1, 11)))
    direction = "previous" if start.startswith("limit") else "next"
    seen, link = [], f"{url(session, 'messages')}?{start}"
    while link:
        body = api.get(link).json()
        seen += sequences(body)
        link = body[direction]
    assert sorted(seen) == list(range(1, 11))
    assert len(seen) == 10


@pytest.mark.parametrize(
    "query",
    ["after=x", "after=-1", "after=1.5", "after=99999999999", "before=", "limit=0", "limit=101"],
)
def test_odd_windows_are_400(api: APIClient, session: Session, query: str) -> None:
    response = api.get(f"{url(session, 'messages')}?{query}")
    assert response.status_code == 400
    assert response.json()["errors"][0]["parameter"] == query.split("=")[0]


def test_appending_reopens_and_counts(api: APIClient, session: Session) -> None:
    Session.objects.update(status="completed")
    api.post(url(session, "messages"), {"role": "user", "content": "again"}, format="json")
    body = api.get(url(session)).json()
    assert (body["status"], body["message_count"]) == ("active", 1)
    assert body["last_message_at"] is not None


def test_a_message_of_four_megabytes_survives(api: APIClient, session: Session) -> None:
    text = "🦊" * (1 << 20) + "\x00"
    message = {"role": "tool", "content": text}
    response = api.post(url(session, "messages"), message, format="json")
    assert response.status_code == 201
    body = json.loads(api.get(url(session, "messages")).content)
    assert body["results"][0]["message"]["content"] == text
