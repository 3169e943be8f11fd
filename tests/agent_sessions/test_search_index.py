"""The index of PostgreSQL finds what a look at each text finds."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, NamedTuple
from uuid import uuid4

import pytest
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent_sessions.models import Message, Session
from agent_sessions.postgresql import search_index
from agent_sessions.search.terms import pattern_of

pytestmark = [pytest.mark.django_db, pytest.mark.postgres]

# Letters of many scripts, signs that end words, and what stands for more than itself somewhere.
CHARACTERS = (
    "aAbqQzZ019\xe9\xc9\u0153\u0178 _.-%\\'/(*?@[`{~\t\n\x7f\xa0\xab\xd7\xb2\xaa\u01c5\u0259"
    "\u0300\u0301\u044f\u042f\u0406\u05d0\u05be\u0627\u0623\u0649\u064a\u064b\u0640\u060c"
    "\u0915\u094d\u0937\u0964\u0e44\u0e17\u0e22\u1000\u1781\u1787\uac00\ub97c\ud55c\u1ebf"
    "\u200b\u200d\u2014\u201c\u201d\u2026\u2603\u3000\u3001\u3002\u4e00\u4e01\u597d\u3005"
    "\u3005\u306e\u304c\u304b\u3099\u30fc\u30fb\u30a1\uff71\uff9e\uff21\uff01\ufe0f\ufb01"
    "\U0001f600\U0001f1e6\U00020000\U0001d400\u1200"
)
texts = st.lists(st.sampled_from(CHARACTERS) | st.sampled_from(CHARACTERS[:16]), max_size=12).map(
    "".join
)


@pytest.fixture
def say(repository: Any) -> Any:
    def say(session: Session, *texts: str) -> None:
        repository.add_messages(session.id, [{"role": "user", "content": t} for t in texts])

    return say


def found(word: str, lookup: str, *, by_index: bool) -> list[str]:
    with connection.cursor() as cursor:
        for name, value in (("seqscan", not by_index), ("bitmapscan", by_index)):
            cursor.execute(f"SET LOCAL enable_{name} = {'on' if value else 'off'}")
    matching = Message.objects.filter(**{f"content__{lookup}": word}).order_by("sequence")
    return list(matching.values_list("content", flat=True))


def rows_read(plan: dict[str, Any]) -> Iterator[int]:
    if search_index.NAME in plan.get("Index Name", ""):
        yield plan["Actual Rows"]
    for each in plan.get("Plans", ()):
        yield from rows_read(each)


class Reading(NamedTuple):
    """What a part of the statement of a search reads of a table."""

    part: str
    table: str
    rows: int


def readings(repository: Any, user_id: Any, term: str, limit: int) -> list[Reading]:
    """Return what a search reads where the planner takes indexes and their order."""
    with connection.cursor() as cursor:
        cursor.execute("SET LOCAL enable_seqscan = off; SET LOCAL enable_sort = off")
    with CaptureQueriesContext(connection) as queries:
        assert repository.search_sessions(user_id, term, limit, excerpts=0)
    (query,) = queries.captured_queries
    with connection.cursor() as cursor:
        cursor.execute(f"EXPLAIN (ANALYZE, FORMAT JSON) {query['sql']}")
        waiting = [("", cursor.fetchone()[0][0]["Plan"])]
    found = []
    while waiting:
        part, node = waiting.pop()
        part = node.get("Subplan Name", part)
        if "Relation Name" in node and node["Actual Loops"]:
            # Of a divided table its partitions are read.
            table = re.sub(r"_p\d+$", "", node["Relation Name"])
            rows = node["Actual Rows"] + node.get("Rows Removed by Filter", 0)
            found.append(Reading(part, table, int(rows * node["Actual Loops"])))
        waiting += [(part, inner) for inner in node.get("Plans", ())]
    return found


@pytest.mark.slow
@settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.data(), drawn=st.lists(texts, min_size=1, max_size=6))
def test_the_index_finds_what_a_look_at_each_text_finds(session, say, data, drawn):
    whole = data.draw(st.sampled_from(drawn))
    start = data.draw(st.integers(0, len(whole)))
    part = whole[start : start + data.draw(st.integers(1, 5))]
    words = [*part.split(), *data.draw(texts).split()[:1]]
    stored = [data.draw(texts) + text for text in drawn]
    with transaction.atomic():
        say(session, *stored)
        for word in words:
            for lookup in ("has_word", "has_prefix", "has_text"):
                by_index = found(word, lookup, by_index=True)
                assert by_index == found(word, lookup, by_index=False), (word, lookup)
            looked_at = re.compile(pattern_of(word), re.IGNORECASE)
            assert by_index == [text for text in stored if looked_at.search(text)], word
        transaction.set_rollback(True)


def test_signs_are_neither_letters_nor_digits() -> None:
    signs = re.compile(f"[{search_index.SIGNS}]")
    assert not [chr(n) for n in range(0x110000) if chr(n).isalnum() and signs.match(chr(n))]


@pytest.mark.parametrize(
    ("text", "term"),
    [("API  \u0441", "API\u0441"), ("a  \u0e01", "a\u0e01"), ("\u4e00 \u4e01", "\u4e00\u4e01")],
)
def test_spaces_of_a_text_are_its_own(repository, session, say, text, term):
    say(session, text)
    assert repository.search_sessions(session.user_id, term) == []
    say(session, term)
    assert repository.search_sessions(session.user_id, term) == [session]


class TestIndex:
    def test_migrations_make_the_index(self):
        assert not search_index.is_missing(connection)

    @pytest.mark.parametrize(
        ("lookup", "term"),
        [
            ("has_text", "ytho"),
            ("has_text", "yt"),
            ("has_text", "\u0645\u0631\u062d\u0628\u0627"),
            ("has_text", "\u4f60"),
            ("has_text", "\u4f60\u597d"),
            ("has_text", "\u304c"),
            ("has_text", "_p"),
            ("has_word", "py"),
            ("has_word", "\u00e9t\u00e9"),
            ("has_word", "\u0434\u0430"),
            ("has_word", "\ud55c\uad6d"),
            ("has_word", "\u0645\u0631\u062d\u0628\u0627"),
            ("has_word", "ti\u1ebfng"),
            ("has_prefix", "p"),
            ("has_prefix", "\ud55c"),
        ],
    )
    def test_reads_what_matches_and_no_more(self, session, say, lookup, term):
        with connection.cursor() as cursor:
            cursor.execute("SET LOCAL enable_seqscan = off")
            cursor.execute("SET LOCAL enable_indexscan = off")
        found = Message.objects.filter(**{f"content__{lookup}": term}).order_by()
        read = []
        others = "a_b, c. \u0430\u0434 \u5225\u306e \ub2e4\ub978 \u0644\u0627 t i"
        for texts in ([], [others] * 20, [f"x{term}z {term}."]):
            say(session, *texts)
            [plan] = json.loads(found.explain(format="json", analyze=True))
            read.append(sum(rows_read(plan["Plan"])))
        # Other tests' rows are in the index, too, until they are vacuumed.
        assert read[0] == read[1] < read[2]

    def test_what_titles_with_the_word_fill_is_not_looked_for_elsewhere(
        self, repository, make_session, say
    ):
        for number in range(30):
            say(make_session(title=f"kitten {number}"), "kittens")
        found = readings(repository, make_session(title="kittens").user_id, "kitten", 3)
        assert {reading.table for reading in found} == {"agent_sessions_session"}
        # One title is later. Reading the sessions of the answer is no part of the search.
        assert sum(reading.rows for reading in found if reading.part) == 3 + 1

    def test_the_messages_of_one_who_has_few_are_read_once(self, repository, make_session, say):
        for text in ("kitten", "kittens", "xkitten"):
            session = make_session()
            say(session, text)
        found = readings(repository, session.user_id, "kitten", 20)
        parts = {reading.part for reading in found if reading.table == "agent_sessions_message"}
        assert len(parts) == 1

    def test_that_was_interrupted_is_made_again(self):
        with connection.cursor() as cursor:
            # As an interrupted CREATE INDEX CONCURRENTLY leaves it.
            cursor.execute(
                "UPDATE pg_index SET indisvalid = false WHERE indexrelid = %s::regclass",
                [search_index.NAME],
            )
        assert search_index.is_missing(connection)
        search_index.create(connection)
        assert not search_index.is_missing(connection)

    def test_search_answers_without_it(self, repository, session, say):
        say(session, "kittens")
        with connection.cursor() as cursor:
            cursor.execute(f"DROP INDEX {search_index.NAME}")
        assert search_index.is_missing(connection)
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
        assert search_index.is_missing(connection)
        assert repository.search_sessions(session.user_id, "kitten") == [session]


@pytest.mark.django_db(transaction=True)
def test_the_index_can_be_built_concurrently():
    with connection.cursor() as cursor:
        cursor.execute(f"DROP INDEX {search_index.NAME}")
    search_index.create(connection, concurrently=True)
    assert not search_index.is_missing(connection)
    with CaptureQueriesContext(connection) as queries:
        search_index.create(connection, concurrently=True)
    assert not any("DROP" in query["sql"] for query in queries)


def test_the_migrated_index_holds_the_composed_text():
    with connection.cursor() as cursor:
        cursor.execute("CREATE TABLE composed (LIKE agent_sessions_message)")
        text = search_index.SPACED_SQL.format(column="content")
        cursor.execute(f"CREATE INDEX ON composed USING gin (user_id, ({text}) gin_trgm_ops)")
        cursor.execute(
            "SELECT indexdef FROM pg_indexes WHERE indexname = %s OR tablename = 'composed'",
            [search_index.NAME],
        )
        migrated, composed = (text.partition(" USING ")[2] for (text,) in cursor.fetchall())
    assert migrated == composed


def test_a_changed_text_of_the_index_takes_a_new_name():
    digest = hashlib.sha256(search_index.SPACED_SQL.encode()).hexdigest()
    assert (search_index.NAME, digest) == (
        "agent_message_text",
        "c60a3a1a87d9618fb3f9984459d443ca14b8443041876c0c674ad651bd0983ee",
    )


@pytest.mark.parametrize("tenant", ["first", "second"])
def test_the_index_of_each_schema_is_made_and_extensions_stay_in_public(tenant):
    with connection.cursor() as cursor:
        cursor.execute("DROP EXTENSION pg_trgm, btree_gin CASCADE")
        for name in ("first", "second"):
            cursor.execute(f"CREATE SCHEMA {name}")
            cursor.execute(
                f"CREATE TABLE {name}.agent_sessions_message (LIKE public.agent_sessions_message)"
            )
            cursor.execute(f"SET LOCAL search_path TO {name}, public")
            search_index.create_if_possible(None, SimpleNamespace(connection=connection))
        cursor.execute(f"SET LOCAL search_path TO {tenant}")
        assert not search_index.is_missing(connection)
        cursor.execute("DROP SCHEMA first CASCADE")
        cursor.execute("SET LOCAL search_path TO second")
        assert not search_index.is_missing(connection)
        cursor.execute("SET LOCAL search_path TO public")
