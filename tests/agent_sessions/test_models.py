from __future__ import annotations

import pickle
import subprocess
import sys
import time
import uuid
from datetime import timedelta

import pytest
from django.core import serializers
from django.core.management import call_command
from django.db import IntegrityError, connection, models, transaction
from django.db.models.signals import post_init, pre_init
from django.test.utils import isolate_apps
from django.utils import timezone

import agent_sessions
from agent_sessions.checks import check_functions
from agent_sessions.ids import uuid7
from agent_sessions.models import Message, MessageRole, Session, SessionStatus
from agent_sessions.postgresql import append_function, functions, pop_function


class TestIds:
    def test_are_version_7(self):
        made = uuid7()
        assert (made.version, made.variant) == (7, uuid.RFC_4122)
        assert abs((made.int >> 80) - time.time_ns() // 1_000_000) < 60_000

    def test_are_in_order_and_distinct(self):
        made = [uuid7() for _number in range(2_000)]
        assert len(set(made)) == len(made)
        slow = []
        for _number in range(20):
            slow.append(uuid7())
            time.sleep(0.0005)
        assert slow == sorted(slow)


class TestPublicNames:
    def test_public_names_are_importable(self):
        for name in agent_sessions.__all__:
            assert getattr(agent_sessions, name).__name__ == name
            assert name in dir(agent_sessions)
        with pytest.raises(AttributeError):
            agent_sessions.nothing

    def test_statuses_and_roles(self):
        assert SessionStatus.names == ["ACTIVE", "PAUSED", "COMPLETED", "FAILED", "ARCHIVED"]
        assert MessageRole.values == ["system", "developer", "user", "assistant", "tool"]

    def test_nothing_needs_postgresql(self):
        code = (
            "import sys; sys.modules['psycopg'] = None; sys.modules['psycopg2'] = None\n"
            "from django.conf import settings\n"
            "settings.configure(INSTALLED_APPS=['django.contrib.auth',"
            "'django.contrib.contenttypes','agent_sessions'],"
            "DATABASES={'default': {'ENGINE': 'django.db.backends.sqlite3','NAME': ':memory:'}})\n"
            "import django; django.setup()\n"
            "from django.core.management import call_command\n"
            "call_command('check'); call_command('migrate', verbosity=0)\n"
            "from agent_sessions import SyncSessionRepository\n"
            "assert SyncSessionRepository().cleanup_expired_sessions() == 0\n"
        )
        subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, timeout=60)


@pytest.mark.django_db
def test_no_migration_is_missing():
    call_command("makemigrations", "agent_sessions", check=True, dry_run=True, verbosity=0)


@pytest.mark.postgres
@pytest.mark.django_db(transaction=True)
def test_migrating_back_and_forth(migrated_again):
    call_command("migrate", "agent_sessions", "zero", verbosity=0)
    assert "agent_sessions_message" not in connection.introspection.table_names()
    call_command("migrate", "agent_sessions", verbosity=0)
    assert "agent_sessions_message" in connection.introspection.table_names()


