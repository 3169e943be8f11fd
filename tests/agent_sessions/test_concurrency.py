"""Many writers at once, in real processes and threads, on the database of the test."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection, connections
from django.utils import timezone

from agent_sessions.models import DeletedMessage, Message, Session
from tests.threads import at_once

pytestmark = pytest.mark.django_db(transaction=True)


class Worker:
    def __init__(self, operation: str, *arguments: Any) -> None:
        self.process = subprocess.Popen(
            [
                *(sys.executable, "-m", "tests.agent_sessions.worker"),
                str(connection.settings_dict["NAME"]),
                *(operation, *map(str, arguments)),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "DJANGO_SETTINGS_MODULE": "tests.settings"},
            text=True,
        )

    def line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def start(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("go\n")
        self.process.stdin.flush()

    def result(self) -> Any:
        output, _errors = self.process.communicate(timeout=120)
        assert self.process.returncode == 0
        return json.loads(output.strip().splitlines()[-1])


@pytest.fixture
def run() -> Iterator[Any]:
    started: list[Worker] = []

    def run(*works: tuple[Any, ...]) -> list[Worker]:
        workers = [Worker(*work) for work in works]
        started.extend(workers)
        for worker in workers:
            assert worker.line() == "ready"
        for worker in workers:
            worker.start()
        return workers

    yield run
    for worker in started:
        if worker.process.poll() is None:
            worker.process.kill()
        worker.process.communicate()


def counters(session: Session) -> tuple[int, int]:
    session.refresh_from_db()
    return session.message_count, session.last_sequence


@pytest.mark.slow
def test_processes_append_to_one_session(repository, session, run):
    processes, each = (8, 200) if connection.vendor == "postgresql" else (4, 25)
    workers = run(*[("append", session.id, each, f"w{n}") for n in range(processes)])
    total = processes * each
    followed: list[Message] = []
    while len(followed) < total:
        found = repository.get_messages(
            session.id, after=followed[-1].sequence if followed else 0, limit=37
        )
        followed += found
        if not found and all(worker.process.poll() is not None for worker in workers):
            followed += repository.get_messages(
                session.id, after=followed[-1].sequence if followed else 0, limit=None
            )
            break
    results = [worker.result() for worker in workers]
    assert sorted(n for numbers in results for n in numbers) == list(range(1, total + 1))
    assert all(numbers == sorted(numbers) for numbers in results)
    assert [message.sequence for message in followed] == list(range(1, total + 1))
    assert len({message.content for message in followed}) == total
    assert counters(session) == (total, total)


@pytest.mark.slow
def test_killed_in_the_middle(repository, session, run):
    for _attempt in range(3):
        (worker,) = run(("append_forever", session.id))
        for _line in range(5):
            assert worker.line() == "added"
        worker.process.kill()
        worker.process.wait(10)
    count = Message.objects.for_session(session).count()
    assert count % 3 == 0
    assert counters(session) == (count, count)
    numbers = [m.sequence for m in repository.get_messages(session.id, limit=None)]
    assert numbers == list(range(1, count + 1))


@pytest.mark.slow
def test_changes_are_whole_though_the_process_is_killed(repository, session, run):
    repository.add_messages(session.id, [{"role": "user", "content": "kept"}] * 3)
    for _attempt in range(3):
        (worker,) = run(("change_forever", session.id))
        for _line in range(5):
            assert worker.line() == "changed"
        worker.process.kill()
        worker.process.wait(10)
    count = Message.objects.for_session(session).count()
    deleted = DeletedMessage.objects.filter(session=session).count()
    assert count in (5, 6)
    # Each message has taken a number, and each deletion one.
    assert counters(session) == (count, count + 2 * deleted)
    seen = repository.get_changes(session.id, limit=None)
    assert [change.sequence for change in seen][:3] == [1, 2, 3]
    assert len(seen) == count
    assert repository.verify_counters() == []


@pytest.mark.slow
def test_idempotency_keys_are_used_once(session, run):
    processes, keys = (4, 50) if connection.vendor == "postgresql" else (3, 15)
    results = [w.result() for w in run(*[("append_keyed", session.id, keys)] * processes)]
    assert all(numbers == results[0] for numbers in results)
    assert sorted(results[0]) == list(range(1, keys + 1))
    assert counters(session) == (keys, keys)


@pytest.mark.slow
def test_sessions_with_a_key_are_created_once(user, run):
    results = [w.result() for w in run(*[("create_keyed", user.pk, 10)] * 3)]
    assert all(ids == results[0] for ids in results)
    assert Session.objects.count() == 10


@pytest.mark.slow
def test_context_merges_lose_nothing(repository, session, run):
    processes, each = (8, 25) if connection.vendor == "postgresql" else (4, 10)
    for worker in run(*[("merge", session.id, each, f"w{n}") for n in range(processes)]):
        worker.result()
    expected = {f"w{n}-{number}": number for n in range(processes) for number in range(each)}
    assert repository.get(session.id).context == expected


@pytest.mark.slow
def test_shuffled_bulk_changes_do_not_deadlock(make_session, run):
    ids = [make_session().id for _number in range(40)]
    for worker in run(*[("set_statuses", *ids)] * 4):
        worker.result()
    assert {session.status for session in Session.objects.all()} == {"failed"}


@pytest.mark.slow
def test_two_cleanups_count_each_session_once(make_session, run, settings):
    moment = timezone.now() - timedelta(seconds=1)
    ids = [make_session(expires_at=moment).id for _number in range(300)]
    counts = [worker.result() for worker in run(("cleanup",), ("cleanup",), ("cleanup",))]
    assert sum(counts) == len(ids)
    assert {session.status for session in Session.objects.all()} == {"completed"}


@pytest.mark.slow
def test_a_killed_cleanup_is_continued(repository, make_session, run):
    moment = timezone.now() - timedelta(seconds=1)
    ids = [make_session(expires_at=moment).id for _number in range(50)]
    (worker,) = run(("clean_until_killed",))
    for _batch in range(2):
        assert worker.line() == "batch"
        worker.start()
    assert worker.line() == "batch"
    worker.process.kill()
    worker.process.wait(10)
    done = Session.objects.filter(status="completed").count()
    assert done == 30
    assert repository.cleanup_expired_sessions() == len(ids) - done


@pytest.mark.slow
def test_counters_are_verified_while_messages_are_appended(repository, make_session, run):
    """What changes while it is counted is not taken for wrong, and repaired rightly."""
    session, broken = make_session(), make_session()
    Session.objects.filter(pk=broken.pk).update(message_count=7)
    each = 100 if connection.vendor == "postgresql" else 15
    *writers, counter = run(
        *[("append", s.id, each, "w") for s in (session, session, broken)],
        ("count_again", 20 if connection.vendor == "postgresql" else 3),
    )
    for writer in writers:
        writer.result()
    assert set(counter.result()) <= {str(broken.id)}
    assert repository.verify_counters() == []
    assert counters(session) == (2 * each, 2 * each)
    assert counters(broken) == (each, each)


@contextlib.contextmanager
def another_transaction():
    """A connection of its own, in a transaction from its first statement on."""
    other = connections.create_connection("default")
    other.settings_dict = connection.settings_dict
    try:
        other.set_autocommit(False)
        yield other
    finally:
        other.close()


@pytest.mark.postgres
def test_a_message_in_flight_wins_over_cleanup(repository, make_session):
    """An append that has not committed yet keeps its session from being completed."""
    session = make_session(expires_at=timezone.now() - timedelta(seconds=1))
    with another_transaction() as other:
        with other.cursor() as cursor:
            cursor.execute(
                "UPDATE agent_sessions_session SET expires_at = now() + interval '1 hour' "
                "WHERE id = %s",
                [session.id],
            )
        assert repository.cleanup_expired_sessions() == 0
        other.commit()
    assert repository.cleanup_expired_sessions() == 0
    assert repository.get(session.id).status == "active"


@pytest.mark.postgres
def test_cleanup_comes_back_for_what_was_locked(repository, make_session, settings):
    """A session locked while its batch was looked for is completed later in the same run."""
    settings.AGENT_SESSIONS_CLEANUP_BATCH_SIZE = 1
    now = timezone.now()
    first, *_ = [make_session(expires_at=now - timedelta(hours=9 - n)) for n in range(4)]
    with another_transaction() as other:
        with other.cursor() as cursor:
            cursor.execute(
                "SELECT FROM agent_sessions_session WHERE id = %s FOR UPDATE", [first.id]
            )
        assert repository.cleanup_expired_sessions(progress=lambda done: other.rollback()) == 4
    assert repository.get(first.id).status == "completed"


@pytest.mark.slow
def test_deleting_while_appending_leaves_nothing_behind(repository, make_session, run):
    session = make_session()
    (worker,) = run(("append_forever", session.id))
    assert worker.line() == "added"
    repository.delete(session.id)
    worker.process.wait(30)
    assert Message.objects.count() == 0


def test_threads_append_to_one_session(repository, session):
    numbers: list[int] = []

    def work(_thread: int) -> None:
        for _number in range(10):
            message = {"role": "user", "content": "x"}
            numbers.append(repository.add_message_to_session(session.id, message).sequence)

    at_once(work, range(6))
    assert sorted(numbers) == list(range(1, 61))
    assert counters(session) == (60, 60)
