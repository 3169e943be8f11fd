"""A row that cannot be decrypted is a problem for itself alone."""

from __future__ import annotations

import io
import json
import logging
import pickle
from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.core.checks import run_checks
from django.core.management import CommandError, call_command
from django.db import connection
from django.test import Client

from agent_sessions.encryption import NOTE
from agent_sessions.exceptions import DecryptionFailed
from agent_sessions.models import Message, Session
from agent_sessions.repository import SessionRepository, SyncSessionRepository
from agent_sessions.transfer import export_sessions
from tests.agent_sessions.data import say
from tests.agent_sessions.test_encryption import KEYS, NEW
from tests.api.conftest import client_of, url

LIST = "/api/v1/sessions/"


@pytest.fixture(autouse=True)
def cipher(settings: Any) -> None:
    settings.AGENT_SESSIONS_CIPHER_KEYS = KEYS
    settings.AGENT_SESSIONS_CIPHER = "agent_sessions.ciphers.AESGCMCipher"


@pytest.fixture
def whole(user: Any, repository: SyncSessionRepository) -> Session:
    return repository.create(Session(user=user, agent_id="a", title="Whole"), [say("all of it")])


@pytest.fixture
def ruined(whole: Session, user: Any, repository: SyncSessionRepository) -> Session:
    """A session whose title, context and second message of three are damaged."""
    messages = [say("one"), say("two", metadata={"a": 1}), say("three")]
    session = repository.create(
        Session(user=user, agent_id="a", title="Ruined", context={"a": 1}), messages
    )
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE agent_sessions_session SET sealed_title = 'enc:AAAA', context = %s "
            "WHERE sealed_title = %s",
            ['"enc:AAAA"', Session.objects.values_list("sealed_title", flat=True)[0]],
        )
        cursor.execute(
            "UPDATE agent_sessions_message SET payload = 'enc:AAAA' "
            "WHERE sequence = 2 AND session_id = %s",
            [Message._meta.get_field("session").get_db_prep_value(session.pk, connection)],
        )
    return session


def test_a_list_shows_the_other_sessions_and_marks_this_one(
    whole: Session, ruined: Session, user: Any, caplog: pytest.LogCaptureFixture
) -> None:
    client = client_of(user)
    for query in ("", "?page=1", "?ordering=activity"):
        answer = client.get(f"{LIST}{query}")
        assert answer.status_code == 200
        rows = {row["id"]: row for row in answer.json()["results"]}
        assert rows[str(whole.pk)]["title"] == "Whole"
        assert "problem" not in rows[str(whole.pk)]
        marked = rows[str(ruined.pk)]
        assert (marked["problem"], marked["title"], marked["message_count"]) == (
            "decryption_failed",
            "",
            3,
        )
    about = [record for record in caplog.records if str(ruined.pk) in record.getMessage()]
    assert [record.levelno for record in about] == [logging.ERROR]


def test_the_session_itself_is_a_problem_document(ruined: Session, user: Any) -> None:
    client = client_of(user)
    for address in (url(ruined), url(ruined, "context")):
        answer = client.get(address)
        assert (answer.status_code, answer.json()["code"]) == (500, "decryption_failed")
    before = Session.objects.values().get(pk=ruined.pk)
    answer = client.patch(url(ruined), {"title": "x"}, content_type="application/json")
    assert (answer.status_code, answer.json()["code"]) == (500, "decryption_failed")
    answer = client.put(url(ruined, "context"), {"b": 1}, content_type="application/json")
    assert answer.status_code == 500
    assert Session.objects.values().get(pk=ruined.pk) == before
    assert client.delete(url(ruined)).status_code == 204


def test_a_window_shows_the_other_messages_and_marks_this_one(ruined: Session, user: Any) -> None:
    client = client_of(user)
    rows = client.get(url(ruined, "messages")).json()["results"]
    assert [row["message"]["content"] for row in rows] == ["one", None, "three"]
    assert [row.get("problem") for row in rows] == [None, "decryption_failed", None]
    events = b"".join(client.get(url(ruined, "events"))).decode()
    assert events.count("event: message") == 3
    assert events.count("decryption_failed") == 1
    # The conversation goes on.
    answer = client.post(url(ruined, "messages"), say("four"), content_type="application/json")
    assert (answer.status_code, answer.json()["sequence"]) == (201, 4)


