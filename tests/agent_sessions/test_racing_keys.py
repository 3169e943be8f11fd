"""One idempotency key in two transactions at once: one message, whoever commits first."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest
from django.db import connection, transaction

from agent_sessions.exceptions import IdempotencyConflict
from agent_sessions.models import Message, Session

pytestmark = pytest.mark.django_db(transaction=True)

SECONDS = 30


def keyed(content: str = "x", key: str = "k") -> dict[str, Any]:
    return {"role": "user", "content": content, "idempotency_key": key}


def in_thread(work: Callable[[], Any]) -> Future[Any]:
    """Run it in a thread, and so over a connection, of its own."""

    def run() -> Any:
        try:
            return work()
        finally:
            connection.close()

    pool = ThreadPoolExecutor(1)
    future = pool.submit(run)
    pool.shutdown(wait=False)
    return future


def until_somebody_waits_for_a_lock() -> None:
    deadline = time.monotonic() + SECONDS
    while True:
        with connection.cursor() as cursor:
            # A transaction sees one picture of the activity otherwise.
            cursor.execute("SELECT pg_stat_clear_snapshot()")
            cursor.execute(
                "SELECT count(*) FROM pg_stat_activity "
                "WHERE datname = current_database() AND wait_event_type = 'Lock'"
            )
            if cursor.fetchone()[0]:
                return
        assert time.monotonic() < deadline
        time.sleep(0.02)


def append_in_transaction(repository: Any, session: Session, message: Any) -> tuple[int, int]:
    """Append where an error would spoil what the caller has done; return number and count."""
    with transaction.atomic():
        Session.objects.filter(pk=session.pk).values("pk").get()
        added = repository.add_message_to_session(session.pk, message)
        # The transaction is usable afterwards.
        return added.sequence, Message.objects.filter(session=session).count()


@pytest.mark.postgres
@pytest.mark.parametrize("many", [False, True], ids=["one", "batch"])
def test_the_second_transaction_gets_the_message_of_the_first(
    repository: Any, session: Session, many: bool
) -> None:
    with transaction.atomic():
        if many:
            repository.add_messages(session.pk, [keyed(), keyed("y", "l")])
        else:
            repository.add_message_to_session(session.pk, keyed())
        second = in_thread(lambda: append_in_transaction(repository, session, keyed()))
        until_somebody_waits_for_a_lock()
    assert second.result(SECONDS) == (1, 2 if many else 1)
    session.refresh_from_db()
    assert session.message_count == session.last_sequence == (2 if many else 1)


@pytest.mark.postgres
def test_the_second_transaction_adds_it_when_the_first_rolls_back(
    repository: Any, session: Session
) -> None:
    with transaction.atomic():
        repository.add_message_to_session(session.pk, keyed())
        second = in_thread(lambda: append_in_transaction(repository, session, keyed()))
        until_somebody_waits_for_a_lock()
        transaction.set_rollback(True)
    assert second.result(SECONDS) == (1, 1)
    session.refresh_from_db()
    assert (session.message_count, session.last_sequence) == (1, 1)


@pytest.mark.postgres
def test_another_message_with_the_key_conflicts_and_leaves_the_transaction_usable(
    repository: Any, session: Session
) -> None:
    def append_another() -> list[str]:
        with transaction.atomic():
            repository.add_message_to_session(session.pk, {"role": "user", "content": "before"})
            with pytest.raises(IdempotencyConflict):
                repository.add_message_to_session(session.pk, keyed("another"))
            return list(Message.objects.order_by("sequence").values_list("content", flat=True))

    with transaction.atomic():
        repository.add_message_to_session(session.pk, keyed())
        second = in_thread(append_another)
        until_somebody_waits_for_a_lock()
    assert second.result(SECONDS) == ["x", "before"]


def race(works: list[Callable[[], Any]]) -> list[Any]:
    """Begin them at the same moment and return what they return."""
    barrier = threading.Barrier(len(works))

    def begin(work: Callable[[], Any]) -> Any:
        barrier.wait(SECONDS)
        return work()

    futures = [in_thread(lambda work=work: begin(work)) for work in works]
    return [future.result(SECONDS) for future in futures]


@pytest.mark.parametrize("atomic", [False, True], ids=["autocommit", "transaction"])
def test_duplicates_that_race_become_one_message(
    repository: Any, session: Session, atomic: bool
) -> None:
    def append(key: str) -> int:
        if not atomic:
            return int(repository.add_message_to_session(session.pk, keyed(key, key)).sequence)
        with transaction.atomic():
            return int(repository.add_message_to_session(session.pk, keyed(key, key)).sequence)

    rounds = 10
    for number in range(rounds):
        found = race([lambda number=number: append(f"k{number}")] * 3)
        assert found == [number + 1] * 3
    session.refresh_from_db()
    assert session.message_count == session.last_sequence == rounds
    assert Message.objects.count() == rounds


def test_batches_that_overlap_and_race_hold_each_key_once(
    repository: Any, session: Session
) -> None:
    def append(first: int) -> list[str]:
        keys = [f"k{number}" for number in range(first, first + 4)]
        added = repository.add_messages(session.pk, [keyed(key, key) for key in keys])
        assert [message.content for message in added] == keys
        return keys

    for start in range(0, 40, 8):
        race([lambda start=start: append(start), lambda start=start: append(start + 2)])
    stored = Message.objects.order_by("sequence")
    assert sorted(stored.values_list("idempotency_key", flat=True)) == sorted(
        f"k{start + number}" for start in range(0, 40, 8) for number in range(6)
    )
    assert [message.sequence for message in stored] == list(range(1, 31))
    session.refresh_from_db()
    assert (session.message_count, session.last_sequence) == (30, 30)


def test_sessions_created_twice_at_once_are_one(repository: Any, user: Any) -> None:
    def create(key: str) -> Any:
        session = Session(user=user, agent_id="a", idempotency_key=key)
        return repository.create(session, [{"role": "user", "content": key}]).pk

    for number in range(5):
        assert len(set(race([lambda number=number: create(f"k{number}")] * 3))) == 1
    assert Session.objects.count() == Message.objects.count() == 5