@pytest.mark.postgres
@pytest.mark.django_db(transaction=True)
class TestFunctions:
    def test_come_back_after_a_migration_where_they_are_missing(self, repository, session):
        with connection.cursor() as cursor:
            cursor.execute(append_function.DROP)
            cursor.execute(pop_function.DROP)
        assert functions.missing(connection) == [append_function.NAME, pop_function.NAME]
        problems = check_functions(databases=["default"])
        assert [problem.id for problem in problems] == ["agent_sessions.W004"] * 2
        call_command("migrate", "agent_sessions", verbosity=0, skip_checks=False)
        assert check_functions(databases=["default"]) == []
        message = {"role": "user", "content": "x"}
        assert repository.add_message_to_session(session.id, message).sequence == 1
        assert repository.pop_message(session.id).as_dict() == message

    def test_are_missed_only_where_there_are_tables(self, migrated_again):
        call_command("migrate", "agent_sessions", "zero", verbosity=0)
        assert functions.missing(connection) == []
        call_command("migrate", "agent_sessions", verbosity=0)
        assert functions.missing(connection) == []

    def test_tables_of_the_same_names_in_another_schema_keep_their_indexes(self):
        def indexes(cursor, schema):
            cursor.execute(
                "SELECT indexname FROM pg_indexes WHERE schemaname = %s AND tablename IN "
                "('agent_sessions_session', 'agent_sessions_message') ORDER BY 1",
                [schema],
            )
            return [name for (name,) in cursor.fetchall()]

        with connection.cursor() as cursor:
            before = indexes(cursor, "public")
            cursor.execute("CREATE SCHEMA tenant; SET search_path TO tenant, public")
            try:
                cursor.execute(
                    "CREATE TABLE tenant.django_migrations "
                    "(LIKE public.django_migrations INCLUDING ALL)"
                )
                cursor.execute(
                    "INSERT INTO tenant.django_migrations (app, name, applied) SELECT app, name, "
                    "applied FROM public.django_migrations WHERE app <> 'agent_sessions'"
                )
                call_command("migrate", "agent_sessions", verbosity=0)
                ours = {name for name in before if name.startswith("agent_")}
                assert ours >= {"agent_session_numbers", "agent_session_activity"}
                assert ours <= {*indexes(cursor, "tenant")}
                assert indexes(cursor, "public") == before
                call_command("migrate", "agent_sessions", "zero", verbosity=0)
                assert indexes(cursor, "public") == before
            finally:
                cursor.execute("DROP SCHEMA tenant CASCADE; RESET search_path")

    def test_is_shown_to_who_reviews_migrations(self, capsys):
        call_command("sqlmigrate", "agent_sessions", "0001")
        shown = capsys.readouterr().out
        assert f"CREATE OR REPLACE FUNCTION {append_function.NAME}" in shown


@pytest.mark.django_db
class TestSession:
    def test_the_text_of_a_session_is_its_title_or_its_agent(self, make_session):
        assert str(make_session(title="Hello")) == "Hello"
        assert "code_agent" in str(make_session())

    def test_a_session_past_its_expiry_is_not_active(self, make_session):
        session = make_session()
        assert session.is_active
        session.expires_at = timezone.now() - timedelta(seconds=1)
        assert session.is_expired
        assert not session.is_active
        session.expires_at = None
        assert session.is_active
        session.status = SessionStatus.PAUSED
        assert not session.is_active

    def test_an_explicit_expiry_is_saved(self, repository, session):
        repository.add_message_to_session(session.id, {"role": "user", "content": "x"})
        session.expires_at = None
        session.save()
        assert repository.get(session.id).expires_at is None

    def test_saved_before_it_leaves_what_others_changed_since(self, repository, session):
        loaded = Session.objects.get()
        loaded.title = "mine"
        loaded.save()
        repository.update_session(session.id, {"title": "theirs"})
        loaded.metadata = {"a": 1}
        loaded.save()
        stored = Session.objects.get()
        assert (stored.title, stored.metadata) == ("theirs", {"a": 1})

    def test_is_saved_in_one_statement(self, session, django_assert_num_queries):
        loaded = Session.objects.get()
        with django_assert_num_queries(1):
            loaded.save()

    def test_a_deleted_session_is_not_revived_by_saving(self, repository, session):
        repository.delete(session.id)
        with pytest.raises(Exception, match="did not affect"), transaction.atomic():
            session.save()
        assert Session.objects.count() == 0