async def test_reading_the_text_raises_wherever_the_row_was_loaded(
    whole: Session, ruined: Session, user: Any
) -> None:
    repository = SessionRepository().for_user(user)
    for listed in (
        await repository.get_user_sessions(),
        (await repository.get_paginated_user_sessions(1, 10)).items,
        [session async for session in Session.objects.all()],
        [session async for session in Session.objects.defer("title")],
    ):
        by_key = {session.pk: session for session in listed}
        found = pickle.loads(pickle.dumps(by_key[ruined.pk]))
        assert found.is_undecryptable
        assert not by_key[whole.pk].is_undecryptable
        assert (found.agent_id, found.metadata) == ("a", {})
        assert str(found) == f"a {ruined.pk}"
        with pytest.raises(DecryptionFailed):
            _ = found.context
    with pytest.raises(DecryptionFailed):
        await repository.get(ruined.pk)
    messages = await repository.get_messages(ruined.pk)
    assert [message.is_undecryptable for message in messages] == [False, True, False]
    reads: list[Callable[[Message], object]] = [
        lambda message: message.content,
        lambda message: message.metadata,
        lambda message: message.payload,
        lambda message: message.text,
        lambda message: message.as_dict(),
    ]
    for read in reads:
        with pytest.raises(DecryptionFailed):
            read(messages[1])


def test_a_row_that_cannot_be_decrypted_is_never_overwritten_unasked(ruined: Session) -> None:
    before = Session.objects.values().get(pk=ruined.pk)
    session = Session.objects.get(pk=ruined.pk)
    session.agent_id = "b"
    session.save()
    after = Session.objects.values().get(pk=ruined.pk)
    assert {name for name in before if before[name] != after[name]} == {"agent_id", "updated_at"}
    with pytest.raises(DecryptionFailed):
        session.refresh_from_db()
    with pytest.raises(DecryptionFailed):
        _ = session.title
    session.title, session.context = "Again", {}
    session.save()
    assert not session.is_undecryptable
    assert SyncSessionRepository().get(ruined.pk).title == "Again"
    message = Message.objects.get(session=ruined, sequence=2)
    payload = Message.objects.values_list("payload").get(pk=message.pk)
    message.role = "assistant"
    with pytest.raises(DecryptionFailed):
        message.save()
    assert Message.objects.values_list("role", "payload").get(pk=message.pk) == ("user", *payload)


def test_a_key_that_is_back_makes_a_loaded_row_readable(whole: Session, settings: Any) -> None:
    settings.AGENT_SESSIONS_CIPHER_KEYS = {"2026": NEW}
    session, message = Session.objects.get(), Message.objects.get()
    assert session.is_undecryptable
    assert message.is_undecryptable
    settings.AGENT_SESSIONS_CIPHER_KEYS = KEYS
    session.refresh_from_db()
    message.refresh_from_db()
    assert not session.is_undecryptable
    assert not message.is_undecryptable
    assert (session.title, message.content) == ("Whole", "all of it")


def test_django_fetches_deferred_texts_of_many_rows_decrypted(
    whole: Session, ruined: Session
) -> None:
    models = pytest.importorskip("django.db.models")
    if not hasattr(models, "FETCH_PEERS"):
        pytest.skip("Django has no fetch modes")
    rows = Session.objects.defer("title", "context").fetch_mode(models.FETCH_PEERS)
    first, second = rows.order_by("pk")
    assert (first.context, first.title) == ({}, "Whole")
    for name in ("context", "title"):
        with pytest.raises(DecryptionFailed):
            getattr(second, name)
    _one, two, three = (
        Message.objects.filter(session=ruined).defer("content").fetch_mode(models.FETCH_PEERS)
    )
    assert three.content == "three"
    with pytest.raises(DecryptionFailed):
        _ = two.content


