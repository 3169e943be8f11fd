from __future__ import annotations

import uuid
from typing import Any

import pytest
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from agent_sessions.models import Message, Session
from agent_sessions.querysets import ORDERS
from tests.agent_sessions.data import age, say

pytestmark = pytest.mark.django_db


class TestLists:
    def test_newest_activity_first(self, repository, make_session, other_user):
        sessions = [make_session(title=str(number)) for number in range(3)]
        make_session(user=other_user)
        repository.add_message_to_session(sessions[0].id, say())
        user_id = sessions[0].user_id
        assert repository.get_user_sessions(user_id) == [sessions[0], sessions[2], sessions[1]]
        assert repository.get_user_sessions(user_id, limit=1) == [sessions[0]]
        assert repository.get_user_sessions(sessions[0].user) == repository.get_user_sessions(
            user_id
        )

    def test_active_sessions_are_those_that_have_not_expired(self, repository, make_session):
        active, expired, never = make_session(), make_session(), make_session(expires_at=None)
        age(expired, seconds=1)
        others = [make_session(status=s) for s in ("paused", "completed", "failed", "archived")]
        user_id = active.user_id
        assert repository.get_user_sessions(user_id) == [never, active]
        everything = repository.get_user_sessions(user_id, active_only=False)
        assert set(everything) == {active, expired, never, *others}

    @pytest.mark.parametrize("limit", [0, -1])
    def test_a_limit_below_one_is_refused(self, repository, session, limit):
        with pytest.raises(ValueError, match="limit"):
            repository.get_user_sessions(session.user_id, limit=limit)
        with pytest.raises(ValueError, match="limit"):
            repository.get_messages(session.id, limit=limit)
        with pytest.raises(ValueError, match="limit"):
            repository.search_sessions(session.user_id, "x", limit=limit)

    def test_pages_tell_their_place_and_totals(self, repository, make_session):
        sessions = [make_session() for _number in range(5)][::-1]
        user_id = sessions[0].user_id
        page = repository.get_paginated_user_sessions(user_id, 1, 2)
        assert page.items == sessions[:2]
        assert (page.page, page.page_size, page.total_items, page.total_pages) == (1, 2, 5, 3)
        assert (page.has_next, page.has_previous) == (True, False)
        page = repository.get_paginated_user_sessions(user_id, page=2, page_size=2)
        assert page.items == sessions[2:4]
        assert (page.has_next, page.has_previous) == (True, True)
        page = repository.get_paginated_user_sessions(user_id, page=3, page_size=2)
        assert page.items == sessions[4:]
        assert (page.has_next, page.has_previous) == (False, True)
        page = repository.get_paginated_user_sessions(user_id, page=4, page_size=2)
        assert (page.items, page.has_next, page.has_previous) == ([], False, True)
        page = repository.get_paginated_user_sessions(user_id, 10**30, 2)
        assert (page.items, page.has_next, page.has_previous) == ([], False, False)

    def test_pages_of_nothing(self, repository, user):
        page = repository.get_paginated_user_sessions(user.pk, 1, 10)
        assert (page.items, page.total_items, page.total_pages) == ([], 0, 0)
        assert (page.has_next, page.has_previous) == (False, False)

    def test_limits_beyond_the_database(self, repository, session):
        repository.add_message_to_session(session.id, say())
        assert repository.get_user_sessions(session.user_id, limit=10**30) == [session]
        assert len(repository.get_messages(session.id, after=-(10**30), limit=10**30)) == 1
        assert repository.get_messages(session.id, after=10**30) == []
        assert repository.search_sessions(session.user_id, "hello", limit=10**30) == [session]

    @pytest.mark.parametrize(("page", "size"), [(0, 10), (-1, 10), (1, 0), (1, -1), (1, 101)])
    def test_a_page_or_size_out_of_range_is_refused(self, repository, user, page, size):
        with pytest.raises(ValueError, match="page"):
            repository.get_paginated_user_sessions(user.pk, page, size)

    @pytest.mark.parametrize("order", ORDERS)
    def test_what_is_beyond_a_session_goes_through_all(self, make_session, order):
        sessions = [make_session() for _number in range(7)]
        moment = timezone.now()
        Session.objects.filter(pk__in=[s.pk for s in sessions[2:5]]).update(last_activity_at=moment)
        user = sessions[0].user
        listing = Session.objects.for_user(user).sorted_by(order)
        seen = list(listing[:2])
        while page := list(listing.beyond(order, seen[-1].last_activity_at, seen[-1].id)[:2]):
            seen += page
        assert seen == list(listing)
        assert len(seen) == 7


