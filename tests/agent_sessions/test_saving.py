"""What save() writes: of stale rows, of rows from a replica, of subclasses, of messages."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from django.core.exceptions import ValidationError
from django.utils import timezone

from agent_sessions.models import Message, Session
from tests.agent_sessions.data import say
from tests.processes import ROOT

pytestmark = pytest.mark.django_db

REPLICA_AND_SUBCLASS = """
import sys
import warnings

warnings.simplefilter("error")

import django
from django.conf import settings


class ReadsFromReplica:
    def db_for_read(self, model, **hints):
        return "replica"

    def db_for_write(self, model, **hints):
        return "default"

    def allow_relation(self, one, other, **hints):
        return True


file = {"ENGINE": "django.db.backends.sqlite3", "NAME": sys.argv[1], "OPTIONS": {"timeout": 20}}
settings.configure(
    SECRET_KEY="x",
    USE_TZ=True,
    DATABASES={"default": file, "replica": {**file}},
    DATABASE_ROUTERS=[ReadsFromReplica()],
    INSTALLED_APPS=["agent_sessions", "django.contrib.auth", "django.contrib.contenttypes"],
)
django.setup()

from django.contrib.auth.models import User
from django.core.exceptions import ValidationError
from django.core.management import call_command
from django.db import connection, models

from agent_sessions import Session, SyncSessionRepository

call_command("migrate", verbosity=0)
user = User.objects.create(username="ada")
repository = SyncSessionRepository()
message = {"role": "user", "content": "x"}

session = repository.create(Session(user_id=user.pk, agent_id="code"))
stale = Session.objects.get(pk=session.pk)
assert stale._state.db == "replica"
repository.add_messages(session.pk, [message] * 3)
stale.title = "new"
stale.save()
stored = repository.get(session.pk)
assert (stored.title, stored.message_count, stored.last_sequence) == ("new", 3, 3)
assert stored.last_message_at is not None
assert repository.add_message_to_session(session.pk, message).sequence == 4


class TeamSession(Session):
    project = models.CharField(max_length=20)

    class Meta:
        app_label = "agent_sessions"


with connection.schema_editor() as editor:
    editor.create_model(TeamSession)
team = repository.create(TeamSession(user_id=user.pk, agent_id="code", project="one"))
assert TeamSession.objects.get().project == "one"
repository.add_message_to_session(team.pk, message)
loaded = TeamSession.objects.get()
loaded.title, loaded.project = "both", "two"
loaded.save()
stored = TeamSession.objects.get()
assert (stored.title, stored.project, stored.message_count) == ("both", "two", 1)
other = User.objects.create(username="bob")
try:
    repository.create(TeamSession(id=session.pk, user_id=other.pk, agent_id="x", project="x"))
except ValidationError as error:
    assert "id" in error.message_dict
else:
    raise AssertionError("A session was taken over.")
assert repository.get(session.pk).user_id == user.pk
team.delete()
assert repository.get_session_stats(user.pk).total_sessions == 1
"""


def test_a_replica_and_a_subclass_keep_every_field(tmp_path: Path) -> None:
    command = [sys.executable, "-c", REPLICA_AND_SUBCLASS, str(tmp_path / "db.sqlite3")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


class TestStaleSession:
    def test_changes_what_was_changed_and_no_more(self, repository, session):
        stale = Session.objects.get()
        repository.update_session(session.id, {"status": "paused", "metadata": {"a": 1}})
        repository.update_session_context(session.id, {"b": 2})
        stale.title = "new"
        stale.save()
        stored = Session.objects.get()
        assert (stored.title, stored.status) == ("new", "paused")
        assert (stored.context, stored.metadata) == ({"b": 2}, {"a": 1})

    def test_saves_objects_that_were_changed_in_place(self, repository, session):
        repository.update_session_context(session.id, {"a": {"b": [1]}})
        loaded = Session.objects.get()
        loaded.context["a"]["b"].append(2)
        loaded.metadata["c"] = 3
        loaded.save()
        stored = Session.objects.get()
        assert (stored.context, stored.metadata) == ({"a": {"b": [1, 2]}}, {"c": 3})
        loaded.context["a"]["b"].clear()
        loaded.save()
        assert Session.objects.get().context == {"a": {"b": []}}

    def test_that_was_refreshed_does_not_shorten_the_expiry(self, repository, session):
        for fields in (None, ["expires_at"]):
            loaded = Session.objects.get()
            repository.add_message_to_session(session.id, say())
            loaded.refresh_from_db(fields=fields)
            repository.add_message_to_session(session.id, say())
            expiry = Session.objects.get().expires_at
            loaded.title = "new"
            loaded.save()
            assert Session.objects.get().expires_at == expiry

    def test_keeps_what_a_part_of_the_fields_left_unsaved(self, session):
        loaded = Session.objects.get()
        loaded.title, loaded.agent_id = "new", "other"
        loaded.save(update_fields=["title"])
        assert Session.objects.get().agent_id == "code_agent"
        loaded.save()
        assert Session.objects.get().agent_id == "other"

    def test_moves_the_moment_of_the_last_change(self, session):
        before = timezone.now()
        Session.objects.get().save()
        assert Session.objects.get().updated_at >= before


@pytest.mark.parametrize(
    "value",
    [{"n": 1e23}, {"n": 5e-324}, {"n": -0.0}, {"n": 1.5e300, "t": '1e5 \\" 1e5'}, {"n": 10**40}],
)
def test_numbers_of_context_and_metadata_come_back_as_they_went(repository, session, value):
    repository.update_session_context(session.id, value)
    repository.update_session(session.id, {"metadata": value})
    loaded = Session.objects.get()
    for stored in (loaded.context, loaded.metadata):
        assert stored == value
        assert type(stored["n"]) is type(value["n"])


class TestMessageByHand:
    def test_counts_and_leaves_room_for_appends(self, repository, session):
        repository.add_message_to_session(session.id, say())
        Message.objects.create(session=session, sequence=2, role="user", content="x")
        assert repository.add_message_to_session(session.id, say()).sequence == 3
        assert repository.get(session.id).message_count == 3
        assert repository.verify_counters() == []

    @pytest.mark.django_db(transaction=True)
    def test_that_was_not_counted_does_not_block_appends(self, repository, session):
        message = Message(session=session, sequence=1, role="user", content="x")
        message.user_id = session.user_id
        Message.objects.bulk_create([message])
        assert repository.add_message_to_session(session.id, say()).sequence == 2

    def test_is_validated_with_its_role(self, session, settings):
        message = Message(session=session, sequence=1, role="robot", content="x")
        message.user_id = session.user_id
        with pytest.raises(ValidationError) as refused:
            message.full_clean()
        assert refused.value.message_dict.keys() == {"role"}
        settings.AGENT_SESSIONS_EXTRA_ROLES = ["robot"]
        message.full_clean()
