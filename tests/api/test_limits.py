"""What one user may cost: bodies are bounded before they are parsed."""

from __future__ import annotations

import io
import tracemalloc
from typing import Any

import pytest
from django.core.exceptions import ValidationError
from django.test import override_settings
from rest_framework.exceptions import ParseError
from rest_framework.test import APIClient

from agent_sessions.api.parsers import BoundedJSONParser
from agent_sessions.message_format import validate_message
from agent_sessions.models import Message, Session
from agent_sessions.validators import validate_object
from tests.api.conftest import API, url
from tests.api.test_requests import problem

SESSIONS = f"{API}sessions/"
JSON = "application/json"
MEGABYTES_31 = 31 * 1024 * 1024


@pytest.mark.parametrize(
    ("unit", "end"), [("[", ""), ("[],", "[]]"), ('"",', '""]'), ("1,", "1]"), ('{"a":1},', "1]")]
)
def test_a_large_body_of_small_values_is_refused_in_little_memory(unit: str, end: str) -> None:
    body = ("[" + unit * (MEGABYTES_31 // len(unit)) + end).encode()
    stream = io.BytesIO(body)
    tracemalloc.start()
    try:
        with pytest.raises(ParseError, match="too many values"):
            BoundedJSONParser().parse(stream)
        _now, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 100 * 1024 * 1024


WIDE = "x" * 10_000_000 + "😀"


@pytest.mark.parametrize(
    "refuse",
    [
        lambda: validate_message({"role": "user", "content": WIDE}),
        lambda: validate_message({"role": "user", "content": [{"type": "text", "text": WIDE}]}),
        lambda: validate_message({"role": "user", "content": "?", "metadata": {WIDE: 1}}),
        lambda: validate_object({"a": [WIDE]}),
    ],
    ids=["content", "part", "metadata", "context"],
)
def test_a_text_that_is_too_large_is_refused_before_it_is_written(refuse: Any) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(ValidationError, match="bytes"):
            refuse()
        _now, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1024 * 1024


def test_commas_and_brackets_within_text_are_not_counted(settings: Any) -> None:
    settings.AGENT_SESSIONS_MAX_REQUEST_ITEMS = 5
    text = r"[{,\"\\" * 1000
    assert len(BoundedJSONParser().parse(io.BytesIO(f'{{"a": ["{text}"]}}'.encode()))["a"]) == 1
    with pytest.raises(ParseError, match="too many values"):
        BoundedJSONParser().parse(io.BytesIO(b'{"a": [1, 2, 3, 4]}'))


@pytest.mark.django_db
def test_a_request_with_too_many_values_is_400_and_stores_nothing(
    api: APIClient, session: Session, settings: Any
) -> None:
    settings.AGENT_SESSIONS_MAX_REQUEST_ITEMS = 50
    message = {"role": "user", "content": "?", "tool_calls": [[]] * 50}
    refused = api.post(url(session, "messages"), message, format="json")
    assert refused.status_code == 400
    assert refused.json()["code"] == "parse_error"
    assert not Message.objects.exists()


@pytest.mark.django_db
@override_settings(AGENT_SESSIONS_MAX_REQUEST_BYTES=100)
def test_an_oversized_body_is_413(api: APIClient, session: Session) -> None:
    body = {"role": "user", "content": "x" * 100}
    response = api.post(url(session, "messages"), body, format="json")
    assert response.status_code == 413
    assert problem(response)["code"] == "body_too_large"
    for size, status in ((100, 201), (101, 413)):
        body_of_size = b'{"agent_id": "a"}'.ljust(size)
        assert api.post(SESSIONS, body_of_size, content_type=JSON).status_code == status
