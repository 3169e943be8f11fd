"""Rows that bulk_create() updates have their new texts, in all columns, encrypted or not."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import connection

from agent_sessions.models import Message, Session
from agent_sessions.postgresql.partitioning import is_partitioned
from agent_sessions.repository import SyncSessionRepository
from tests.agent_sessions.data import say
from tests.agent_sessions.test_encryption import KEYS


@pytest.fixture(params=["plain", "encrypted"])
def cipher(request: pytest.FixtureRequest, settings: Any) -> str:
    if request.param == "encrypted":
        settings.AGENT_SESSIONS_CIPHER_KEYS = KEYS
        settings.AGENT_SESSIONS_CIPHER = "agent_sessions.ciphers.AESGCMCipher"
    return str(request.param)


@pytest.fixture
def stored(cipher: str, user: Any, repository: SyncSessionRepository) -> Session:
    fields: dict[str, Any] = {"title": "Old", "context": {"old": 1}, "metadata": {"kept": 1}}
    message = say([{"type": "text", "text": "old"}], metadata={"f": 1e300})
    return repository.create(Session(user=user, agent_id="a", **fields), [message])


def test_a_session_has_its_new_texts(stored: Session) -> None:
    new = Session(id=stored.pk, user_id=stored.user_id, agent_id="b", title="New", context={"n": 1})
    Session.objects.bulk_create(
        [new], update_conflicts=True, update_fields=["title", "context"], unique_fields=["pk"]
    )
    found = SyncSessionRepository().get(stored.pk)
    assert (found.title, found.context, found.metadata) == ("New", {"n": 1}, {"kept": 1})
    assert found.agent_id == "a"


def test_a_message_has_its_new_texts(stored: Session) -> None:
    new = Message(session=stored, user_id=stored.user_id, sequence=1, role="tool", content="new")
    Message.objects.bulk_create(
        [new],
        update_conflicts=True,
        update_fields=["content", "metadata", "role"],
        unique_fields=["session", "sequence"],
    )
    assert Message.objects.get().as_dict() == {"role": "tool", "content": "new"}


@pytest.mark.parametrize("names", [["content"], ["metadata"], ["payload"]])
def test_a_part_of_a_message_is_refused(stored: Session, names: list[str]) -> None:
    new = Message(session=stored, user_id=stored.user_id, sequence=1, role="user", content="new")
    with pytest.raises(ValueError, match="stored together"):
        Message.objects.bulk_create(
            [new],
            update_conflicts=True,
            update_fields=names,
            unique_fields=["session_id", "sequence"],
        )
    assert Message.objects.get().content == [{"type": "text", "text": "old"}]


def test_what_a_text_is_bound_to_is_not_changed_without_it(stored: Session, cipher: str) -> None:
    new = Message(session=stored, user_id=stored.user_id, sequence=1, role="tool", content="new")

    def update(*names: str) -> None:
        Message.objects.bulk_create(
            [new],
            update_conflicts=True,
            update_fields=names,
            unique_fields=["session", "sequence"],
        )

    if cipher == "plain":
        update("role")
        assert Message.objects.get().role == "tool"
        return
    for names in (("role",), ("content", "metadata")):
        with pytest.raises(ValueError, match="stored together"):
            update(*names)
    other = Session(user_id=stored.user_id, agent_id="a", title="New", idempotency_key="k")
    with pytest.raises(ValueError, match="bound to the id"):
        Session.objects.bulk_create(
            [other],
            update_conflicts=True,
            update_fields=["title"],
            unique_fields=["user", "tenant", "idempotency_key"],
        )
    assert SyncSessionRepository().get(stored.pk).title == "Old"


def _write_again(message: Message, *names: str) -> None:
    Message.objects.bulk_create(
        [message], update_conflicts=True, update_fields=names, unique_fields=["id"]
    )


@pytest.mark.parametrize("name", ["session", "sequence"])
def test_a_conflict_moves_no_message(
    user: Any, repository: SyncSessionRepository, name: str
) -> None:
    here, there = (repository.create(Session(user=user, agent_id="a")) for _ in range(2))
    message = repository.add_message_to_session(here.pk, say("one"))
    if name == "session":
        message.session_id = there.pk
    else:
        message.sequence = 9
    with pytest.raises(ValueError, match=f"keeps its {name}"):
        _write_again(message, name)
    assert [m.sequence for m in repository.get_messages(here.pk)] == [1]
    assert repository.get_messages(there.pk) == []


def test_a_conflict_is_heard_of_where_the_number_is_not_given(
    user: Any, repository: SyncSessionRepository
) -> None:
    if is_partitioned(connection):
        pytest.skip("Messages in partitions are not unique by id alone.")
    session = repository.create(Session(user=user, agent_id="a"))
    pk = repository.add_message_to_session(session.pk, say("one")).pk
    message = Message(pk=pk, session=session, user_id=user.pk, role="assistant")
    _write_again(message, "role")
    (change,) = repository.get_changes(session.pk, after=1)
    assert (change.number, change.sequence, change.message and change.message.role) == (
        2,
        1,
        "assistant",
    )


def test_thousands_of_conflicts_are_not_compared_with_each_other(
    user: Any, repository: SyncSessionRepository, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = repository.create(Session(user=user, agent_id="a"))
    repository.add_messages(session.pk, [say("one")] * 200)
    messages = [*session.messages.all()]
    compared: list[object] = []

    def equal(self: Message, other: object) -> bool:
        compared.append(other)
        return self is other

    monkeypatch.setattr(Message, "__eq__", equal)
    Message.objects.bulk_create(
        messages,
        update_conflicts=True,
        update_fields=["created_at"],
        unique_fields=["session", "sequence"],
    )
    assert len(compared) < 1000
