from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from django.core.exceptions import ValidationError
from django.core.management import CommandError
from django.utils import timezone

from agent_sessions.models import Message, Session, SessionStatus
from agent_sessions.repository import History, SyncSessionRepository
from tests.commands.test_import_export import HELLO, exported, run, write

pytestmark = pytest.mark.django_db

ID = "0178c2f2-4a00-7000-8000-000000000001"
OLD: dict[str, Any] = {
    "messages": [
        {"role": "user", "content": "Guten Tag", "created_at": "a key of the message's own"},
        {"role": "assistant", "content": "Hello"},
    ],
    "id": ID,
    "agent_id": "tutor",
    "status": "completed",
    "created_at": "2021-03-04T05:06:07.000008Z",
    "updated_at": "2021-03-06T00:00:00.000000Z",
    "last_message_at": "2021-03-05T00:00:00.000002Z",
    "last_activity_at": "2021-03-05T00:00:00.000003Z",
    "expires_at": "2021-03-05T12:00:00.000000Z",
    "message_times": ["2021-03-04T05:06:07.000009Z", "2021-03-05T00:00:00.000002Z"],
    "message_numbers": [3, 7],
    "last_sequence": 9,
}


@pytest.fixture
def user(django_user_model: Any) -> Any:
    return django_user_model.objects.create_user("alice")


def imported(tmp_path: Path, *lines: Any, user: str = "alice", options: Any = ()) -> str:
    file = write(tmp_path / "chats.jsonl", list(lines))
    return run("import_conversations", file, "--user", user, *options)[0]


def rejected(tmp_path: Path, *lines: Any, user: str = "alice") -> str:
    rejects = tmp_path / "rejects.jsonl"
    with pytest.raises(CommandError, match="rejected"):
        imported(tmp_path, *lines, user=user, options=("--rejects", rejects))
    reports = [json.loads(line) for line in rejects.read_text().splitlines()]
    return "\n".join(f"{report['line']}: {report['reason']}" for report in reports)


def test_a_conversation_of_2021_is_one_of_2021(user: Any, tmp_path: Path) -> None:
    imported(tmp_path, OLD)
    assert exported(user) == [OLD]
    session = Session.objects.get()
    assert session.pk == UUID(ID)
    assert session.created_at == datetime(2021, 3, 4, 5, 6, 7, 8, tzinfo=UTC)
    assert session.updated_at == datetime(2021, 3, 6, tzinfo=UTC)
    assert [message.sequence for message in session.messages.all()] == [3, 7]
    assert session.message_count == 2
    assert SyncSessionRepository().add_message_to_session(ID, HELLO["messages"][0]).sequence == 10


def test_what_was_deleted_leaves_its_numbers_to_nobody_else(user: Any, tmp_path: Path) -> None:
    repository = SyncSessionRepository()
    session = repository.create(Session(user=user, agent_id="a"))
    repository.add_messages(session.pk, HELLO["messages"] * 6)
    session.messages.filter(sequence__in=(2, 6)).delete()
    before = exported(user)
    assert before[0]["message_numbers"] == [1, 3, 4, 5]
    repository.delete(session.pk)
    imported(tmp_path, *before)
    assert exported(user) == before
    # Two deletions have the numbers 7 and 8.
    assert repository.add_message_to_session(session.pk, HELLO["messages"][0]).sequence == 9


def test_with_dates_and_without_expiry_it_never_expires(user: Any, tmp_path: Path) -> None:
    imported(tmp_path, {**HELLO, "created_at": "2021-03-04T05:06:07+02:00"})
    session = Session.objects.get()
    assert session.expires_at is None
    moment = datetime(2021, 3, 4, 3, 6, 7, tzinfo=UTC)
    assert session.created_at == session.updated_at == session.last_activity_at == moment
    assert session.last_message_at == session.messages.get().created_at == moment
    assert SyncSessionRepository().cleanup_expired_sessions() == 0
    assert session.pk.version == 7
    assert session.pk.int >> 80 == int(moment.timestamp() * 1000)


def test_without_dates_it_is_a_conversation_of_now(user: Any, tmp_path: Path) -> None:
    before = timezone.now()
    imported(tmp_path, HELLO)
    session = Session.objects.get()
    assert session.created_at >= before
    assert session.expires_at is not None
    assert session.expires_at > before


