from __future__ import annotations

from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import pytest
from django.db import connection
from django.db.models import Value
from django.test.utils import CaptureQueriesContext

from agent_sessions import search_index
from agent_sessions.models import Message, Session

pytestmark = pytest.mark.django_db


@pytest.fixture
def say(repository: Any) -> Any:
    def say(session: Session, *texts: str) -> None:
        repository.add_messages(session.id, [{"role": "user", "content": t} for t in texts])

    return say


@pytest.mark.parametrize(
    "text",
    [
        "Please debug this Python script",
        "Привет, как дела?",
        "你好世界 今天天气很好",
        "今日は天気がいいですね",
        "مرحبا كيف حالك اليوم",
        "Füße ÜBER Ärger",
        "c:\\path 100% sure_thing 'quoted' \"double\" a&b|c!(d):* <-> --",
        "naïve café",
    ],
)
def test_words_and_parts_of_words(repository, session, make_session, say, text):
    make_session(title="something else")
    say(session, "first", text)
    for word in text.split():
        parts = {word, word[: max(1, len(word) // 2)], word[len(word) // 2 :], word[1:3]} - {""}
        for part in parts:
            found = repository.search_sessions(session.user_id, part)
            assert session in found, part
    assert repository.search_sessions(session.user_id, " ".join(reversed(text.split()))) == [
        session
    ]


@pytest.mark.parametrize(
    ("stored", "term"),
    [
        ("Python", "pYTHON"),
        ("ПРИВЕТ", "привет"),
        ("привет", "ПРИВЕТ"),
        ("Éclair", "éCLAIR"),
        ("ΑΘΗΝΑ", "αθηνα"),
    ],
)
def test_case_does_not_matter(repository, make_session, say, stored, term):
    session = make_session()
    titled = make_session(title=f"x{stored}x")
    say(session, f"x{stored}x")
    assert repository.search_sessions(session.user_id, term) == [titled, session]
    assert set(Session.objects.for_user(session.user).search(term)) == {titled, session}
    assert Message.objects.for_user(session.user).containing(term).count() == 1


@pytest.mark.parametrize("term", ["%", "_", "\\", "'", '"', "p%n", "p_thon", ".*", "py & th", ":*"])
def test_characters_stand_for_themselves(repository, make_session, session, say, term):
    say(session, "python and more")
    assert repository.search_sessions(session.user_id, term) == []
    plain = make_session(title=f"has {term} in it")
    assert repository.search_sessions(session.user_id, term) == [plain]


@pytest.mark.parametrize("term", ["", "   ", "\n", "a\x00b", "\ud800"])
def test_terms_without_words(repository, session, say, term):
    say(session, "a b")
    assert repository.search_sessions(session.user_id, term) == []
    assert list(Session.objects.for_user(session.user).search(term)) == []
    assert list(Message.objects.containing(term)) == []


def test_a_very_long_term(repository, session, say):
    say(session, "z" * 70_000)
    assert repository.search_sessions(session.user_id, "Z" * 60_000) == [session]
    assert repository.search_sessions(session.user_id, "z" * 80_000) == []


def test_all_words_must_be_in_one_place(repository, make_session, session, say):
    say(session, "red apple", "green pear")
    assert repository.search_sessions(session.user_id, "apple RED") == [session]
    assert repository.search_sessions(session.user_id, "red pear") == []
    many = " ".join(f"word{n}" for n in range(40))
    say(session, f"before {many} after")
    assert repository.search_sessions(session.user_id, many) == [session]


def test_only_ones_own(repository, session, make_session, other_user, say):
    theirs = make_session(user=other_user, title="python")
    say(theirs, "python")
    assert repository.search_sessions(session.user_id, "python") == [session]
    assert repository.search_sessions(other_user, "python") == [theirs]


def test_a_session_given_away_is_found_by_its_new_owner(repository, session, other_user, say):
    say(session, "secret")
    session = repository.get(session.id)
    session.user = other_user
    session.save()
    assert repository.search_sessions(other_user.pk, "secret") == [session]
    assert {m.user_id for m in Message.objects.all()} == {other_user.pk}


@pytest.mark.parametrize("by", ["user", "user_id", "expression"])
def test_sessions_given_away_in_bulk_take_their_messages_along(
    repository, session, make_session, other_user, say, by
):
    kept = make_session()
    say(session, "secret")
    say(kept, "secret")
    given = Session.objects.for_user(session.user).filter(pk=session.pk)
    value = {"user": other_user, "user_id": other_user.pk, "expression": Value(other_user.pk)}[by]
    assert given.update(**{"user_id" if by == "expression" else by: value}) == 1
    assert repository.search_sessions(other_user, "secret") == [session]
    assert repository.search_sessions(kept.user_id, "secret") == [kept]
    assert Session.objects.for_user(other_user).search("secret").get() == session


def test_a_user_that_was_not_saved_changes_nothing(repository, session, other_user, say):
    say(session, "secret")
    former = session.user_id
    session = repository.get(session.id)
    session.user = other_user
    session.title = "New"
    session.save(update_fields=["title"])
    assert repository.search_sessions(other_user, "secret") == []
    assert repository.search_sessions(former, "secret") == [session]


def test_what_is_another_users_is_not_found_whatever_messages_say(
    repository, session, other_user, say
):
    say(session, "secret")
    Message.objects.update(user_id=other_user.pk)
    assert repository.search_sessions(other_user, "secret") == []


def test_ranking(repository, make_session, say):
    once, often, none, titled, exact = (
        make_session(title=t) for t in ("a", "b", "c", "Script that Python runs", "A python script")
    )
    say(often, "python script", "python script")
    say(once, "a script in python")
    say(none, "java")
    say(often, "more")
    recent = make_session(title="d")
    say(recent, "python script")
    user_id = once.user_id
    expected = [exact, titled, often, recent, once]
    assert repository.search_sessions(user_id, "python script") == expected
    assert repository.search_sessions(user_id, "python script", limit=2) == expected[:2]


def test_parts_and_unstorable_text_are_searchable(repository, session):
    repository.add_messages(
        session.id,
        [
            {"role": "user", "content": [{"type": "text", "text": "a picture of kittens"}]},
            {"role": "tool", "content": "before\x00behind", "tool_call_id": "c"},
            {
                "role": "tool",
                "content": [
                    {"type": "tool_result", "content": [{"type": "text", "text": "nested"}]}
                ],
            },
        ],
    )
    for term in ("kitten", "behind", "NESTED"):
        assert repository.search_sessions(session.user_id, term) == [session]
    assert repository.search_sessions(session.user_id, "tool_result") == []


def test_searching_composes(make_session):
    found = make_session(title="python a")
    make_session(title="python b", status="archived")
    query = Session.objects.for_user(found.user).active().search("python").newest_first()
    assert list(query) == [found]


def test_sessions_of_two_users_compose(session, make_session, other_user, say):
    theirs = make_session(user=other_user)
    say(session, "kittens")
    say(theirs, "kittens")
    both = Session.objects.for_user(session.user) | Session.objects.for_user(other_user)
    assert set(both.search("kitten")) == {session, theirs}
    either = Session.objects.for_user(session.user) ^ Session.objects.for_user(other_user)
    assert set(either.search("kitten")) == {session, theirs}
    assert set(Session.objects.search("kitten")) == {session, theirs}


@pytest.mark.postgres
class TestIndex:
    def test_is_there(self):
        assert search_index.exists(connection)

    @pytest.mark.parametrize("scoped", [True, False])
    def test_serves_the_query(self, session, scoped):
        messages = Message.objects.containing("python")
        if scoped:
            messages = messages.for_user(session.user)
        with connection.cursor() as cursor:
            cursor.execute("SET LOCAL enable_seqscan = off")
        assert search_index.NAME in messages.order_by().explain()

    def test_search_answers_without_it(self, repository, session, say):
        say(session, "kittens")
        with connection.cursor() as cursor:
            cursor.execute(f"DROP INDEX {search_index.NAME}")
        assert not search_index.exists(connection)
        assert repository.search_sessions(session.user_id, "KITTEN") == [session]

    def test_migrating_goes_on_where_extensions_are_forbidden(self, repository, session, say):
        say(session, "kittens")
        role = f"nobody_{uuid4().hex}"
        with connection.cursor() as cursor:
            cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
            cursor.execute("DROP EXTENSION pg_trgm, btree_gin CASCADE")
            cursor.execute(f"CREATE ROLE {role}")
            cursor.execute(f"SET LOCAL ROLE {role}")
            search_index.create_if_possible(None, SimpleNamespace(connection=connection))
            cursor.execute("RESET ROLE")
        assert not search_index.exists(connection)
        assert repository.search_sessions(session.user_id, "kitten") == [session]


@pytest.mark.postgres
@pytest.mark.django_db(transaction=True)
def test_the_index_can_be_built_concurrently():
    with connection.cursor() as cursor:
        cursor.execute(f"DROP INDEX {search_index.NAME}")
    search_index.create(connection, concurrently=True)
    assert search_index.exists(connection)
    with CaptureQueriesContext(connection) as queries:
        search_index.create(connection, concurrently=True)
    assert not any("DROP" in query["sql"] for query in queries)
