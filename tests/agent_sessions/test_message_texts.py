"""Messages of providers' formats come back equal, and are found and shown by their texts."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.core.exceptions import ValidationError
from django.core.management import call_command
from django.test import Client

from agent_sessions.models import Message, Session
from agent_sessions.repository import SyncSessionRepository
from tests.agent_sessions.data import say
from tests.api.conftest import client_of, url

SHAPES: list[dict[str, Any]] = json.loads(
    (Path(__file__).parent / "message_shapes.json").read_text()
)
NAMES = [f"{shape['format']}: {shape['what']}" for shape in SHAPES]
CHANGE = "/admin/agent_sessions/session/{}/change/"


def found(session: Session, word: str) -> list[str]:
    sessions = SyncSessionRepository().for_user(session.user_id).search_sessions(word)
    return [excerpt.text for each in sessions for excerpt in each.excerpts]


@pytest.mark.parametrize("way", ["append", "append many", "create", "rest"])
@pytest.mark.parametrize("shape", SHAPES, ids=NAMES)
def test_a_message_of_a_provider_comes_back_equal_and_is_found(
    shape: dict[str, Any], way: str, repository: SyncSessionRepository, user: Any
) -> None:
    message = shape["message"]
    if way == "create":
        session = repository.create(Session(user=user, agent_id="a"), [message])
    else:
        session = repository.create(Session(user=user, agent_id="a"))
    if way == "append":
        repository.add_message_to_session(session.pk, message)
    elif way == "append many":
        repository.add_messages(session.pk, [message])
    elif way == "rest":
        answer = client_of(user).post(url(session, "messages"), message, format="json")
        assert answer.status_code == 201, answer.content
        assert answer.json()["message"] == message
    (stored,) = repository.get_messages(session.pk)
    assert stored.as_dict() == message
    assert Message.objects.get().as_dict() == message
    for word in shape["found_by"]:
        (text,) = found(session, word)
        assert word.lower() in text.lower()
    # Encoded files and signatures are no texts.
    for hidden in ("UklGRg", "EqQB", "gAAAA", "msg_01", "call_1", "text/plain"):
        assert not found(session, hidden)


@pytest.mark.parametrize("shape", SHAPES, ids=NAMES)
def test_the_admin_shows_the_texts(
    shape: dict[str, Any], session: Session, admin_client: Client
) -> None:
    SyncSessionRepository().add_message_to_session(session.pk, shape["message"])
    page = admin_client.get(CHANGE.format(session.pk)).content.decode()
    assert all(word in page for word in shape["found_by"])
    assert ("(no text)" in page) == (not shape["found_by"])


@pytest.mark.parametrize(
    ("message", "text"),
    [
        ({"role": "user", "content": "a", "parts": [{"type": "text", "text": "a"}]}, "a"),
        ({"role": "user", "content": "a", "name": "ada", "tool_call_id": "c"}, "a"),
        ({"role": "user", "content": "a", "metadata": {"text": "hidden"}}, "a"),
        ({"role": "assistant", "content": "a", "refusal": "no", "id": "1"}, "a\nno"),
        ({"role": "assistant", "content": "a", "reasoning_content": "hm"}, "a\nhm"),
        (
            {"role": "assistant", "content": [{"type": "text", "text": {"value": "v"}}]},
            "v",
        ),
        ({"role": "model", "parts": [{"functionCall": {"name": "stop"}}]}, "stop"),
        (
            {
                "role": "assistant",
                "parts": [
                    {"type": "tool-getWeather", "toolCallId": "c", "input": {"city": "Oslo"}}
                ],
            },
            "getWeather\nOslo",
        ),
        (
            {
                "role": "user",
                "content": [
                    {"type": "document", "source": {"type": "base64", "data": "QUJD"}},
                    {"type": "image_url", "image_url": {"url": "data:image/png;base64,QUJD"}},
                    {"type": "input_image", "image_url": "https://example.org/a.png"},
                ],
            },
            "",
        ),
        ({"type": "function_call_output", "output": {"files": [{"name": "a.txt"}]}}, "a.txt"),
    ],
)
def test_texts_are_those_that_people_read(
    message: dict[str, Any], text: str, session: Session, repository: SyncSessionRepository
) -> None:
    repository.add_message_to_session(session.pk, message)
    stored = Message.objects.get()
    assert stored.text == text
    assert Message.objects.values_list("content", flat=True).get() == text
    assert stored.as_dict() == message


@pytest.mark.parametrize(
    ("message", "role"),
    [
        ({"type": "function_call", "name": "f"}, "assistant"),
        ({"type": "function_call_output", "output": "x"}, "tool"),
        ({"kind": "request", "parts": []}, "user"),
        ({"author": "user", "content": {"parts": []}, "id": "e"}, "user"),
        ({"author": "coder", "content": {"role": "model", "parts": []}}, "assistant"),
    ],
)
def test_a_message_without_a_role_has_one_in_its_row(
    message: dict[str, Any], role: str, session: Session, repository: SyncSessionRepository
) -> None:
    added = repository.add_message_to_session(session.pk, message)
    assert (added.role, added.as_dict()) == (role, message)
    assert Message.objects.get().role == role
    keyed = {**message, "idempotency_key": "k"}
    first = repository.add_message_to_session(session.pk, keyed)
    assert repository.add_message_to_session(session.pk, keyed).pk == first.pk


@pytest.mark.parametrize(
    "message",
    [
        {"content": "x"},
        {"content": "x", "type": 5},
        {"role": None, "content": "x", "type": "message"},
        {"role": "tool", "content": None},
        {"role": "user", "content": None, "refusal": None},
        {"role": "user", "content": {"type": "text"}},
        {"role": "user", "content": {"a": 1, "b": 2}},
    ],
)
def test_what_no_format_has_is_refused(
    message: dict[str, Any], session: Session, repository: SyncSessionRepository
) -> None:
    with pytest.raises(ValidationError):
        repository.add_message_to_session(session.pk, message)


REFUSAL = {"role": "assistant", "content": "before", "refusal": "zebrafish"}


@pytest.mark.parametrize("how", ["save", "update", "bulk_update"])
def test_a_change_keeps_the_texts_beside_the_content(
    how: str, session: Session, repository: SyncSessionRepository
) -> None:
    repository.add_message_to_session(session.pk, REFUSAL)
    message = Message.objects.get()
    message.content = "afterwards"
    ways: dict[str, Callable[[], object]] = {
        "save": message.save,
        "update": lambda: Message.objects.update(content="afterwards"),
        "bulk_update": lambda: Message.objects.bulk_update([message], ["content"]),
    }
    ways[how]()
    assert message.content == "afterwards"
    assert Message.objects.get().as_dict() == {**REFUSAL, "content": "afterwards"}
    assert found(session, "zebrafish") == found(session, "afterwards") == ["afterwards\nzebrafish"]
    assert not found(session, "before")


def test_a_fixture_keeps_the_texts(
    session: Session, repository: SyncSessionRepository, tmp_path: Path
) -> None:
    repository.add_message_to_session(session.pk, REFUSAL)
    fixture = tmp_path / "messages.json"
    call_command("dumpdata", "agent_sessions.message", output=str(fixture))
    Message.objects.all().delete()
    call_command("loaddata", str(fixture), verbosity=0)
    assert Message.objects.get().as_dict() == REFUSAL
    assert found(session, "zebrafish")


def test_a_plain_message_takes_no_more_room(
    session: Session, repository: SyncSessionRepository
) -> None:
    repository.add_message_to_session(session.pk, say("plain", name="ada", tool_call_id="c"))
    repository.add_message_to_session(session.pk, say("plain"))
    payloads = Message.objects.in_order().values_list("payload", flat=True)
    assert [payload and "plain" in payload for payload in payloads] == [False, None]