def test_cleanup_completes_what_had_expired_and_it_is_kept_from_then_on(
    user: Any, tmp_path: Path
) -> None:
    imported(tmp_path, {**OLD, "status": "active"})
    session = Session.objects.get()
    assert session.status == SessionStatus.ACTIVE
    assert session.is_expired
    before = timezone.now()
    repository = SyncSessionRepository()
    assert repository.cleanup_expired_sessions() == 1
    session.refresh_from_db()
    assert session.status == SessionStatus.COMPLETED
    assert session.updated_at >= before
    assert repository.purge_old_sessions(days=1) == 0


def test_unknown_times_of_messages_follow_the_message_before(user: Any, tmp_path: Path) -> None:
    times = [None, "2021-03-04T00:00:01Z", None, "2021-03-04T00:00:03Z"]
    imported(tmp_path, {"messages": HELLO["messages"] * 4, "message_times": times})
    seconds = [message.created_at.second for message in Message.objects.order_by("sequence")]
    assert seconds == [1, 1, 1, 3]


TOMORROW = (timezone.now() + timedelta(days=1)).isoformat()
BAD = [
    ({"created_at": TOMORROW}, "created_at: ", "is in the future"),
    ({"updated_at": "2021-03-04T05:06:07"}, "updated_at: '2021-03-04T05:06:07' has no time zone"),
    ({"last_message_at": "2021-13-04T05:06:07Z"}, "last_message_at: '2021-13", "not a date"),
    ({"last_activity_at": 1614834367}, "last_activity_at: 1614834367 is not a date"),
    ({"expires_at": "tomorrow"}, "expires_at: 'tomorrow' is not a date"),
    ({"created_at": "0001-01-01T00:00:00+12:00"}, "created_at: ", "outside the years"),
    ({"message_times": [TOMORROW]}, "message_times[0]: ", "is in the future"),
    ({"message_times": ["2021-03-04T05:06:07Z"] * 2}, "message_times: There are 2 for 1"),
    ({"message_times": {}}, "message_times: This is not a list"),
    ({"message_numbers": [-1]}, "message_numbers: The numbers must be 0 to"),
    ({"message_numbers": [2**31 - 1]}, "message_numbers: The numbers must be 0 to"),
    ({"last_sequence": 2**31 - 1}, "last_sequence: It must be 0 to"),
    ({"message_numbers": ["1"]}, "message_numbers[0]: '1' is not a whole number"),
    ({"last_sequence": True}, "last_sequence: True is not a whole number"),
    ({"last_sequence": -5}, "last_sequence: It must be 0 to"),
]


def test_bad_times_and_numbers_are_named_by_line(user: Any, tmp_path: Path) -> None:
    reasons = rejected(tmp_path, *({**HELLO, **fields} for fields, *_reasons in BAD)).splitlines()
    assert len(reasons) == len(BAD)
    for number, (reason, (_fields, *expected)) in enumerate(zip(reasons, BAD, strict=True), 1):
        assert reason.startswith(f"{number}: {expected[0]}")
        assert expected[-1] in reason
    assert not Session.objects.exists()
    two = {"messages": HELLO["messages"] * 2}
    for numbers, reason in (([2, 2], "ascend"), ([-1, 1], "be 0 to"), ([1, 2**31 - 1], "be 0 to")):
        problem = rejected(tmp_path, {**two, "message_numbers": numbers})
        assert f"message_numbers: The numbers must {reason}" in problem


@pytest.mark.parametrize(
    ("zone", "name", "moment"),
    [
        ("America/New_York", "created_at", "0001-01-01T00:00:00Z"),
        ("Asia/Tokyo", "expires_at", "9999-12-31T23:59:59Z"),
    ],
)
def test_a_time_that_no_page_could_show_is_refused(
    user: Any, tmp_path: Path, settings: Any, zone: str, name: str, moment: str
) -> None:
    settings.TIME_ZONE = zone
    assert f"{name}: This is outside the years" in rejected(tmp_path, {**HELLO, name: moment})
    session = Session(user=user, agent_id="a", expires_at=datetime(9999, 12, 31, 23, tzinfo=UTC))
    if zone == "Asia/Tokyo":
        with pytest.raises(ValidationError, match="outside the years"):
            SyncSessionRepository().create(session)


def test_the_same_ids_twice_are_there_already(user: Any, tmp_path: Path) -> None:
    imported(tmp_path, OLD, options=("--source", "one"))
    done = imported(tmp_path, OLD, OLD, options=("--source", "two"))
    assert done == "0 sessions with 0 messages imported, 2 already there, 0 rejected.\n"
    assert exported(user) == [OLD]