def test_an_export_has_the_others_and_says_what_is_missing(
    whole: Session, ruined: Session, user: Any
) -> None:
    data = b"".join(client_of(user).get(f"{LIST}export/"))
    first, second = map(json.loads, data.splitlines())
    assert (first["title"], first.get("undecryptable")) == ("Whole", None)
    assert (second["id"], second["undecryptable"]) == (str(ruined.pk), True)
    assert [message["content"] for message in second["messages"]] == ["one", None, "three"]
    assert b"".join(export_sessions(Session.objects.all())) == data
    with pytest.raises(CommandError, match=f"1 of them lack .* {ruined.pk}"):
        call_command("export_conversations", user="ada", stdout=io.StringIO())


def test_an_export_that_lacks_texts_is_not_imported(
    ruined: Session, user: Any, tmp_path: Any
) -> None:
    file = tmp_path / "export.jsonl"
    with pytest.raises(CommandError, match="cannot be decrypted"):
        call_command("export_conversations", user="ada", output=str(file))
    Session.objects.all().delete()
    stderr = io.StringIO()
    with pytest.raises(CommandError, match="1 lines were rejected"):
        call_command("import_conversations", str(file), user="ada", stderr=stderr)
    assert "could not be decrypted" in stderr.getvalue()
    assert [session.title for session in Session.objects.all()] == ["Whole"]


def delete_user(user: Any) -> None:
    user.delete()


def delete_users(user: Any) -> None:
    get_user_model().objects.filter(pk=user.pk).delete()


def delete_in_the_admin(user: Any) -> None:
    admin = get_user_model().objects.create_superuser("root", password="x")
    client = Client()
    client.force_login(admin)
    address = f"/admin/{user._meta.app_label}/{user._meta.model_name}/{user.pk}/delete/"
    assert "Ruined" not in client.get(address).content.decode()
    assert client.post(address, {"post": "yes"}).status_code == 302


@pytest.mark.parametrize("way", [delete_user, delete_users, delete_in_the_admin])
@pytest.mark.parametrize("is_on", [True, False])
def test_a_user_is_deleted_with_sessions_that_cannot_be_decrypted(
    ruined: Session, user: Any, settings: Any, way: Callable[[Any], None], is_on: bool
) -> None:
    if not is_on:
        settings.AGENT_SESSIONS_CIPHER = None
    way(user)
    assert not get_user_model().objects.filter(username="ada").exists()
    assert not Session.objects.exists()
    assert not Message.objects.exists()


def test_sessions_are_deleted_without_their_texts(ruined: Session, user: Any) -> None:
    Session.objects.get(pk=ruined.pk).delete()
    assert SyncSessionRepository().delete_user_data(user).messages == 1


def test_the_admin_lists_the_others(whole: Session, ruined: Session, admin_client: Client) -> None:
    page = admin_client.get("/admin/agent_sessions/session/").content.decode()
    assert "Whole" in page
    assert NOTE in page
    page = admin_client.get("/admin/agent_sessions/message/").content.decode()
    assert "three" in page
    assert NOTE in page


def test_a_command_names_the_rows_and_changes_none(whole: Session, ruined: Session) -> None:
    before = [*Session.objects.values(), *Message.objects.values()]
    stdout = io.StringIO()
    with pytest.raises(CommandError, match="2 rows cannot be decrypted"):
        call_command("reencrypt_conversations", "--check", stdout=stdout)
    lines = stdout.getvalue().splitlines()
    assert lines[0].startswith(f"Session {ruined.pk}: ")
    assert lines[1].startswith(f"Session {ruined.pk}, message 2: ")
    assert [*Session.objects.values(), *Message.objects.values()] == before
    SyncSessionRepository().delete(ruined.pk)
    call_command("reencrypt_conversations", "--check", stdout=stdout)
    assert stdout.getvalue().endswith("All rows can be decrypted.\n")


def test_a_check_reports_a_key_that_is_missing(whole: Session, settings: Any) -> None:
    def found() -> list[str]:
        messages = run_checks(databases=["default"])
        return [str(each.msg) for each in messages if each.id == "agent_sessions.W008"]

    assert found() == []
    for name, keys in ((settings.AGENT_SESSIONS_CIPHER, {"2026": NEW}), (None, KEYS)):
        settings.AGENT_SESSIONS_CIPHER, settings.AGENT_SESSIONS_CIPHER_KEYS = name, keys
        (message,) = found()
        assert str(whole.pk) in message
        assert "Whole" not in message
