"""A cipher is taken away again: rows become plain while the site runs."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import pytest
from django.core.management import call_command

from agent_sessions.exceptions import SearchDisabled
from agent_sessions.models import Message, Session
from agent_sessions.repository import SyncSessionRepository
from agent_sessions.repository.remains import find_remains
from tests.agent_sessions.data import say
from tests.agent_sessions.test_encryption import KEYS, MESSAGES, SECRET, check_equal
from tests.agent_sessions.test_encryption_moves import WAYS


@pytest.fixture
def filled(user: Any, repository: SyncSessionRepository, settings: Any) -> Session:
    """A session that was encrypted, in a project that does not encrypt any more."""
    settings.AGENT_SESSIONS_CIPHER_KEYS = KEYS
    settings.AGENT_SESSIONS_CIPHER = "agent_sessions.ciphers.AESGCMCipher"
    fields: dict[str, Any] = {
        "title": SECRET,
        "context": {"a": [SECRET]},
        "metadata": {SECRET: 1},
    }
    session = repository.create(
        Session(user=user, agent_id="a", idempotency_key="k", **fields), MESSAGES * 3
    )
    settings.AGENT_SESSIONS_ENCRYPT = False
    return session


def sealed() -> int:
    """Return how many rows are still encrypted."""
    rows = Session.objects.exclude(sealed_title=None).count()
    return rows + Message.objects.filter(payload__startswith="enc:").count()


def run() -> str:
    stdout = io.StringIO()
    call_command("reencrypt_conversations", stdout=stdout)
    return stdout.getvalue()


def test_rows_become_plain_and_the_cipher_is_not_needed_any_more(
    filled: Session, user: Any, settings: Any
) -> None:
    check_equal(filled)
    assert find_remains(user.pk, [SECRET], "default")[0].what == "user"
    assert run() == f"1 sessions and {3 * len(MESSAGES)} messages written again.\n"
    assert sealed() == 0
    check_equal(filled)
    assert run() == "0 sessions and 0 messages written again.\n"
    settings.AGENT_SESSIONS_CIPHER = None
    check_equal(filled)
    found = SyncSessionRepository().search_sessions(user, SECRET)
    assert [session.pk for session in found] == [filled.pk]


def test_what_is_written_meanwhile_is_plain(
    filled: Session, user: Any, repository: SyncSessionRepository
) -> None:
    new = repository.create(Session(user=user, agent_id="a", title="New"), [say("hello")])
    repository.add_message_to_session(new.pk, say("again", metadata={"a": 1}))
    assert Session.objects.values_list("title", "sealed_title").get(pk=new.pk) == ("New", None)
    assert not Message.objects.filter(session=new, payload__startswith="enc:").exists()
    with pytest.raises(SearchDisabled):
        repository.search_sessions(user, "hello")
    assert sealed() == 1 + 3 * len(MESSAGES)


def test_an_interrupted_decryption_goes_on(
    filled: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent_sessions.repository.reencryption._LOOKED_AT", 5)

    def stop(rows: int) -> None:
        if rows == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        SyncSessionRepository().reencrypt(stop)
    assert SyncSessionRepository().reencrypt() == (0, 3 * len(MESSAGES) - 5)
    check_equal(filled)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("loaded", [None, "id", "role", "content", "payload"])
@pytest.mark.parametrize("changes", [{"role": "assistant"}, {"content": "changed"}])
def test_a_change_of_an_encrypted_message_is_read_as_it_was_made(
    filled: Session, way: Callable[..., None], loaded: str | None, changes: dict[str, str]
) -> None:
    messages = Message.objects.in_order()
    before = messages[1].as_dict()
    message = (messages if loaded is None else messages.only(loaded))[1]
    way(message, **changes)
    assert Message.objects.get(pk=message.pk).as_dict() == {**before, **changes}


def test_a_new_title_replaces_the_encrypted_one(
    filled: Session, repository: SyncSessionRepository, settings: Any
) -> None:
    Session.objects.update(title="First")
    assert repository.get(filled.pk).title == "First"
    repository.update_session(filled.pk, {"title": "Second"})
    repository.update_session_context(filled.pk, {"b": 1})
    stored = repository.get(filled.pk)
    assert (stored.title, stored.context) == ("Second", {"a": [SECRET], "b": 1})
    assert Session.objects.values_list("title", "sealed_title").get() == ("Second", None)


def test_a_new_title_is_read_where_the_cipher_is_gone(filled: Session, settings: Any) -> None:
    settings.AGENT_SESSIONS_CIPHER = None
    Session.objects.update(title="First")
    assert Session.objects.only("title").get().title == "First"
