"""Messages that change what they are bound to are encrypted for it again, however they change."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.core import serializers
from django.core.management import CommandError, call_command
from django.db import connection
from django.db.models import F, Value

from agent_sessions.exceptions import DecryptionFailed
from agent_sessions.models import Message, Session
from agent_sessions.repository import SyncSessionRepository
from tests.agent_sessions.data import say
from tests.agent_sessions.test_encryption import KEYS, NEW

GIVEN = say("dog", metadata={"a": 1})


@pytest.fixture(autouse=True)
def cipher(settings: Any) -> None:
    settings.AGENT_SESSIONS_CIPHER_KEYS = KEYS
    settings.AGENT_SESSIONS_CIPHER = "agent_sessions.ciphers.AESGCMCipher"


@pytest.fixture
def message(user: Any, repository: SyncSessionRepository) -> Message:
    session = repository.create(Session(user=user, agent_id="a"), [GIVEN])
    return Message.objects.get(session=session)


@pytest.fixture
def other(user: Any, repository: SyncSessionRepository) -> Session:
    return repository.create(Session(user=user, agent_id="b"), [say("cat")])


def save(message: Message, **changes: object) -> None:
    for name, value in changes.items():
        setattr(message, name, value)
    message.save()


def save_fields(message: Message, **changes: object) -> None:
    for name, value in changes.items():
        setattr(message, name, value)
    message.save(update_fields=[*changes])


def update(message: Message, **changes: object) -> None:
    Message.objects.filter(pk=message.pk).update(**changes)


def bulk_update(message: Message, **changes: object) -> None:
    for name, value in changes.items():
        setattr(message, name, value)
    Message.objects.bulk_update([message], [*changes])


WAYS = [save, save_fields, update, bulk_update]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("by_key", [False, True])
def test_a_message_stays_in_its_session(
    message: Message, other: Session, way: Callable[..., None], by_key: bool
) -> None:
    first = message.session_id
    with pytest.raises(ValueError, match="keeps its se"):
        way(message, sequence=2, **{"session_id": other.pk} if by_key else {"session": other})
    stored = Message.objects.get(pk=message.pk)
    assert (stored.session_id, stored.sequence, stored.as_dict()) == (first, 1, GIVEN)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("loaded", ["id", "role", "content", "payload"])
def test_a_message_that_was_loaded_in_part_changes_its_role(
    message: Message, way: Callable[..., None], loaded: str
) -> None:
    way(Message.objects.only(loaded).get(pk=message.pk), role="assistant")
    stored = Message.objects.get(pk=message.pk)
    assert stored.as_dict() == {**GIVEN, "role": "assistant"}


def test_a_new_role_stays_while_the_content_is_loaded(message: Message) -> None:
    changed = Message.objects.only("id").get(pk=message.pk)
    changed.role = "assistant"
    assert (changed.content, changed.role) == ("dog", "assistant")
    changed.refresh_from_db()
    assert changed.role == "user"


def test_what_only_the_database_could_compute_is_refused(message: Message) -> None:
    for changes in ({"role": Value("tool")}, {"content": F("role")}):
        with pytest.raises(ValueError, match="is encrypted"):
            Message.objects.update(**changes)
    with pytest.raises(ValueError, match="title is encrypted"):
        Session.objects.update(title=F("agent_id"))
    assert Message.objects.get().as_dict() == GIVEN


@pytest.mark.parametrize("stored", ["enc:\N{LATIN SMALL LETTER E WITH ACUTE}", "enc:!", "enc:"])
def test_a_ruined_text_is_named_by_the_reencryption(message: Message, stored: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute("UPDATE agent_sessions_message SET payload = %s", [stored])
    with pytest.raises(DecryptionFailed, match=str(message.session_id)):
        SyncSessionRepository().reencrypt()


@pytest.mark.parametrize("format_name", ["json", "xml"])
def test_a_fixture_is_plain_and_is_loaded_without_the_cipher(
    user: Any, repository: SyncSessionRepository, settings: Any, format_name: str
) -> None:
    fields: dict[str, Any] = {"title": "Secret", "context": {"a": 1}}
    session = repository.create(Session(user=user, agent_id="a", **fields), [GIVEN])
    rows = [*Session.objects.all(), *Message.objects.all()]
    fixture = serializers.serialize(format_name, rows)
    assert "enc:" not in fixture
    repository.delete(session)
    settings.AGENT_SESSIONS_CIPHER = None
    for loaded in serializers.deserialize(format_name, fixture):
        loaded.save()
    stored = repository.get_session_with_messages(session.pk)
    assert (stored.title, stored.context) == ("Secret", {"a": 1})
    assert [message.as_dict() for message in stored.messages] == [GIVEN]


def test_one_ruined_row_keeps_no_other_from_being_encrypted(
    message: Message, other: Session, settings: Any
) -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE agent_sessions_message SET payload = 'enc:x' WHERE id = %s", [message.pk]
        )
        cursor.execute("""UPDATE agent_sessions_session SET metadata = '"enc:x"'""")
    Session.objects.filter(pk=other.pk).update(metadata={}, title="Plain")
    settings.AGENT_SESSIONS_CIPHER_KEYS = {"2026": NEW, **KEYS}
    with pytest.raises(CommandError, match=f"metadata {message.session_id} cannot be decrypted"):
        call_command("reencrypt_conversations")
    with pytest.raises(CommandError, match="cannot be decrypted"):
        call_command("export_conversations", user="ada")
    settings.AGENT_SESSIONS_CIPHER_KEYS = {"2026": NEW}
    stored = SyncSessionRepository().get_session_with_messages(other.pk)
    assert (stored.title, stored.messages[0].content) == ("Plain", "cat")