@pytest.mark.django_db
class TestMessage:
    def test_numbers_are_unique_in_a_session(self, session):
        Message.objects.create(session=session, sequence=1, role="user", content="x")
        with pytest.raises(IntegrityError), transaction.atomic():
            Message.objects.create(session=session, sequence=1, role="user", content="x")

    def test_made_by_hand(self, session):
        made = Message.objects.create(
            session=session, sequence=1, role="user", content=["a", {"text": "b\x00"}]
        )
        assert made.user_id == session.user_id
        stored = Message.objects.get()
        assert stored.as_dict() == {"role": "user", "content": ["a", {"text": "b\x00"}]}
        assert stored.text == "a\nb\x00"
        assert str(stored) == "1 user"

    def test_deferred_fields_are_loaded_exactly(self, repository, session):
        repository.add_message_to_session(
            session.id, {"role": "user", "content": ["a"], "metadata": {"big": 2**70}}
        )
        assert Message.objects.only("role").get().role == "user"
        assert Message.objects.defer("content").get().metadata == {"big": 2**70}

    @pytest.mark.parametrize("name", ["content", "metadata"])
    def test_parts_of_a_message_are_exact(
        self, repository, session, name, django_assert_num_queries
    ):
        given = {"role": "user", "content": "a\x00b", "metadata": {"x": "\x00"}, "name": "ada"}
        repository.add_message_to_session(session.id, given)
        messages = Message.objects.all()
        with django_assert_num_queries(1):
            assert getattr(messages.only(name).get(), name) == given[name]
        for loaded in (
            messages.only("id").get(),
            messages.defer("payload").get(),
            messages.defer(name).get(),
            Message.objects.raw("SELECT id, content, metadata FROM agent_sessions_message")[0],
        ):
            assert getattr(loaded, name) == given[name]
            assert loaded.as_dict() == given
        (loaded,) = messages
        loaded.refresh_from_db(fields=[name])
        assert loaded.as_dict() == given

    @pytest.mark.skipif(not hasattr(models, "FETCH_PEERS"), reason="Django fetches one by one.")
    def test_deferred_fields_of_many_are_exact(
        self, repository, session, django_assert_num_queries
    ):
        given = [{"role": "user", "content": f"{n}\x00"} for n in range(3)]
        repository.add_messages(session.id, given)
        peers = Message.objects.only("id").in_order().fetch_mode(models.FETCH_PEERS)
        with django_assert_num_queries(2):
            assert [message.content for message in peers] == ["0\x00", "1\x00", "2\x00"]

    @pytest.mark.parametrize("fields", [["id"], ["role"], ["content"], ["metadata"], ["payload"]])
    def test_saving_a_part_keeps_the_rest(self, repository, session, fields):
        given = {"role": "user", "content": "a\x00b", "metadata": {"x": "\x00"}, "name": "ada"}
        repository.add_message_to_session(session.id, given)
        for name, value in (("content", "new"), ("metadata", {"y": 1}), ("content", ["\x00"])):
            loaded = Message.objects.only(*fields).get()
            setattr(loaded, name, value)
            loaded.save()
            given = {**given, name: value}
            assert Message.objects.get().as_dict() == given
            loaded = Message.objects.only(*fields).get()
            loaded.role = "assistant"
            loaded.save(update_fields=["role"])
            given["role"] = "assistant"
            assert Message.objects.get().as_dict() == given
            setattr(loaded, name, "other")
            loaded.refresh_from_db()
            assert loaded.as_dict() == given

    @pytest.mark.parametrize("signal", [pre_init, post_init])
    def test_receivers_hear_of_loaded_messages(self, repository, session, signal):
        added = repository.add_message_to_session(session.id, {"role": "user", "content": "x"})
        heard = []

        def hear(**kwargs):
            heard.append(kwargs)

        signal.connect(hear, sender=Message)
        try:
            (loaded,) = repository.get_messages(session.id)
        finally:
            signal.disconnect(hear, sender=Message)
        assert loaded == added
        assert len(heard) == 1

    def test_many_can_be_changed_at_once(self, repository, session):
        given = [
            {"role": "user", "content": "plain", "name": "ada"},
            {"role": "user", "content": "a\x00b"},
            {"role": "user", "content": ["list"], "metadata": {"x": "\x00"}},
        ]
        repository.add_messages(session.id, given)
        for changes in (
            {"content": ["new"]},
            {"content": "\x00", "metadata": {"y": "\x00"}},
            {"content": "plain", "metadata": {"z": 1}},
        ):
            loaded = [*Message.objects.only("id").in_order()]
            for message in loaded:
                for name, value in changes.items():
                    setattr(message, name, value)
            assert Message.objects.bulk_update(loaded, changes) == 3
            given = [{**message, **changes} for message in given]
            assert [message.as_dict() for message in session.messages.in_order()] == given

    def test_an_update_leaves_nothing_of_the_old_content(self, repository, session):
        given = [
            {"role": "user", "content": "plain", "name": "ada"},
            {"role": "user", "content": "secret\x00", "metadata": {"x": "\x00"}},
            {"role": "user", "content": ["secret"]},
        ]
        repository.add_messages(session.id, given)
        for value in ("removed", ["\x00"], "\x00"):
            assert session.messages.filter(sequence__gt=1).update(content=value, role="tool") == 2
            given[1:] = [{**message, "content": value, "role": "tool"} for message in given[1:]]
            assert [message.as_dict() for message in session.messages.in_order()] == given
        assert "secret" not in str([*Message.objects.values_list()])
        found = Message.objects.filter(content="plain")
        assert found.update(content="other", metadata={"y": 1}) == 1
        given[0] |= {"content": "other", "metadata": {"y": 1}}
        assert [message.as_dict() for message in session.messages.in_order()] == given
        assert found.update(content="nothing") == 0

    def test_subclasses_see_what_is_set(self, repository, session):
        added = repository.add_message_to_session(session.id, {"role": "user", "content": "x"})

        with isolate_apps("agent_sessions"):

            class Watched(Message):
                class Meta:
                    app_label = "agent_sessions"
                    proxy = True

                def __setattr__(self, name, value):
                    self.__dict__.setdefault("seen", []).append(name)
                    super().__setattr__(name, value)

            loaded = Watched.objects.get()
        assert loaded.pk == added.pk
        assert {"content", "session_id"} <= {*loaded.seen}

    def test_loaded_ones_can_be_changed(self, repository, session):
        repository.add_message_to_session(session.id, {"role": "user", "content": "x"})
        (loaded,) = repository.get_messages(session.id)
        loaded.content = ["y"]
        loaded.save()
        assert pickle.loads(pickle.dumps(loaded)).as_dict()["content"] == ["y"]
        loaded.refresh_from_db()
        assert loaded.as_dict() == {"role": "user", "content": ["y"]}
        assert Message.objects.get() == loaded

    @pytest.mark.parametrize("format_name", ["json", "jsonl", "xml", "yaml"])
    def test_fixtures_keep_everything(self, repository, session, format_name):
        given = [
            {"role": "user", "content": [{"type": "text", "text": "hello"}], "name": "ada"},
            {"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]},
            {"role": "user", "content": "plain\x00", "metadata": {"a": 1e300}},
            {"role": "user", "content": "\ud800", "metadata": {"\ud800": "\ud83d\ude00"}},
            {"role": "user", "content": ["\ud800", {"text": "x"}]},
        ]
        repository.add_messages(session.id, given)
        fixture = serializers.serialize(format_name, Message.objects.all())
        assert fixture.encode()
        Message.objects.all().delete()
        for loaded in serializers.deserialize(format_name, fixture):
            loaded.save()
        assert [m.as_dict() for m in Message.objects.all()] == given

    def test_validating_keeps_the_parts(self, session):
        message = Message(session=session, sequence=1, role="user", content=["a"])
        message.user_id = session.user_id
        message.full_clean()
        assert message.content == ["a"]

    def test_querysets_select_windows_and_roles(self, repository, session, other_user):
        for role in ("user", "assistant", "tool"):
            repository.add_message_to_session(session.id, {"role": role, "content": role})

        def numbers(query):
            return [message.sequence for message in query]

        messages = Message.objects.for_session(session)
        assert numbers(messages.in_order()) == [1, 2, 3]
        assert numbers(messages.latest_first()) == [3, 2, 1]
        assert numbers(messages.after(1).before(3)) == [2]
        assert numbers(Message.objects.for_session(session.id).containing("assist")) == [2]
        assert Message.objects.for_user(session.user).count() == 3
        assert Message.objects.for_user(other_user.pk).count() == 0
