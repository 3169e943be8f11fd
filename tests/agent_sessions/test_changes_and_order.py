"""Promises about changes and order that nothing else looks at."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from agent_sessions.models import Message, Session

pytestmark = pytest.mark.django_db


def long_ago(*sessions: Session) -> Any:
    """Set the time of the sessions' last change an hour back and return it."""
    moment = timezone.now() - timedelta(hours=1)
    Session.objects.filter(pk__in=[each.pk for each in sessions]).update(updated_at=moment)
    return moment


CHANGES: dict[str, Any] = {
    "a merged context": lambda repository, key: repository.update_session_context(key, {"a": 1}),
    "a replaced context": lambda repository, key: repository.update_session_context(
        key, {"a": 1}, replace=True
    ),
    "a title": lambda repository, key: repository.update_session(key, {"title": "x"}),
    "metadata": lambda repository, key: repository.update_session(key, {"metadata": {"a": 1}}),
    "a status": lambda repository, key: repository.bulk_update_session_status([key], "paused"),
    "a message": lambda repository, key: repository.add_message_to_session(
        key, {"role": "user", "content": "x"}
    ),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_change_moves_updated_at_in_the_database_and_in_the_answer(
    repository: Any, session: Session, make_session: Any, change: Any
) -> None:
    other = make_session()
    before = long_ago(session, other)
    started = timezone.now()
    answer = change(repository, session.pk)
    stored = Session.objects.get(pk=session.pk)
    assert started <= stored.updated_at <= timezone.now()
    if isinstance(answer, Session):
        assert answer.updated_at == stored.updated_at
    assert Session.objects.get(pk=other.pk).updated_at == before


def test_equal_matches_come_newest_activity_first(repository: Any, make_session: Any) -> None:
    sessions = [make_session(title="the same words") for _ in range(5)]
    # Neither in the order of creation nor in its reverse.
    order = [2, 4, 0, 3, 1]
    for age, number in enumerate(order):
        Session.objects.filter(pk=sessions[number].pk).update(
            last_activity_at=timezone.now() - timedelta(minutes=age + 1)
        )
    expected = [sessions[number].pk for number in order]
    user = sessions[0].user_id
    assert [each.pk for each in repository.search_sessions(user, "same words")] == expected
    assert [each.pk for each in repository.search_sessions(user, "same")] == expected
    found = repository.search_sessions(user, "same", limit=3)
    assert [each.pk for each in found] == expected[:3]


def test_equal_matches_in_messages_come_newest_activity_first(
    repository: Any, make_session: Any
) -> None:
    sessions = [make_session() for _ in range(5)]
    order = [2, 4, 0, 3, 1]
    for number in reversed(order):
        repository.add_message_to_session(
            sessions[number].pk, {"role": "user", "content": "the same words"}
        )
    for age, number in enumerate(order):
        Session.objects.filter(pk=sessions[number].pk).update(
            last_activity_at=timezone.now() - timedelta(minutes=age + 1)
        )
    expected = [sessions[number].pk for number in order]
    user = sessions[0].user_id
    for term in ("same words", "same", "sam"):
        found = repository.search_sessions(user, term)
        assert [each.pk for each in found] == expected
        found = repository.search_sessions(user, term, limit=2)
        assert [each.pk for each in found] == expected[:2]


def test_matches_of_the_same_moment_come_newest_session_first(
    repository: Any, make_session: Any
) -> None:
    sessions = [make_session(title="the same words") for _ in range(4)]
    Session.objects.update(last_activity_at=timezone.now())
    found = repository.search_sessions(sessions[0].user_id, "same")
    assert [each.pk for each in found] == [each.pk for each in reversed(sessions)]


EXACT: list[dict[str, Any]] = [
    {"role": "user", "content": "a\x00b", "metadata": {"big": 1e23}},
    {"role": "user", "content": [{"type": "text", "text": "\ud800"}], "name": "ada"},
    {"role": "assistant", "content": None, "tool_calls": [{"id": "1"}], "metadata": {"z": -0.0}},
]


@pytest.mark.parametrize("given", EXACT)
@pytest.mark.parametrize("fields", [None, ["content"], ["metadata"], ["content", "metadata"]])
@pytest.mark.parametrize("deferred", [("payload",), ("payload", "metadata"), ("content",), ()])
def test_refreshing_a_message_with_deferred_fields_is_exact(
    repository: Any,
    session: Session,
    given: dict[str, Any],
    deferred: tuple[str, ...],
    fields: list[str] | None,
) -> None:
    first = repository.add_message_to_session(session.pk, {"role": "user", "content": "before"})
    message = Message.objects.defer(*deferred).get(pk=first.pk)
    # Changed by somebody else meanwhile.
    other = Message.objects.get(pk=first.pk)
    repository.add_message_to_session(session.pk, given)
    Message.objects.filter(pk=first.pk).delete()
    changed = Message.objects.exclude(pk=first.pk).get()
    Message.objects.filter(pk=changed.pk).update(id=first.pk, role=given["role"])
    assert other.content == "before"
    message.refresh_from_db(fields=fields)
    for name in fields or ("content", "metadata"):
        assert getattr(message, name) == given.get(name, {} if name == "metadata" else None)
    if fields is None:
        assert message.as_dict() == given
    assert Message.objects.get(pk=first.pk).as_dict() == given


@pytest.mark.parametrize("given", EXACT)
def test_refreshing_undoes_what_was_assigned_beside_a_deferred_payload(
    repository: Any, session: Session, given: dict[str, Any]
) -> None:
    repository.add_message_to_session(session.pk, given)
    message = Message.objects.defer("payload").get()
    message.content, message.metadata = "assigned", {"assigned": True}
    message.refresh_from_db()
    assert message.as_dict() == given
