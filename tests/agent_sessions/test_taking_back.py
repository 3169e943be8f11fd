"""Messages that are taken back, replaced or changed, and what follows them."""

from __future__ import annotations

from itertools import chain
from typing import Any
from uuid import uuid4

import pytest
from django.contrib.auth import get_user_model
from django.core.exceptions import ValidationError
from django.db import DatabaseError, IntegrityError, connection, transaction
from django.db.models.signals import post_delete
from django.test.utils import CaptureQueriesContext

from agent_sessions import IdempotencyConflict, SessionArchived, SessionChanged, SessionRepository
from agent_sessions.models import DeletedMessage, Message, Session
from agent_sessions.repository import ChangeKind
from agent_sessions.signals import message_updated, messages_deleted
from tests.agent_sessions.data import age, say
from tests.agent_sessions.test_encryption import KEYS
from tests.threads import at_once

pytestmark = pytest.mark.django_db

CHANGES: dict[str, tuple[Any, ...]] = {
    "pop_message": (),
    "delete_message": (1,),
    "clear_messages": (),
    "replace_tail": (1, [say("new")]),
    "update_message": (1, say("new")),
}
EXACT = [
    say("nul \0 and \ud800", metadata={"f": 1e300, "big": 2**70}, name="ada"),
    {"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]},
    say([{"type": "text", "text": "part"}]),
]


@pytest.fixture
def filled(repository: Any, session: Session) -> Session:
    repository.add_messages(session.pk, [say("one"), say("two", idempotency_key="k"), say("three")])
    return session


def numbers(repository: Any, session: Session) -> list[int]:
    return [message.sequence for message in repository.get_messages(session.pk, limit=None)]


class TestPop:
    @pytest.mark.parametrize("encrypted", [False, True])
    @pytest.mark.parametrize("given", EXACT)
    def test_returns_the_last_message_as_it_was_given(
        self, repository, filled, settings, given, encrypted
    ):
        if encrypted:
            settings.AGENT_SESSIONS_CIPHER_KEYS = KEYS
            settings.AGENT_SESSIONS_CIPHER = "agent_sessions.ciphers.AESGCMCipher"
        added = repository.add_message_to_session(filled.pk, {**given, "idempotency_key": "x"})
        popped = repository.pop_message(filled.pk)
        assert (popped.pk, popped.sequence, popped.as_dict()) == (added.pk, 4, given)
        assert (popped.created_at, popped.user_id) == (added.created_at, filled.user_id)
        assert popped.idempotency_key == "x"
        assert numbers(repository, filled) == [1, 2, 3]

    def test_of_an_empty_session_is_none(self, repository, session):
        assert repository.pop_message(session.pk) is None
        assert repository.get(session.pk).last_sequence == 0

    @pytest.mark.postgres
    def test_is_one_statement(self, repository, filled):
        with CaptureQueriesContext(connection) as queries:
            repository.pop_message(filled.pk)
        assert len(queries) == 1

    def test_heeds_receivers_of_django_s_signals(self, repository, filled):
        heard = []

        def hear(instance: Message, **arguments: Any) -> None:
            heard.append(instance.sequence)

        post_delete.connect(hear, sender=Message)
        try:
            assert repository.pop_message(filled.pk).content == "three"
        finally:
            post_delete.disconnect(hear, sender=Message)
        assert heard == [3]

    @pytest.mark.django_db(transaction=True)
    def test_at_once_returns_different_messages(self, repository, session):
        count = 24 if connection.vendor == "postgresql" else 8
        repository.add_messages(session.pk, [say(str(n)) for n in range(count)])

        def work(_thread: int) -> list[Any]:
            return [repository.pop_message(session.pk) for _ in range(count // 4)]

        popped = chain(*at_once(work, range(4)))
        assert sorted(message.sequence for message in popped) == list(range(1, count + 1))
        assert repository.pop_message(session.pk) is None


class TestReplacingTheTail:
    def test_is_all_or_nothing(self, repository, filled):
        with pytest.raises(ValidationError):
            repository.replace_tail(filled.pk, 1, [say("fine"), say(7)])
        with pytest.raises(IdempotencyConflict):
            repository.replace_tail(filled.pk, 2, [say("x", idempotency_key="k")])
        assert numbers(repository, filled) == [1, 2, 3]
        assert repository.get(filled.pk).last_sequence == 3

    def test_frees_the_keys_of_what_it_replaces(self, repository, filled):
        (added,) = repository.replace_tail(filled.pk, 1, [say("x", idempotency_key="k")])
        assert repository.add_message_to_session(filled.pk, say("x", idempotency_key="k")) == added
        assert [m.content for m in repository.get_messages(filled.pk)] == ["one", "x"]

    @pytest.mark.parametrize(("after", "expected"), [(0, 3), (1, 3), (3, 3), (99, 3)])
    def test_happens_if_the_last_message_is_the_expected_one(
        self, repository, filled, after, expected
    ):
        kept = [n for n in (1, 2, 3) if n <= after]
        with pytest.raises(SessionChanged) as changed:
            repository.replace_tail(filled.pk, after, [say("x")], expected_last=2)
        assert changed.value.session_id == filled.pk
        (added,) = repository.replace_tail(filled.pk, after, [say("x")], expected_last=expected)
        assert numbers(repository, filled) == [*kept, added.sequence]
        assert added.sequence == 4 + 3 - len(kept)

    def test_cuts_the_session_off_and_leaves_its_status(self, repository, filled):
        repository.update_session(filled.pk, {"status": "completed"})
        assert repository.replace_tail(filled.pk, 1, []) == []
        assert repository.get(filled.pk).status == "completed"
        repository.replace_tail(filled.pk, 1, [say("again")])
        assert repository.get(filled.pk).status == "active"

    def test_of_an_empty_session_expects_none(self, repository, session):
        with pytest.raises(SessionChanged):
            repository.replace_tail(session.pk, 0, [say()], expected_last=1)
        assert len(repository.replace_tail(session.pk, 0, [say()], expected_last=0)) == 1


class TestUpdate:
    @pytest.mark.parametrize("message_id", [2, "k"])
    @pytest.mark.parametrize("given", EXACT)
    @pytest.mark.parametrize("encrypted", [False, True])
    def test_replaces_the_message_in_its_place(
        self, repository, filled, settings, message_id, given, encrypted
    ):
        if encrypted:
            settings.AGENT_SESSIONS_CIPHER_KEYS = KEYS
            settings.AGENT_SESSIONS_CIPHER = "agent_sessions.ciphers.AESGCMCipher"
        before = Message.objects.get(sequence=2)
        changed = repository.update_message(filled.pk, message_id, given)
        stored = Message.objects.get(sequence=2)
        for message in (changed, stored):
            assert message.as_dict() == given
            assert (message.pk, message.created_at) == (before.pk, before.created_at)
            assert (message.idempotency_key, message.revision) == ("k", 4)
        assert numbers(repository, filled) == [1, 2, 3]

    def test_with_an_equal_message_writes_nothing(self, repository, filled):
        before = repository.get(filled.pk)
        assert repository.update_message(filled.pk, 1, say("one")).revision is None
        # So a repeated call succeeds, whatever was expected.
        repository.update_message(filled.pk, 1, say("one"), expected=say("older"))
        after = repository.get(filled.pk)
        assert (after.last_sequence, after.last_change) == (3, 0)
        assert after.last_message_at == before.last_message_at

    def test_happens_if_the_message_is_the_expected_one(self, repository, filled):
        with pytest.raises(SessionChanged, match="message 1"):
            repository.update_message(filled.pk, 1, say("new"), expected=say("other"))
        repository.update_message(filled.pk, 1, say("new"), expected=say("one"))
        assert repository.get_messages(filled.pk)[0].content == "new"

    def test_keeps_the_key(self, repository, filled):
        for number in (1, 2):
            with pytest.raises(ValidationError, match="keeps its key"):
                repository.update_message(filled.pk, number, say("x", idempotency_key="other"))
        repository.update_message(filled.pk, 2, say("x", idempotency_key="k"))
        # The retry of the append finds the message as it is now.
        again = repository.add_message_to_session(filled.pk, say("two", idempotency_key="k"))
        assert (again.sequence, again.content) == (2, "x")

    def test_of_what_is_not_a_message_is_refused(self, repository, filled):
        with pytest.raises(ValidationError):
            repository.update_message(filled.pk, 1, {"role": "user"})
        for unknown in (0, 4, -1, 10**12, "no such key", "a\0b", "\ud800"):
            with pytest.raises(Message.DoesNotExist):
                repository.update_message(filled.pk, unknown, say())
            with pytest.raises(Message.DoesNotExist):
                repository.delete_message(filled.pk, unknown)

    def test_reaches_a_message_that_cannot_be_decrypted(self, repository, filled):
        with connection.cursor() as cursor:
            cursor.execute("UPDATE agent_sessions_message SET payload = 'enc:x'")
        repository.update_message(filled.pk, 1, say("new"))
        assert repository.pop_message(filled.pk).is_undecryptable
        repository.delete_message(filled.pk, 2)
        assert [m.as_dict() for m in repository.get_messages(filled.pk)] == [say("new")]


@pytest.mark.parametrize("name", CHANGES)
class TestChange:
    def test_of_an_archived_or_unknown_session_is_refused(self, repository, filled, name):
        repository.update_session(filled.pk, {"status": "archived"})
        with pytest.raises(SessionArchived):
            getattr(repository, name)(filled.pk, *CHANGES[name])
        with pytest.raises(Session.DoesNotExist):
            getattr(repository, name)(uuid4(), *CHANGES[name])
        assert numbers(repository, filled) == [1, 2, 3]

    def test_moves_updated_at_and_numbers_but_not_the_activity(self, repository, filled, name):
        age(filled, hours=1)
        before = repository.get(filled.pk)
        getattr(repository, name)(filled.pk, *CHANGES[name])
        after = repository.get(filled.pk)
        assert after.updated_at > before.updated_at
        assert after.last_sequence > before.last_sequence
        if name != "replace_tail":
            assert after.last_activity_at == before.last_activity_at
            assert (after.expires_at, after.status) == (before.expires_at, before.status)

    def test_is_undone_with_the_transaction_of_the_caller(self, repository, filled, name):
        with transaction.atomic():
            getattr(repository, name)(filled.pk, *CHANGES[name])
            transaction.set_rollback(True)
        assert [m.content for m in repository.get_messages(filled.pk)] == ["one", "two", "three"]
        assert repository.get_changes(filled.pk, after=3) == []

    def test_of_messages_that_are_gone_with_their_session_leaves_nothing(
        self, repository, filled, name
    ):
        getattr(repository, name)(filled.pk, *CHANGES[name])
        get_user_model().objects.get(pk=filled.user_id).delete()
        assert Message.objects.count() == DeletedMessage.objects.count() == 0


def test_signals_tell_of_changes_after_the_commit(
    repository, filled, django_capture_on_commit_callbacks
):
    heard: list[Any] = []

    def hear_deleted(session_id: Any, sequences: Any, number: int, **rest: Any) -> None:
        heard.append((session_id, sequences, number))

    def hear_updated(session_id: Any, message: Message, **rest: Any) -> None:
        heard.append((session_id, message.sequence, message.revision))

    messages_deleted.connect(hear_deleted)
    message_updated.connect(hear_updated)
    try:
        with django_capture_on_commit_callbacks(execute=True):
            repository.update_message(filled.pk, 1, say("new"))
            repository.pop_message(filled.pk)
            repository.clear_messages(filled.pk)
            repository.clear_messages(filled.pk)
    finally:
        messages_deleted.disconnect(hear_deleted)
        message_updated.disconnect(hear_updated)
    key = filled.pk
    assert heard == [(key, 1, 4), (key, [3], 5), (key, [1, 2], 7)]


class TestFollowing:
    def test_shows_each_change_in_its_place(self, repository, filled):
        repository.update_message(filled.pk, 1, say("new"))
        repository.delete_message(filled.pk, 2)
        repository.add_message_to_session(filled.pk, say("four"))
        seen = [tuple(change)[:3] for change in repository.get_changes(filled.pk, after=3)]
        assert seen == [
            (4, ChangeKind.UPDATED, 1),
            (5, ChangeKind.DELETED, 2),
            (6, ChangeKind.ADDED, 6),
        ]
        assert repository.get_changes(filled.pk, after=6) == []
        assert [change.number for change in repository.get_changes(filled.pk, 3, limit=1)] == [4]

    def test_of_a_linear_session_is_two_queries(
        self, repository, filled, django_assert_num_queries
    ):
        with django_assert_num_queries(2):
            assert len(repository.get_changes(filled.pk)) == 3

    def test_checks_its_limit(self, repository, filled):
        with pytest.raises(ValueError, match="at least 1"):
            repository.get_changes(filled.pk, limit=0)


class TestByHand:
    def test_messages_without_a_number_get_the_next(self, repository, filled):
        made = filled.messages.create(role="user", content="four")
        filled_by_hand = [Message(session=filled, user_id=filled.user_id, role="user", content="x")]
        Message.objects.bulk_create(filled_by_hand)
        stored = repository.get(filled.pk)
        assert (made.sequence, filled_by_hand[0].sequence) == (4, 5)
        assert (stored.message_count, stored.last_sequence) == (5, 5)
        assert stored.last_message_at == filled_by_hand[0].created_at

    def test_a_number_below_the_last_is_heard_of_by_followers(self, repository, filled):
        repository.delete_message(filled.pk, 2)
        Message.objects.create(session=filled, sequence=2, role="user", content="late")
        (change,) = repository.get_changes(filled.pk, after=4)
        assert (change.number, change.sequence, change.message.content) == (5, 2, "late")
        with pytest.raises(IntegrityError), transaction.atomic():
            filled.messages.create(sequence=2, role="user", content="again")
        assert repository.verify_counters() == []

    def test_numbers_below_and_above_the_last_are_heard_of_once_each(self, repository, filled):
        repository.delete_message(filled.pk, 2)
        last = Session.objects.get(pk=filled.pk).last_sequence
        places = [2, last + 1]
        Message.objects.bulk_create(
            [
                Message(
                    session=filled, user_id=filled.user_id, sequence=n, role="user", content="x"
                )
                for n in places
            ]
        )
        heard = []
        while changes := repository.get_changes(filled.pk, after=last, limit=1):
            heard += changes
            last = changes[-1].number
        assert sorted(change.sequence for change in heard) == places

    def test_a_deleted_message_is_not_saved_back(self, repository, filled):
        stale = Message.objects.get(sequence=2)
        repository.delete_message(filled.pk, 2)
        stale.content = "back"
        with pytest.raises(DatabaseError), transaction.atomic():
            stale.save()
        assert numbers(repository, filled) == [1, 3]

    def test_what_cannot_be_counted_is_refused(self, filled):
        message = Message(session=filled, user_id=filled.user_id, sequence=9, role="user")
        with pytest.raises(ValueError, match="add_messages"):
            Message.objects.bulk_create([message], ignore_conflicts=True)

    def test_deletions_of_several_sessions_are_counted(self, repository, filled, make_session):
        other = make_session()
        repository.add_messages(other.pk, [say("a"), say("b")])
        assert Message.objects.filter(sequence=2).delete() == (2, {"agent_sessions.Message": 2})
        counts = [repository.get(each.pk).message_count for each in (filled, other)]
        assert counts == [2, 1]
        assert Message.objects.all().delete()[0] == 3
        assert Message.objects.all().delete() == (0, {})
        assert repository.verify_counters() == []

    def test_bulk_updates_are_heard_of(self, repository, filled):
        rows = list(Message.objects.in_order())
        for row in rows:
            row.content = "same"
        Message.objects.bulk_update(rows, ["content"])
        changes = repository.get_changes(filled.pk, after=3)
        assert [(c.number, c.sequence, c.message.content) for c in changes] == [
            (4, 1, "same"),
            (5, 2, "same"),
            (6, 3, "same"),
        ]

    @pytest.mark.parametrize("way", ["update", "bulk_update"])
    def test_the_session_is_locked_before_the_transaction_reads(self, filled, way):
        # A transaction of SQLite that has read cannot wait for its turn to write.
        (row, *_rest) = Message.objects.in_order()
        with CaptureQueriesContext(connection) as captured:
            if way == "update":
                Message.objects.filter(pk=row.pk).update(content="new")
            else:
                Message.objects.bulk_update([row], ["content"])
        statements = [query["sql"] for query in captured]
        begin = next(n for n, sql in enumerate(statements) if sql.startswith("SAVEPOINT"))
        first = statements[begin + 1]
        assert first.startswith("UPDATE") or "FOR UPDATE" in first

    def test_what_was_deleted_is_not_in_the_queryset_any_more(self, filled):
        messages = filled.messages.filter(sequence=1)
        assert len(messages) == 1
        messages.delete()
        assert len(messages) == 0


def test_numbers_that_lag_behind_changes_are_found_and_repaired(repository, filled):
    repository.update_message(filled.pk, 1, say("new"))
    Session.objects.update(last_change=0)
    assert repository.verify_counters(repair=True) == [filled.pk]
    assert [change.sequence for change in repository.get_changes(filled.pk, after=3)] == [1]
    repository.pop_message(filled.pk)
    # As after a restore of the sessions alone.
    Session.objects.update(last_sequence=3, last_change=0)
    assert repository.verify_counters(repair=True) == [filled.pk]
    repository.pop_message(filled.pk)
    kinds = [(c.number, c.kind) for c in repository.get_changes(filled.pk, after=4)]
    assert kinds == [(5, ChangeKind.DELETED), (6, ChangeKind.DELETED)]
    assert repository.verify_counters() == []


async def test_the_awaited_repository_takes_back(user: Any) -> None:
    repository = SessionRepository().for_user(user)
    session = await repository.create(Session(agent_id="a"), [say("one"), say("two")])
    popped = await repository.pop_message(session)
    assert popped is not None
    assert popped.content == "two"
    await repository.replace_tail(session, 0, [say("new")], expected_last=1)
    await repository.update_message(session, 5, say("newer"))
    assert [change.number for change in await repository.get_changes(session, after=2)] == [3, 4, 5]
    assert await repository.clear_messages(session) == 1
