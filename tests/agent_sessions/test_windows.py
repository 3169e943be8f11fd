"""A window of messages holds those of its session alone, whoever else has been talking."""

from __future__ import annotations

from typing import Any

import pytest
from asgiref.sync import async_to_sync

from agent_sessions.models import Message, Session
from agent_sessions.repository import SessionRepository

pytestmark = pytest.mark.django_db

COUNT = 6


@pytest.fixture
def sessions(repository: Any, make_session: Any, other_user: Any) -> list[Session]:
    """Two sessions of one user and one of another's, which grew at the same time."""
    found = [make_session(), make_session(), make_session(user=other_user)]
    for number in range(COUNT):
        for session in found:
            repository.add_message_to_session(
                session.pk, {"role": "user", "content": f"{session.pk} {number}"}
            )
    return found


def texts(session: Session, numbers: Any = range(COUNT)) -> list[str]:
    return [f"{session.pk} {number}" for number in numbers]


#: The arguments of a window, and the places of the messages that it has.
WINDOWS: list[tuple[dict[str, Any], list[int]]] = [
    ({}, [0, 1, 2, 3, 4, 5]),
    ({"limit": None}, [0, 1, 2, 3, 4, 5]),
    ({"limit": 2}, [4, 5]),
    ({"after": 0, "limit": None}, [0, 1, 2, 3, 4, 5]),
    ({"after": 0, "limit": 2}, [0, 1]),
    ({"after": 3, "limit": 50}, [3, 4, 5]),
    ({"after": 6}, []),
    ({"before": 4}, [0, 1, 2]),
    ({"before": 4, "limit": 2}, [1, 2]),
    ({"before": 1}, []),
    ({"after": 1, "before": 5}, [1, 2, 3]),
    ({"after": 1, "before": 5, "limit": 2}, [1, 2]),
]


def test_a_window_has_the_highest_number_that_postgresql_can_hold(
    repository: Any, sessions: list[Session]
) -> None:
    session = sessions[0]
    highest = Message.objects.create(session=session, sequence=2**31 - 1, role="user", content="x")
    windows: list[dict[str, int]] = [{"limit": 1}, {"after": COUNT}, {"after": COUNT, "limit": 1}]
    for window in windows:
        assert repository.get_messages(session.pk, **window) == [highest]
    assert len(repository.get_messages(session.pk)) == COUNT + 1


@pytest.mark.parametrize(("arguments", "expected"), WINDOWS)
def test_a_window_has_its_session_s_messages_in_order(
    repository: Any, sessions: list[Session], arguments: dict[str, Any], expected: list[int]
) -> None:
    for session in sessions:
        found = repository.get_messages(session.pk, user_id=session.user_id, **arguments)
        assert [message.content for message in found] == texts(session, expected)
        assert {message.session_id for message in found} <= {session.pk}
        assert {message.user_id for message in found} <= {session.user_id}
        assert [message.sequence for message in found] == [number + 1 for number in expected]


@pytest.mark.parametrize(("arguments", "expected"), WINDOWS)
def test_an_awaited_window_has_them_too(
    sessions: list[Session], arguments: dict[str, Any], expected: list[int]
) -> None:
    read = async_to_sync(SessionRepository().get_messages)
    for session in sessions:
        found = read(session.pk, user_id=session.user_id, **arguments)
        assert [message.content for message in found] == texts(session, expected)


def test_another_user_s_window_does_not_exist(repository: Any, sessions: list[Session]) -> None:
    mine, _second, theirs = sessions
    for arguments, _expected in WINDOWS:
        with pytest.raises(Session.DoesNotExist):
            repository.get_messages(theirs.pk, user_id=mine.user_id, **arguments)


def test_a_session_is_loaded_with_its_own_messages(
    repository: Any, sessions: list[Session]
) -> None:
    for session in sessions:
        loaded = repository.get_session_with_messages(session.pk)
        assert [message.content for message in loaded.messages] == texts(session)


def test_what_is_appended_to_one_session_changes_no_other(
    repository: Any, sessions: list[Session]
) -> None:
    first, second, third = sessions
    before = [
        (each.updated_at, each.last_activity_at, each.expires_at, each.message_count)
        for each in Session.objects.filter(pk__in=[second.pk, third.pk]).order_by("pk")
    ]
    repository.add_messages(first.pk, [{"role": "user", "content": "more"}] * 3)
    after = [
        (each.updated_at, each.last_activity_at, each.expires_at, each.message_count)
        for each in Session.objects.filter(pk__in=[second.pk, third.pk]).order_by("pk")
    ]
    assert before == after
    first.refresh_from_db()
    assert (first.message_count, first.last_sequence) == (COUNT + 3, COUNT + 3)