def test_a_session_that_went_on_is_there_already(user: Any, tmp_path: Path) -> None:
    imported(tmp_path, OLD)
    SyncSessionRepository().add_message_to_session(ID, HELLO["messages"][0])
    assert "1 already there" in imported(tmp_path, OLD)
    assert Message.objects.count() == 3


def test_a_session_with_fewer_messages_is_not_taken_for_the_same(user: Any, tmp_path: Path) -> None:
    short = {**HELLO, "id": ID}
    imported(tmp_path, short)
    longer = {**short, "messages": HELLO["messages"] * 3}
    assert "1 of 3 messages" in rejected(tmp_path, longer)
    other = "0178c2f2-4a00-7000-8000-000000000002"
    assert "2: id:" in rejected(tmp_path, {**short, "id": other}, {**longer, "id": other})
    assert Message.objects.count() == 2


def test_another_users_session_is_neither_changed_nor_shown(
    user: Any, django_user_model: Any, tmp_path: Path
) -> None:
    imported(tmp_path, OLD)
    bob = django_user_model.objects.create_user("bob")
    reason = rejected(tmp_path, {**OLD, "title": "mine"}, HELLO, user="bob")
    assert reason == "1: id: Another user or tenant has a session with this id."
    assert exported(user) == [OLD]
    assert Session.objects.for_user(bob).count() == 1


def test_a_session_of_another_tenant_is_another_one(user: Any, tmp_path: Path) -> None:
    SyncSessionRepository().create(Session(id=ID, user=user, tenant="acme", agent_id="a"))
    assert "Another user or tenant" in rejected(tmp_path, OLD)


def test_new_ids_are_the_same_ones_each_time(
    user: Any, django_user_model: Any, tmp_path: Path
) -> None:
    imported(tmp_path, OLD)
    bob = django_user_model.objects.create_user("bob")
    assert imported(tmp_path, OLD, user="bob", options=["--new-ids"]).startswith("1 sessions")
    again = imported(tmp_path, OLD, user="bob", options=["--new-ids", "--source", "again"])
    assert "1 already there" in again
    (copy,) = exported(bob)
    assert copy["id"] != ID
    assert {**copy, "id": ID} == OLD


def test_an_id_that_is_no_uuid_is_an_unknown_key(user: Any, tmp_path: Path) -> None:
    imported(tmp_path, {**HELLO, "id": "row-1"}, {**HELLO, "id": 2})
    extras = [session.metadata["import_extra"] for session in Session.objects.order_by("id")]
    assert extras == [{"id": "row-1"}, {"id": 2}]
    before = exported(user)
    SyncSessionRepository().delete_user_data(user.pk)
    imported(tmp_path, *before)
    assert exported(user) == before


def test_many_messages_keep_their_times(user: Any, tmp_path: Path) -> None:
    start = datetime(2021, 1, 1, tzinfo=UTC)
    times = [start + timedelta(seconds=number, microseconds=1) for number in range(2_500)]
    SyncSessionRepository().create(
        Session(user=user, agent_id="a", created_at=start),
        HELLO["messages"] * 2_500,
        History(times),
    )
    (line,) = exported(user)
    assert [datetime.fromisoformat(moment) for moment in line["message_times"]] == times


@pytest.mark.parametrize(
    ("history", "field"),
    [
        (History([]), "message_times"),
        (History([timezone.now()] * 2), "message_times"),
        (History([timezone.now()], [1, 2]), "message_numbers"),
        (History([timezone.now()], []), "message_numbers"),
    ],
)
def test_a_history_has_a_time_and_a_number_for_each_message(
    user: Any, history: History, field: str
) -> None:
    with pytest.raises(ValidationError) as refused:
        SyncSessionRepository().create(Session(user=user, agent_id="a"), HELLO["messages"], history)
    assert refused.value.message_dict.keys() == {field}
    assert not Session.objects.exists()


def test_local_times_come_back_where_time_zones_are_off(
    user: Any, tmp_path: Path, settings: Any
) -> None:
    settings.USE_TZ = False
    settings.TIME_ZONE = "Europe/Berlin"
    imported(tmp_path, OLD)
    assert Session.objects.get().created_at == datetime(2021, 3, 4, 6, 6, 7, 8)  # noqa: DTZ001
    assert exported(user) == [OLD]
