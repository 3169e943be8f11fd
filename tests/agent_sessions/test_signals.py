"""Which signals an operation sends, and when it sends none."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from datetime import timedelta
from typing import Any

import pytest
from billiard.exceptions import SoftTimeLimitExceeded
from django.core.exceptions import ValidationError
from django.db import transaction
from django.dispatch import Signal
from django.utils import timezone

from agent_sessions.models import Session, SessionStatus
from agent_sessions.signals import (
    message_added,
    session_created,
    session_status_changed,
    sessions_deleted,
)

pytestmark = pytest.mark.django_db(transaction=True)

NAMES = {
    session_created: "created",
    message_added: "added",
    session_status_changed: "status",
    sessions_deleted: "deleted",
}


@pytest.fixture
def heard() -> Iterator[list[tuple[str, dict[str, Any]]]]:
    """The names of signals with their arguments, in the order in which they came."""
    found: list[tuple[str, dict[str, Any]]] = []

    def hear(signal: Signal, **arguments: Any) -> None:
        arguments.pop("sender")
        found.append((NAMES[signal], arguments))

    for signal in NAMES:
        signal.connect(hear)
    yield found
    for signal in NAMES:
        signal.disconnect(hear)


def names(heard: list[tuple[str, dict[str, Any]]]) -> list[str]:
    return [name for name, _arguments in heard]


def test_creating_with_messages_tells_of_the_session_and_then_of_its_messages(
    repository: Any, user: Any, heard: Any
) -> None:
    messages = [{"role": "user", "content": text} for text in ("one", "two")]
    session = repository.create(Session(user=user, agent_id="a"), messages)
    assert names(heard) == ["created", "added"]
    (_, created), (_, added) = heard
    assert created == {"session": session, "using": "default"}
    assert added["session_id"] == session.pk
    assert added["using"] == "default"
    assert [(m.sequence, m.content) for m in added["messages"]] == [(1, "one"), (2, "two")]


def test_creating_without_messages_tells_of_the_session_alone(
    repository: Any, user: Any, heard: Any
) -> None:
    repository.create(Session(user=user, agent_id="a"))
    assert names(heard) == ["created"]


def test_a_retried_creation_tells_of_nothing(repository: Any, user: Any, heard: Any) -> None:
    def create() -> Session:
        session = Session(user=user, agent_id="a", idempotency_key="k")
        return repository.create(session, [{"role": "user", "content": "one"}])

    first = create()
    heard.clear()
    assert create() == first
    assert heard == []


def test_a_status_that_changes_is_told_once(repository: Any, session: Session, heard: Any) -> None:
    repository.update_session(session.pk, {"status": "paused", "title": "x"})
    assert heard == [
        ("status", {"session_ids": [session.pk], "status": "paused", "using": "default"})
    ]


@pytest.mark.parametrize("changes", [{"title": "x"}, {"status": "active"}, {"metadata": {"a": 1}}])
def test_a_change_of_anything_else_is_not_told(
    repository: Any, session: Session, heard: Any, changes: dict[str, Any]
) -> None:
    repository.update_session(session.pk, changes)
    repository.update_session_context(session.pk, {"a": 1})
    assert heard == []


def test_a_bulk_change_tells_of_the_sessions_that_changed(
    repository: Any, make_session: Any, heard: Any
) -> None:
    active, paused = make_session(), make_session(status=SessionStatus.PAUSED)
    heard.clear()
    assert repository.bulk_update_session_status([active.pk, paused.pk], "paused") == 1
    ((name, arguments),) = heard
    assert name == "status"
    assert arguments["session_ids"] == [active.pk]
    assert arguments["status"] == "paused"


def test_a_status_that_all_have_already_changes_and_tells_nothing(
    repository: Any, make_session: Any, heard: Any
) -> None:
    ids = [make_session(status=SessionStatus.PAUSED).pk for _ in range(3)]
    before = list(Session.objects.order_by("pk").values("pk", "updated_at", "status"))
    heard.clear()
    assert repository.bulk_update_session_status(ids, "paused") == 0
    assert heard == []
    assert list(Session.objects.order_by("pk").values("pk", "updated_at", "status")) == before


def test_cleanup_tells_of_what_it_completed(repository: Any, make_session: Any, heard: Any) -> None:
    expired = make_session(expires_at=timezone.now() - timedelta(hours=1))
    make_session()
    heard.clear()
    assert repository.cleanup_expired_sessions() == 1
    ((name, arguments),) = heard
    assert (name, arguments["session_ids"], arguments["status"]) == (
        "status",
        [expired.pk],
        "completed",
    )
    heard.clear()
    assert repository.cleanup_expired_sessions() == 0
    assert heard == []


def test_an_append_that_reopens_is_told_as_messages_alone(
    repository: Any, make_session: Any, heard: Any
) -> None:
    session = make_session(status=SessionStatus.COMPLETED)
    heard.clear()
    repository.add_message_to_session(session.pk, {"role": "user", "content": "again"})
    assert names(heard) == ["added"]
    session.refresh_from_db()
    assert session.status == "active"


def test_nothing_is_told_before_the_commit_nor_after_a_rollback(
    repository: Any, user: Any, session: Session, heard: Any
) -> None:
    def everything() -> None:
        repository.create(Session(user=user, agent_id="b"), [{"role": "user", "content": "x"}])
        repository.add_message_to_session(session.pk, {"role": "user", "content": "y"})
        repository.update_session(session.pk, {"status": "paused"})
        repository.bulk_update_session_status([session.pk], "failed")
        repository.delete(session.pk)

    heard.clear()
    for rolls_back in (True, False):
        assert heard == []
        with transaction.atomic():
            everything()
            assert heard == []
            transaction.set_rollback(rolls_back)
    assert names(heard) == ["created", "added", "added", "status", "status", "deleted"]


def test_what_was_refused_is_not_told(repository: Any, session: Session, heard: Any) -> None:
    heard.clear()
    with pytest.raises(ValidationError):
        repository.add_messages(session.pk, [{"role": "user", "content": "x"}, {"role": 1}])
    with pytest.raises(ValidationError):
        repository.update_session(session.pk, {"status": "no such status"})
    assert heard == []


@pytest.mark.parametrize("in_transaction", [False, True])
def test_a_time_limit_within_a_receiver_ends_the_call_and_an_error_does_not(
    repository: Any, session: Session, in_transaction: bool
) -> None:
    errors: list[Exception] = [ValueError(), SoftTimeLimitExceeded()]

    def fail(**arguments: Any) -> None:
        raise errors[0]

    def append() -> None:
        with transaction.atomic() if in_transaction else nullcontext():
            repository.add_message_to_session(session.pk, {"role": "user", "content": "x"})

    message_added.connect(fail)
    try:
        append()
        del errors[0]
        with pytest.raises(SoftTimeLimitExceeded):
            append()
    finally:
        message_added.disconnect(fail)
    assert len(repository.get_messages(session.pk)) == 2
