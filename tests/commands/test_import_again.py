"""Conversations that are imported again: later, longer, changed, and into a tenant."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from agent_sessions.models import Session
from agent_sessions.repository import SyncSessionRepository
from tests.commands.test_import_export import exported, run
from tests.commands.test_import_formats import chatgpt, failed, imported, written

pytestmark = pytest.mark.django_db


@pytest.fixture
def user(django_user_model: Any) -> Any:
    return django_user_model.objects.create_user("alice")


def claude(*texts: str, leaf: bool = False) -> dict[str, Any]:
    """Return a conversation, with a branch that is left out before the last message."""
    messages: list[dict[str, Any]] = [
        {
            "uuid": f"m{place}",
            "sender": "human" if place % 2 == 0 else "assistant",
            "text": text,
            "created_at": f"2024-01-02T03:04:{place:02}Z",
            "parent_message_uuid": f"m{place - 1}" if place else None,
        }
        for place, text in enumerate(texts)
    ]
    record = {
        "uuid": "c1",
        "name": "Again",
        "created_at": "2024-01-02T03:04:00Z",
        "updated_at": "2024-01-02T03:05:00Z",
        "chat_messages": messages,
    }
    return {**record, "current_leaf_message_uuid": messages[-1]["uuid"]} if leaf else record


def contents() -> list[Any]:
    (session,) = Session.objects.all()
    messages = SyncSessionRepository().get_messages(session.pk, limit=None)
    assert [message.sequence for message in messages] == [*range(1, len(messages) + 1)]
    assert (session.message_count, session.last_sequence) == (len(messages), len(messages))
    return [message.content for message in messages]


def test_a_conversation_that_has_grown_gets_what_is_new_if_asked_for(
    user: Any, tmp_path: Path
) -> None:
    imported(written(tmp_path, [claude("a", "b")]))
    grown = written(tmp_path, [claude("a", "b", "c", "d")])
    status, errors, _summary = failed(grown)
    assert status == 1
    assert "with 2 of 4 messages. --update appends the others" in errors
    assert contents() == ["a", "b"]
    assert imported(grown, "--update") == (
        "0 sessions with 0 messages imported, 0 already there, 0 rejected.\n"
        "1 sessions that were there got 2 messages more.\n"
    )
    assert contents() == ["a", "b", "c", "d"]
    session = Session.objects.get()
    assert session.last_message_at == datetime(2024, 1, 2, 3, 4, 3, tzinfo=UTC)
    assert session.expires_at is None
    for options in ((), ("--update",)):
        assert "1 already there" in imported(grown, *options)
    assert contents() == ["a", "b", "c", "d"]


def test_a_grown_line_of_an_export_is_appended_too(user: Any, tmp_path: Path) -> None:
    session = SyncSessionRepository().create(
        Session(user=user, agent_id="a"), [{"role": "user", "content": "one"}]
    )
    (before,) = exported(user)
    SyncSessionRepository().add_message_to_session(session, {"role": "user", "content": "two"})
    (after,) = exported(user)
    session.delete()
    file = tmp_path / "lines.jsonl"
    for line in (before, after):
        file.write_text(json.dumps(line))
        imported(file, "--update")
    assert contents() == ["one", "two"]
    (again,) = exported(user)
    # It does not expire later because it was imported.
    assert again == {**after, "expires_at": before["expires_at"]}


def test_numbers_of_deleted_messages_are_not_used_again_after_an_update(
    user: Any, tmp_path: Path
) -> None:
    repository = SyncSessionRepository()
    session = repository.create(Session(user=user, agent_id="a"))
    one = {"role": "user", "content": "one"}
    repository.add_message_to_session(session.pk, one)
    before, after = tmp_path / "before.jsonl", tmp_path / "after.jsonl"
    call_command("export_conversations", output=str(before))
    repository.add_message_to_session(session.pk, one)
    repository.pop_message(session.pk)
    call_command("export_conversations", output=str(after))
    repository.delete(session.pk)
    imported(before)
    assert "1 already there" in imported(after, "--update")
    # Who followed the session where it came from has seen the number 3.
    assert repository.add_message_to_session(session.pk, one).sequence == 4


@pytest.mark.parametrize("texts", [("a", "x", "c"), ("x", "b", "c")])
def test_a_conversation_with_other_messages_is_rejected(
    user: Any, tmp_path: Path, texts: tuple[str, ...]
) -> None:
    imported(written(tmp_path, [claude("a", "b")]))
    _status, errors, _summary = failed(written(tmp_path, [claude(*texts)]), "--update")
    assert "has other messages than these" in errors
    assert contents() == ["a", "b"]


def test_an_archived_session_and_one_with_new_messages_of_its_own_get_nothing(
    user: Any, tmp_path: Path
) -> None:
    imported(written(tmp_path, [claude("a", "b")]))
    repository = SyncSessionRepository()
    session = Session.objects.get()
    repository.add_message_to_session(session, {"role": "user", "content": "mine"})
    grown = written(tmp_path, [claude("a", "b", "c", "d")])
    assert "has other messages" in failed(grown, "--update")[1]
    repository.update_session(session.pk, {"status": "archived"})
    assert "is archived" in failed(grown, "--update")[1]
    assert contents() == ["a", "b", "mine"]


def test_a_conversation_is_known_by_its_id_whatever_else_has_changed(
    user: Any, tmp_path: Path
) -> None:
    records = chatgpt()
    imported(written(tmp_path, records))
    for record in records:
        record["create_time"] = (record["create_time"] or 0) + 1
        record["title"] = "Another"
    records.reverse()
    assert "2 already there" in imported(written(tmp_path, records, "other.json"))
    assert Session.objects.count() == 2


def test_sessions_are_imported_into_a_tenant(user: Any, tmp_path: Path) -> None:
    file = written(tmp_path, [claude("a", "b")])
    for tenant in ("acme", "", "other"):
        for summary in ("1 sessions with 2 messages imported", "1 already there"):
            assert summary in imported(file, "--tenant", tenant)
    assert {session.tenant for session in Session.objects.all()} == {"acme", "", "other"}
    lines = tmp_path / "lines.jsonl"
    lines.write_text(json.dumps(exported(user)[0]))
    assert "Another user or tenant" in failed(lines, "--tenant", "third")[1]
    assert "imported" in imported(lines, "--tenant", "third", "--new-ids")
    stdout, _stderr = run("import_conversations", file, "--user", "alice", "--tenant", "acme")
    assert "1 already there" in stdout
    with pytest.raises(CommandError, match="--tenant: ") as raised:
        call_command("import_conversations", str(file), user="alice", tenant="x" * 256)
    assert raised.value.returncode == 2


def test_an_error_names_the_place_in_the_file_not_in_the_branch(user: Any, tmp_path: Path) -> None:
    record = claude("a", "b", "c", leaf=True)
    other = {**record["chat_messages"][1], "uuid": "other", "text": "left out"}
    record["chat_messages"].insert(1, other)
    record["chat_messages"][3]["created_at"] = "yesterday"
    _status, errors, _summary = failed(written(tmp_path, [record]))
    assert "chat_messages[3].created_at" in errors
