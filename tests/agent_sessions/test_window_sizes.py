"""A window ends where the context of a model does."""

from __future__ import annotations

import json
from typing import Any

import pytest
from asgiref.sync import async_to_sync

from agent_sessions.models import Session
from agent_sessions.repository import SessionRepository

pytestmark = pytest.mark.django_db

COUNT = 120


def message(number: int) -> dict[str, Any]:
    return {"role": "user", "content": f"{number:04}"}


def size(number: int) -> int:
    return len(json.dumps(message(number), separators=(",", ":")))


def one_each(message: dict[str, Any]) -> int:
    """A counter of tokens."""
    return 1


def numbers(found: list[Any]) -> list[int]:
    return [message.sequence for message in found]


@pytest.fixture
def long(repository: Any, session: Session) -> Session:
    repository.add_messages(session.pk, [message(number) for number in range(COUNT)])
    return session


@pytest.fixture
def counted(settings: Any) -> None:
    settings.AGENT_SESSIONS_TOKEN_COUNTER = "tests.agent_sessions.test_window_sizes.one_each"


@pytest.mark.usefixtures("counted")
@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ({"max_tokens": 3}, [118, 119, 120]),
        ({"max_tokens": 3, "limit": 2}, [119, 120]),
        ({"max_tokens": 49, "limit": 50}, range(72, 121)),
        ({"max_tokens": 100}, range(71, 121)),
        ({"max_tokens": 100, "limit": None}, range(21, 121)),
        ({"max_tokens": 101, "limit": 100}, range(21, 121)),
        ({"max_tokens": 1000, "limit": None}, range(1, 121)),
        ({"max_tokens": 3, "before": 10}, [7, 8, 9]),
        ({"max_tokens": 3, "after": 10}, [11, 12, 13]),
        ({"max_tokens": 70, "after": 10, "limit": None}, range(11, 81)),
        ({"max_tokens": 9, "after": 118}, [119, 120]),
        ({"max_tokens": 3, "whole_turns": True}, [118, 119, 120]),
    ],
)
def test_tokens_end_the_window(
    repository: Any, long: Session, wanted: dict[str, Any], expected: Any
) -> None:
    assert numbers(repository.get_messages(long.pk, **wanted)) == list(expected)


def test_bytes_end_the_window(repository: Any, long: Session) -> None:
    exact = 3 * size(0)
    assert numbers(repository.get_messages(long.pk, max_bytes=exact)) == [118, 119, 120]
    assert numbers(repository.get_messages(long.pk, max_bytes=exact - 1)) == [119, 120]


def test_a_last_message_that_is_too_large_leaves_nothing(repository: Any, session: Session) -> None:
    repository.add_messages(session.pk, [message(0), {"role": "user", "content": "x" * 1000}])
    assert repository.get_messages(session.pk, max_bytes=500) == []
    assert repository.get_messages(session.pk, max_tokens=100) == []


def test_the_estimate_counts_texts_wherever_they_are(repository: Any, session: Session) -> None:
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "x" * 3000}}
    repository.add_messages(
        session.pk,
        [
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "user", "content": "\N{HIRAGANA LETTER A}" * 96},
        ],
    )
    # Three bytes each are a token, and four are the message's own.
    assert numbers(repository.get_messages(session.pk, max_tokens=100)) == [2]
    assert numbers(repository.get_messages(session.pk, max_tokens=99)) == []
    assert numbers(repository.get_messages(session.pk, max_tokens=1000)) == [2]
    assert numbers(repository.get_messages(session.pk, max_tokens=1200)) == [1, 2]


@pytest.mark.usefixtures("counted")
def test_a_small_window_of_a_long_session_reads_few_messages(
    repository: Any, long: Session, django_assert_num_queries: Any
) -> None:
    with django_assert_num_queries(1):
        repository.get_messages(long.pk, limit=None, max_tokens=20)


def test_awaited_windows_are_the_same(long: Session, user: Any) -> None:
    repo = SessionRepository().for_user(user)
    found = async_to_sync(repo.get_messages)(long.pk, max_bytes=2 * size(0), whole_turns=True)
    assert numbers(found) == [119, 120]


@pytest.mark.parametrize("wanted", [{"max_tokens": 0}, {"max_bytes": 0}, {"max_bytes": -1}])
def test_limits_below_one_are_refused(
    repository: Any, session: Session, wanted: dict[str, int]
) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        repository.get_messages(session.pk, **wanted)


def test_nobody_elses_session_is_measured(
    repository: Any, session: Session, other_user: Any
) -> None:
    with pytest.raises(Session.DoesNotExist):
        repository.for_user(other_user).get_messages(session.pk, max_tokens=5, whole_turns=True)