class TestMessages:
    def test_windows_are_the_last_the_next_or_the_previous_messages(self, repository, session):
        repository.add_messages(session.id, [say(str(n)) for n in range(1, 11)])

        def numbers(**window: Any) -> list[int]:
            return [m.sequence for m in repository.get_messages(session.id, **window)]

        assert numbers() == list(range(1, 11))
        assert numbers(limit=3) == [8, 9, 10]
        assert numbers(before=8, limit=3) == [5, 6, 7]
        assert numbers(after=2, limit=3) == [3, 4, 5]
        assert numbers(after=2, before=5) == [3, 4]
        assert numbers(after=10) == []
        assert numbers(limit=None) == list(range(1, 11))

    def test_windows_over_what_was_deleted(self, repository, session):
        repository.add_messages(session.id, [say(str(n)) for n in range(1, 31)])
        kept = [1, 2, 5, 6, 20, 21, 22]
        session.messages.exclude(sequence__in=kept).delete()

        for before in (None, 0, 1, 4, 6, 20, 23, 31, 10**30):
            below = [n for n in kept if before is None or n < before]
            for limit in (1, 2, 3, 6, 7, 10**30, None):
                found = repository.get_messages(session.id, before=before, limit=limit)
                assert [m.sequence for m in found] == below[-limit if limit else None :]
                for after in (-1, 0, 2, 6, 19, 22, 30):
                    found = repository.get_messages(
                        session.id, after=after, before=before, limit=limit
                    )
                    expected = [n for n in below if n > after][:limit]
                    assert [m.sequence for m in found] == expected

    @pytest.mark.postgres
    @pytest.mark.parametrize("window", [{}, {"before": 2_500}, {"after": 2_500}, {"after": 4_990}])
    def test_no_more_is_read_than_the_window(self, repository, session, window):
        """Whatever the planner knows of the session, which here is nothing."""
        repository.add_messages(session.id, [say(str(n)) for n in range(5_000)])
        with CaptureQueriesContext(connection) as queries:
            repository.get_messages(session.id, limit=20, **window)
        (query,) = [q["sql"] for q in queries]
        with connection.cursor() as cursor:
            cursor.execute(f"EXPLAIN (ANALYZE, FORMAT JSON) {query}")
            waiting = [cursor.fetchone()[0][0]["Plan"]]
        while waiting:
            node = waiting.pop()
            assert node["Actual Rows"] <= 20
            waiting += node.get("Plans", [])

    def test_windows_over_what_was_written_by_hand(self, repository, session):
        for number in (0, 1, 2, 90):
            Message.objects.create(session=session, sequence=number, role="user", content="x")
        for window in ({"limit": 2}, {"after": 1, "limit": 2}, {"before": 91, "limit": 2}):
            found = repository.get_messages(session.id, **window)
            assert [message.sequence for message in found] == [2, 90]
        Session.objects.filter(pk=session.pk).update(last_sequence=3)
        session.messages.filter(sequence=90).delete()
        for limit in (3, 4):
            found = repository.get_messages(session.id, limit=limit)
            assert [message.sequence for message in found] == [0, 1, 2]

    @pytest.mark.parametrize("limit", [True, 1.0, 2**40, float("inf")])
    def test_limits_that_are_numbers(self, repository, session, limit):
        repository.add_messages(session.id, [say("1"), say("2")])
        found = repository.get_messages(session.id, limit=limit)
        assert [message.sequence for message in found] == ([2] if limit == 1 else [1, 2])

    def test_a_missing_session_has_no_messages_to_read(self, repository, session):
        assert repository.get_messages(session.id) == []
        with pytest.raises(Session.DoesNotExist):
            repository.get_messages(uuid.uuid4())

    def test_of_one_user(self, repository, session, other_user):
        repository.add_messages(session.id, [say(str(n)) for n in range(1, 4)])
        for user in (session.user, session.user_id, str(session.user_id)):
            found = repository.get_messages(session.id, after=1, user_id=user)
            assert [message.sequence for message in found] == [2, 3]
        nobody = 2**62
        for user in (other_user, other_user.pk, nobody):
            with pytest.raises(Session.DoesNotExist):
                repository.get_messages(session.id, user_id=user)

    def test_come_back_whole(self, repository, session):
        given = [
            say("a\x00b", metadata={"deep": [1, {"x": 1e300}]}),
            {"role": "user", "content": [{"type": "text", "text": "hi"}], "name": "ada"},
            say("plain", metadata={}, idempotency_key="k"),
        ]
        repository.add_messages(session.id, given)
        read = repository.get_messages(session.id)
        assert [m.created_at for m in read] == [m.created_at for m in session.messages.in_order()]
        for found in (read, session.messages.in_order()):
            assert [m.as_dict() for m in found] == [
                {key: value for key, value in message.items() if key != "idempotency_key"}
                for message in given
            ]
            assert found[0].session == session
            assert found[0].created_at.tzinfo is not None

    @pytest.mark.postgres
    def test_have_their_times_whatever_way_the_server_writes_them(self, repository, session):
        added = repository.add_messages(session.id, [say("x")])
        for style in ("SQL, DMY", "German", "Postgres, MDY"):
            with transaction.atomic(), connection.cursor() as cursor:
                cursor.execute(f"SET LOCAL datestyle TO '{style}'")
                cursor.execute("SET LOCAL timezone TO 'Asia/Kathmandu'")
                (read,) = repository.get_messages(session.id)
            assert read.created_at == added[0].created_at

    def test_loaded_with_the_session(self, repository, session):
        added = repository.add_messages(session.id, [say(str(n)) for n in range(3)])
        loaded = repository.get_session_with_messages(session.id)
        with CaptureQueriesContext(connection) as queries:
            assert len(loaded.messages) == 3
            assert list(loaded.messages) == added
            assert loaded.messages[0] == added[0]
            assert loaded.messages[-1] == added[-1]
            assert loaded.messages[:2] == added[:2]
            assert added[1] in loaded.messages
            assert loaded.messages
            assert list(loaded.messages.all()) == added
            assert [m.session for m in loaded.messages] == [loaded] * 3
        assert len(queries) == 0
        assert loaded.messages.filter(sequence=2).get() == added[1]
        assert loaded.messages.count() == 3

    def test_a_session_without_messages_is_counted_without_a_query(self, repository, session):
        loaded = repository.get_session_with_messages(session.id)
        with CaptureQueriesContext(connection) as queries:
            assert len(loaded.messages) == 0
            assert not loaded.messages
        assert len(queries) == 0
        with pytest.raises(Session.DoesNotExist):
            repository.get_session_with_messages(uuid.uuid4())

    def test_the_collection_fetches_what_was_not_loaded(self, repository, session):
        repository.add_messages(session.id, [say("a"), say("b")])
        assert [m.content for m in repository.get(session.id).messages] == ["a", "b"]

    def test_message_objects_is_no_collection(self):
        assert Message.objects
        with pytest.raises(TypeError):
            len(Message.objects)


