from __future__ import annotations

import json
from typing import Any

import pytest
from django.core.exceptions import ValidationError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent_sessions.models import Message
from tests.agent_sessions.data import say

pytestmark = pytest.mark.django_db


EXACT = [
    say(""),
    say([]),
    say("x", metadata={}),
    say("x", metadata=None),
    say([{"type": "text", "text": "see"}, {"type": "image_url", "image_url": {"url": "d:"}}]),
    say(["plain", {"type": "text", "text": "a\x00b"}]),
    {"role": "assistant", "content": None, "tool_calls": [{"id": "c1", "function": {"a": "{}"}}]},
    {"role": "assistant", "tool_calls": [{"id": "c1"}]},
    {"role": "tool", "content": "4", "tool_call_id": "c1", "name": "add"},
    {"role": "assistant", "content": "x", "refusal": None, "unknown": {"deep": [1, 2.5, None]}},
    say("NUL \x00, lone \ud800 and \udfff, pair apart \ud83d\ude00, emoji 😀"),
    say("x", metadata={"a\x00": "\udc00", "n": 10**40, "f": 1.5e300, "z": -0.0, "e": 1e-7}),
    say("x", extra="\ud83d\ude00"),
    say("x", payload="payload", extra={"extra": 1}, absent=True, content_type="x"),
    say("🙂" * 1_000_000),
    say("x\x00" * 1_000_000),
]


@pytest.mark.parametrize("message", EXACT, ids=lambda value: repr(value)[:40])
def test_comes_back_equal(repository, session, message):
    returned = repository.add_message_to_session(session.id, message)
    assert returned.as_dict() == message
    (read,) = repository.get_messages(session.id)
    assert read.as_dict() == message
    assert read.content == message.get("content")
    assert read.metadata == message.get("metadata", {})
    repository.add_messages(session.id, [message, message])
    assert [m.as_dict() for m in repository.get_messages(session.id)] == [message] * 3


def test_metadata_can_be_filtered_by_what_is_in_it(repository, session):
    given = say(metadata={"n": 3, "share": 0.5, "deep": {"tag": "é"}})
    added = repository.add_messages(session.id, [given, say(metadata={"n": 1})])
    found = Message.objects.filter(
        metadata__n__gt=2, metadata__share__lt=1, metadata__deep__tag="é"
    )
    assert list(found) == added[:1]


@pytest.mark.parametrize("value", ["1", "", None, [1]])
def test_keys_with_the_names_of_columns_come_back_equal(repository, session, value):
    names = {field.name for field in Message._meta.fields} - {"role", "content", "metadata"}
    message = say(**dict.fromkeys(names - {"idempotency_key"}, value))
    added = repository.add_message_to_session(session.id, message)
    assert added.as_dict() == message
    assert Message.objects.get().as_dict() == message


def test_deep_json_comes_back_equal(repository, session):
    deep: Any = "bottom"
    for _level in range(450):
        deep = [deep]
    message = say("x", metadata={"deep": deep}, tool_calls=deep)
    repository.add_message_to_session(session.id, message)
    (read,) = repository.get_messages(session.id)
    assert json.dumps(read.as_dict(), sort_keys=True) == json.dumps(message, sort_keys=True)
    for _level in range(100):
        deep = [deep]
    with pytest.raises(ValidationError):
        repository.add_message_to_session(session.id, say("x", tool_calls=deep))


def test_deep_json_that_no_column_can_hold_comes_back_equal(repository, session):
    deep: Any = "nul \x00"
    for _level in range(490):
        deep = {"a": deep}
    message = say("x", metadata=deep)
    repository.add_message_to_session(session.id, message)
    (read,) = repository.get_messages(session.id)
    assert read.as_dict() == message


any_text = st.text(st.characters(exclude_categories=()), max_size=30)
any_json = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | any_text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(any_text, inner, max_size=3),
    max_leaves=6,
)
any_message = st.fixed_dictionaries(
    {
        "role": st.sampled_from(["user", "assistant", "tool"]),
        "content": any_text
        | st.lists(any_text | st.dictionaries(any_text, any_json, max_size=2), max_size=3),
    },
    optional={
        "metadata": st.dictionaries(any_text, any_json, max_size=3),
        "tool_calls": any_json,
        "name": any_text,
    },
)


@settings(
    max_examples=100,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(messages=st.lists(any_message, min_size=1, max_size=3))
def test_whatever_is_accepted_comes_back_equal(repository, session, messages):
    returned = repository.add_messages(session.id, messages)
    read = repository.get_messages(session.id, limit=len(messages))
    assert [m.as_dict() for m in returned] == messages
    assert [m.as_dict() for m in read] == messages


def test_a_saved_message_keeps_what_it_has(repository, session):
    message = repository.add_message_to_session(session.id, say(["a\x00"], name="x"))
    read = Message.objects.get(pk=message.pk)
    read.content = ["b\x00"]
    read.save(update_fields=["content"])
    assert Message.objects.get().as_dict() == say(["b\x00"], name="x")
    read = Message.objects.get()
    read.content = "plain"
    read.save()
    assert Message.objects.get().as_dict() == say("plain", name="x")
