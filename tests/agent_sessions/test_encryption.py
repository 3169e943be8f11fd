"""Texts are encrypted in the database, bound to their rows, and as before for who may read them."""

from __future__ import annotations

import base64
import io
import json
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import connection
from django.db.models import F
from django.test import Client

from agent_sessions import encryption
from agent_sessions.exceptions import DecryptionFailed, IdempotencyConflict, SearchDisabled
from agent_sessions.models import Message, Session
from agent_sessions.repository import SyncSessionRepository
from agent_sessions.repository.remains import find_remains
from agent_sessions.transfer import export_sessions
from tests.agent_sessions.data import say
from tests.agent_sessions.test_message_texts import NAMES, SHAPES
from tests.api.conftest import client_of, url

SECRET = "wörds-of-the-secret"
OLD, NEW = (base64.b64encode(bytes([number]) * 32).decode() for number in (1, 2))
KEYS = {"2025": OLD}
LIST = "/admin/agent_sessions/session/"

MESSAGES: list[dict[str, Any]] = [
    say(SECRET),
    say(SECRET, metadata={SECRET: SECRET}, name=SECRET),
    say(SECRET, metadata={}),
    say([{"type": "text", "text": SECRET + "\ud800\x00"}], metadata={"f": 1e300}),
    {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": SECRET}}]},
    {"role": "assistant", "refusal": SECRET},
    {"type": "function_call_output", "output": SECRET},
    say(""),
]


@pytest.fixture
def cipher(settings: Any) -> Any:
    settings.AGENT_SESSIONS_CIPHER_KEYS = KEYS
    settings.AGENT_SESSIONS_CIPHER = "agent_sessions.ciphers.AESGCMCipher"
    return settings


def off(settings: Any) -> None:
    settings.AGENT_SESSIONS_CIPHER = None


def on(settings: Any, keys: dict[str, str] = KEYS) -> None:
    settings.AGENT_SESSIONS_CIPHER_KEYS = keys
    settings.AGENT_SESSIONS_CIPHER = "agent_sessions.ciphers.AESGCMCipher"


@pytest.fixture
def filled(user: Any, repository: SyncSessionRepository) -> Session:
    fields = {"title": SECRET, "context": {"a": [SECRET]}, "metadata": {SECRET: 1}}
    session = repository.create(
        Session(user=user, agent_id="a", idempotency_key="k", **fields), MESSAGES
    )
    repository.add_messages(session.pk, MESSAGES)
    for message in MESSAGES:
        repository.add_message_to_session(session.pk, message)
    return session


def places(user: Any) -> list[str]:
    """Return the columns of all tables that have the secret as it is."""
    remains = find_remains(user.pk, [SECRET, "of-the-secret"], "default")
    return [f"{each.table}.{each.column}" for each in remains if each.what == "text"]


def dicts(session: Session) -> list[Any]:
    messages = SyncSessionRepository().get_messages(session.pk, limit=None)
    return [message.as_dict() for message in messages]


def check_equal(session: Session) -> None:
    """Check that all comes back equal, whichever way it is read."""
    stored = SyncSessionRepository().get_session_with_messages(session.pk)
    assert (stored.title, str(stored)) == (SECRET, SECRET)
    assert (stored.context, stored.metadata) == ({"a": [SECRET]}, {SECRET: 1})
    for messages in (
        stored.messages,
        Message.objects.in_order(),
        Message.objects.in_order().only("content", "metadata"),
        Message.objects.in_order().defer("content", "role"),
        Message.objects.in_order().defer("payload"),
    ):
        assert [message.as_dict() for message in messages] == MESSAGES * 3
    assert [message.text for message in stored.messages][: len(MESSAGES)] == [
        SECRET,
        SECRET,
        SECRET,
        SECRET + "\ud800\x00",
        SECRET,
        SECRET,
        SECRET,
        "",
    ]
    assert [each.title for each in Session.objects.only("title")] == [SECRET]
    assert Session.objects.defer("title").get().title == SECRET
    assert Session.objects.defer("sealed_title").get().title == SECRET
    line = json.loads(b"".join(export_sessions(Session.objects.all())))
    assert (line["title"], line["messages"]) == (SECRET, MESSAGES * 3)


def test_nothing_is_plain_in_any_table_and_all_comes_back_equal(
    cipher: Any, user: Any, filled: Session
) -> None:
    assert places(user) == []
    check_equal(filled)


def test_without_the_setting_rows_are_as_they_were(filled: Session, user: Any) -> None:
    assert len(places(user)) == 6
    assert not Session.objects.exclude(sealed_title=None).exists()
    check_equal(filled)


@pytest.mark.parametrize("shape", SHAPES, ids=NAMES)
def test_messages_of_providers_come_back_equal(
    cipher: Any, shape: dict[str, Any], session: Session, repository: SyncSessionRepository
) -> None:
    added = repository.add_message_to_session(session.pk, shape["message"])
    assert added.as_dict() == shape["message"]
    assert dicts(session) == [shape["message"]]
    assert Message.objects.values_list("content", flat=True).get() == ""


def test_rows_from_before_are_read_and_encrypted_in_steps(
    user: Any, filled: Session, settings: Any
) -> None:
    on(settings)
    check_equal(filled)
    before = Session.objects.get().updated_at
    assert "written again" in run()
    assert places(user) == []
    check_equal(filled)
    assert Session.objects.get().updated_at == before
    assert run() == "0 sessions and 0 messages written again.\n"


def run() -> str:
    stdout = io.StringIO()
    call_command("reencrypt_conversations", stdout=stdout)
    return stdout.getvalue()


def test_an_interrupted_reencryption_goes_on(
    user: Any, filled: Session, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    on(settings)
    monkeypatch.setattr("agent_sessions.repository.reencryption._LOOKED_AT", 5)

    def stop(rows: int) -> None:
        if rows == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        SyncSessionRepository().reencrypt(stop)
    check_equal(filled)
    written = SyncSessionRepository().reencrypt()
    assert (written.sessions, written.messages) == (0, 3 * len(MESSAGES) - 5)
    assert places(user) == []


def test_keys_are_rotated(cipher: Any, user: Any, filled: Session) -> None:
    on(cipher, {"2026": NEW, **KEYS})
    check_equal(filled)
    SyncSessionRepository().add_message_to_session(filled.pk, say("new"))
    assert SyncSessionRepository().reencrypt() == (1, 3 * len(MESSAGES))
    on(cipher, {"2026": NEW})
    assert dicts(filled) == [*MESSAGES * 3, say("new")]


def test_other_keys_and_none_are_named_errors(cipher: Any, filled: Session) -> None:
    repository = SyncSessionRepository()

    def attempts() -> None:
        for read in (
            lambda: repository.get(filled.pk),
            lambda: [message.content for message in repository.get_messages(filled.pk)],
            lambda: [message.content for message in Message.objects.all()],
            lambda: repository.update_session_context(filled.pk, {"b": 1}),
            lambda: repository.update_session(filled.pk, {"title": "x"}),
            lambda: [session.title for session in Session.objects.all()],
        ):
            with pytest.raises(DecryptionFailed):
                read()

    on(cipher, {"2025": NEW})
    attempts()
    on(cipher, {"2026": NEW})
    attempts()
    with pytest.raises(DecryptionFailed):
        repository.reencrypt()
    off(cipher)
    attempts()
    with pytest.raises(DecryptionFailed):
        repository.reencrypt()
    on(cipher)
    check_equal(filled)
    off(cipher)
    # What cannot be read can be erased.
    SyncSessionRepository().delete(filled.pk)
    assert not Message.objects.exists()


@pytest.mark.parametrize("what", ["flip", "session", "role", "field", "cut", "text"])
def test_a_changed_or_moved_text_is_refused(
    cipher: Any, filled: Session, user: Any, what: str
) -> None:
    first = Message.objects.in_order().first()
    assert first is not None
    rows = Message.objects.filter(pk=first.pk)
    payload = rows.values_list("payload", flat=True).get()
    assert payload is not None
    other = SyncSessionRepository().create(Session(user=user, agent_id="a", title="t"))
    if what == "session":
        with connection.cursor() as cursor:
            cursor.execute(
                "UPDATE agent_sessions_message SET session_id = %s WHERE id = %s",
                [other.pk if connection.vendor == "postgresql" else other.pk.hex, first.pk],
            )
    elif what == "role":
        with connection.cursor() as cursor:
            cursor.execute(
                "UPDATE agent_sessions_message SET role = 'system' WHERE id = %s", [first.pk]
            )
    elif what == "field":
        with connection.cursor() as cursor:
            cursor.execute("UPDATE agent_sessions_session SET context = metadata")
        with pytest.raises(DecryptionFailed):
            SyncSessionRepository().get(filled.pk)
        return
    else:
        changed = {
            "flip": payload[:-8] + ("A" if payload[-8] != "A" else "B") + payload[-7:],
            "cut": payload[:20],
            "text": "enc:no base64",
        }[what]
        rows.update(payload=changed)
    with pytest.raises(DecryptionFailed, match="message"):
        [message.content for message in Message.objects.all()]


def test_search_says_that_it_is_off(
    cipher: Any, filled: Session, user: Any, admin_client: Client
) -> None:
    with pytest.raises(SearchDisabled):
        SyncSessionRepository().search_sessions(user, "secret")
    for query in ("search/?q=secret", "?text=secret"):
        answer = client_of(user).get(f"/api/v1/sessions/{query}")
        assert (answer.status_code, answer.json()["code"]) == (409, "search_disabled")
    for address in (LIST, "/admin/agent_sessions/message/"):
        page = admin_client.get(f"{address}?q=secret").content.decode()
        assert page.count("Search is off because texts are encrypted.") == 1
    assert SECRET in admin_client.get(f"{LIST}?q={filled.pk}").content.decode()
    assert SECRET in admin_client.get(f"{LIST}?q=user:ada").content.decode()


def test_the_admin_shows_texts_to_who_may_read_them(
    cipher: Any, filled: Session, admin_client: Client
) -> None:
    message = Message.objects.in_order().first()
    assert message is not None
    for address in (
        LIST,
        f"{LIST}{filled.pk}/change/",
        "/admin/agent_sessions/message/",
        f"/admin/agent_sessions/message/{message.pk}/change/",
    ):
        page = admin_client.get(address).content.decode()
        assert SECRET in page, address
        assert encryption.NOTE not in page, address
    form = {
        "title": "changed",
        "agent_id": "a",
        "status": "active",
        "context": '{"b": 1}',
        "metadata": "{}",
        "expires_at_0": "",
        "expires_at_1": "",
    }
    assert admin_client.post(f"{LIST}{filled.pk}/change/", form).status_code == 302
    stored = SyncSessionRepository().get(filled.pk)
    assert (stored.title, stored.context, stored.metadata) == ("changed", {"b": 1}, {})
    assert "changed" not in str(list(Session.objects.values()))


def test_the_admin_shows_a_note_for_what_it_cannot_decrypt(
    cipher: Any, filled: Session, admin_client: Client
) -> None:
    message = Message.objects.in_order().first()
    assert message is not None
    stored = Session.objects.values_list("sealed_title").get()
    for keys in ({"2025": NEW}, {"2026": NEW}):
        on(cipher, keys)
        for address in (
            LIST,
            f"{LIST}{filled.pk}/change/",
            f"{LIST}{filled.pk}/delete/",
            f"{LIST}{filled.pk}/history/",
            "/admin/agent_sessions/message/",
            f"/admin/agent_sessions/message/{message.pk}/change/",
        ):
            answer = admin_client.get(address)
            assert answer.status_code == 200, address
            assert encryption.NOTE in answer.content.decode(), address
        form = {"title": "x", "agent_id": "a", "status": "active"}
        assert admin_client.post(f"{LIST}{filled.pk}/change/", form).status_code == 403
    assert Session.objects.values_list("sealed_title").get() == stored


def test_rest_answers_a_problem_without_a_traceback(
    cipher: Any, filled: Session, user: Any, caplog: pytest.LogCaptureFixture
) -> None:
    assert client_of(user).get(url(filled)).json()["title"] == SECRET
    on(cipher, {"2026": NEW})
    caplog.clear()
    for _ in range(2):
        answer = client_of(user).get(url(filled))
        assert answer.status_code == 500
        assert answer["Content-Type"] == "application/problem+json"
        assert answer.json()["code"] == "decryption_failed"
        assert "2025" not in answer.content.decode()
    assert len([record for record in caplog.records if "GET" in record.getMessage()]) == 2
    assert not any(record.exc_info for record in caplog.records)


def test_changes_are_encrypted_whichever_way_they_are_made(
    cipher: Any, filled: Session, user: Any, repository: SyncSessionRepository
) -> None:
    word = "plaintext-of-a-change"
    repository.update_session(filled.pk, {"title": word, "metadata": {"m": word}})
    repository.update_session_context(filled.pk, {"c": word})
    stored = repository.get(filled.pk)
    assert (stored.title, stored.metadata) == (word, {"m": word})
    assert stored.context == {"a": [SECRET], "c": word}
    Session.objects.filter(pk=filled.pk).update(
        title=word * 2, context={"u": word}, message_count=F("message_count") + 1
    )
    stored = repository.get(filled.pk)
    assert (stored.title, stored.context) == (word * 2, {"u": word})
    assert stored.message_count == 3 * len(MESSAGES) + 1
    stored.title = stored.context["b"] = word
    Session.objects.bulk_update([stored], ["title", "context"])
    assert repository.get(filled.pk).context == {"u": word, "b": word}
    first, second = Message.objects.in_order()[:2]
    first.content = [word]
    first.save()
    Message.objects.filter(pk=second.pk).update(metadata={"x": word}, role="system")
    second.refresh_from_db()
    assert (first.as_dict()["content"], second.metadata, second.role) == (
        [word],
        {"x": word},
        "system",
    )
    second.content = {"type": "text", "text": word}
    Message.objects.bulk_update([second], ["content"])
    assert Message.objects.get(pk=second.pk).as_dict()["content"] == second.content
    assert not find_remains(user.pk, [word], "default")[2:]


def test_keys_are_used_once_before_and_after_the_cipher_is_on(
    filled: Session, user: Any, settings: Any, repository: SyncSessionRepository
) -> None:
    def again(title: str = SECRET) -> Session:
        fields = {"title": title, "context": {"a": [SECRET]}, "metadata": {SECRET: 1}}
        return repository.create(
            Session(user=user, agent_id="a", idempotency_key="k", **fields), MESSAGES
        )

    keyed = say(SECRET, idempotency_key="m")
    repository.add_message_to_session(filled.pk, keyed)
    digest = Session.objects.get().idempotency_digest
    on(settings)
    for _ in range(2):
        assert again().pk == filled.pk
        with pytest.raises(IdempotencyConflict):
            again("other")
        added = repository.add_message_to_session(filled.pk, keyed)
        assert added.sequence == 3 * len(MESSAGES) + 1
        repository.reencrypt()
    # Nobody can try out texts against it.
    assert Session.objects.get().idempotency_digest not in ("", digest)


class Vault:
    """A cipher whose keys cannot be had now."""

    def __init__(self) -> None:
        raise ConnectionError("the vault does not answer")


@pytest.mark.parametrize(
    ("name", "keys", "problem"),
    [
        ("agent_sessions.ciphers.Nothing", KEYS, "E024"),
        ("agent_sessions.models.Session", KEYS, "E025"),
        ("tests.agent_sessions.test_encryption.Vault", KEYS, "E025"),
        ("agent_sessions.ciphers.AESGCMCipher", {}, "E025"),
        ("agent_sessions.ciphers.AESGCMCipher", {"a": "c2hvcnQ="}, "E025"),
        ("agent_sessions.ciphers.AESGCMCipher", {"a": "c2hvcnQ"}, "E025"),
        ("agent_sessions.ciphers.AESGCMCipher", {1: OLD}, "E025"),
        ("agent_sessions.ciphers.AESGCMCipher", {"a": bytes(32)}, "E025"),
        ("agent_sessions.ciphers.AESGCMCipher", "c2hvcnQ=", "E025"),
        ("agent_sessions.ciphers.AESGCMCipher", KEYS, None),
        (None, {}, None),
    ],
)
def test_checks_report_what_cannot_be_used_and_show_no_key(
    settings: Any, name: str | None, keys: Any, problem: str | None
) -> None:
    from django.core.checks import run_checks

    settings.AGENT_SESSIONS_CIPHER_KEYS = keys
    settings.AGENT_SESSIONS_CIPHER = name
    found = [each for each in run_checks() if str(each.id).startswith("agent_sessions.E")]
    assert [str(each.id).removeprefix("agent_sessions.") for each in found] == [problem] * (
        problem is not None
    )
    assert "c2hv" not in str(found)


def test_an_erasure_looks_for_titles_that_are_encrypted(
    cipher: Any, filled: Session, user: Any, django_user_model: Any
) -> None:
    django_user_model.objects.create_user("bob", first_name=SECRET)
    with pytest.raises(CommandError, match="1 rows are left"):
        call_command("delete_user_data", "ada", "--no-input", "--verify", stdout=io.StringIO())


def test_the_command_says_what_is_missing(cipher: Any, filled: Session) -> None:
    on(cipher, {"2026": NEW})
    with pytest.raises(CommandError, match="there is no key '2025'"):
        run()


def test_rows_of_bulk_create_and_raw_queries_are_encrypted_too(cipher: Any, user: Any) -> None:
    session = Session(user=user, agent_id="a", title=SECRET)
    Session.objects.bulk_create([session])
    assert places(user) == []
    (stored,) = Session.objects.filter(pk=session.pk)
    assert stored.title == SECRET
    copied = Session.objects.raw("SELECT * FROM agent_sessions_session")
    assert [each.title for each in copied] == [SECRET]


def test_a_title_that_looks_encrypted_is_a_title(
    user: Any, repository: SyncSessionRepository, settings: Any
) -> None:
    title = "enc:AAAA"
    session = repository.create(Session(user=user, agent_id="a", title=title))
    repository.add_message_to_session(session.pk, say(title))
    assert repository.get(session.pk).title == title
    on(settings)
    assert repository.get(session.pk).title == title
    repository.reencrypt()
    assert repository.get(session.pk).title == title
    assert dicts(session) == [say(title)]