class TestStats:
    def test_statistics_count_one_users_sessions_and_messages(
        self, repository, make_session, user, other_user
    ):
        first, second = make_session(), make_session()
        repository.add_messages(first.id, [say()] * 3)
        age(make_session(), hours=1)
        make_session(status="completed")
        repository.add_message_to_session(make_session(user=other_user).id, say())
        stats = repository.get_session_stats(user.pk)
        assert (stats.total_sessions, stats.active_sessions, stats.total_messages) == (4, 2, 3)
        assert stats.avg_messages_per_session == 0.75
        assert stats.sessions_by_status == {
            "active": 3,
            "paused": 0,
            "completed": 1,
            "failed": 0,
            "archived": 0,
        }
        assert second.message_count == 0

    def test_statistics_without_sessions_are_zero(self, repository, user):
        stats = repository.get_session_stats(user.pk)
        assert (stats.total_sessions, stats.total_messages) == (0, 0)
        assert stats.avg_messages_per_session == 0.0
        assert stats.active_sessions == 0


def test_at_most_two_queries(repository, session, user):
    repository.add_messages(session.id, [say()] * 3)
    reads = [
        lambda: repository.get(session.id),
        lambda: repository.get_user_sessions(user.pk),
        lambda: repository.get_session_with_messages(session.id),
        lambda: repository.get_messages(session.id, after=1),
        lambda: repository.get_messages(session.id, after=5),
        lambda: repository.get_session_stats(user.pk),
        lambda: repository.get_paginated_user_sessions(user.pk, 1, 10),
        lambda: repository.search_sessions(user.pk, "hello debug"),
        lambda: list(
            Session.objects.for_user(user)
            .newest_activity_first()
            .beyond("-activity", timezone.now(), session.id)[:50]
        ),
    ]
    keyed = say(idempotency_key="k")
    writes = [
        lambda: repository.add_message_to_session(session.id, say(), user_id=user.pk),
        lambda: repository.add_messages(session.id, [keyed, say()]),
        lambda: repository.add_message_to_session(session.id, keyed),
        lambda: repository.update_session_context(session.id, {"a": 1}),
        lambda: repository.bulk_update_session_status([session.id], "paused"),
        lambda: repository.cleanup_expired_sessions(),
    ]
    for operation in reads + (writes if connection.vendor == "postgresql" else []):
        with CaptureQueriesContext(connection) as queries:
            operation()
        sent = [q["sql"] for q in queries if "SAVEPOINT" not in q["sql"]]
        assert len(sent) <= 2, sent
