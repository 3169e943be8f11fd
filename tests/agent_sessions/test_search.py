from __future__ import annotations

from typing import Any

import pytest
from django.db.models import Value

from agent_sessions.models import Message, Session
from agent_sessions.repository import search

pytestmark = pytest.mark.django_db


@pytest.fixture
def say(repository: Any) -> Any:
    def say(session: Session, *texts: str) -> None:
        repository.add_messages(session.id, [{"role": "user", "content": t} for t in texts])

    return say


@pytest.fixture(params=["few messages match", "many do"])
def each_way(request, monkeypatch):
    if request.param == "many do":
        monkeypatch.setattr(search, "_FEW_FOUND", -1)


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


@pytest.mark.usefixtures("each_way")
def test_what_is_another_users_is_not_found_whatever_messages_say(
    repository, session, other_user, say
):
    say(session, "secret")
    Message.objects.update(user_id=other_user.pk)
    assert repository.search_sessions(other_user, "secret") == []


@pytest.mark.usefixtures("each_way")
def test_words_rank_before_prefixes_and_titles_before_messages(repository, make_session, say):
    names = ["part", "prefix", "word", "title part", "title prefix", "title word", "newer word"]
    titles = {"title part": "Recatching", "title prefix": "Catching up", "title word": "A cat"}
    made = {name: make_session(title=titles.get(name, name)) for name in names}
    say(made["part"], "concatenated")
    say(made["prefix"], "catalogue", "concatenated")
    say(made["word"], "the cat sat", "cat", "cat-like")
    say(made["newer word"], "my Cat.")
    say(make_session(title="none"), "dog")
    expected = [
        made[name]
        for name in (
            "title word",
            "newer word",
            "word",
            "title prefix",
            "prefix",
            "title part",
            "part",
        )
    ]
    user_id = made["part"].user_id
    assert repository.search_sessions(user_id, "cat") == expected
    for limit in range(1, len(expected)):
        assert repository.search_sessions(user_id, "CAT", limit) == expected[:limit]


@pytest.mark.usefixtures("each_way")
def test_ranking_of_several_words(repository, make_session, say):
    exact, scattered = (
        make_session(title=t) for t in ("A python script", "Script that Python runs")
    )
    older, newer, prefix = (make_session(title=t) for t in "abc")
    say(prefix, "pythonic scripts", "script")
    say(older, "a script in python")
    say(newer, "python script")
    scattered_later = make_session(title="Scripts of python")
    expected = [exact, scattered, newer, older, scattered_later, prefix]
    for limit in range(1, len(expected) + 1):
        found = repository.search_sessions(older.user_id, "python script", limit)
        assert found == expected[:limit]


@pytest.mark.usefixtures("each_way")
def test_places_in_code_and_addresses_are_words(repository, make_session, say):
    texts = [
        "see src/loop/main.py",
        "mail ada@loop.org",
        "max_loop=3",
        "<loop>",
        "v1.loop-2",
        "loop",
    ]
    sessions = [make_session(title=str(n)) for n in range(len(texts))]
    say(make_session(title="prefix"), "loops")
    for session, text in zip(sessions, texts, strict=True):
        say(session, text)
    prefix = make_session(title="later")
    say(prefix, "looping")
    found = repository.search_sessions(prefix.user_id, "loop")
    assert found[: len(texts)] == sessions[::-1]


@pytest.mark.usefixtures("each_way")
def test_terms_that_end_with_a_sign_are_words_by_themselves(repository, make_session, say):
    alone, followed = make_session(), make_session()
    say(alone, "I like c++ and c#")
    say(followed, "I like c++20 and c#13")
    for term in ("c++", "c#"):
        assert repository.search_sessions(alone.user_id, term) == [followed, alone]
    assert repository.search_sessions(alone.user_id, "like c") == [followed, alone]


@pytest.mark.parametrize(
    ("stored", "term"),
    [
        ("caf\u00e9", "cafe\u0301"),
        ("cafe\u0301", "caf\u00e9"),
        ("\u304c\u3063\u3053\u3046", "\u304b\u3099\u3063\u3053\u3046"),
        ("django", "\uff44\uff4a\uff41\uff4e\uff47\uff4f"),
        ("\u30c6\u30b9\u30c8", "\uff83\uff7d\uff84"),
        ("أَنَا هُنَا", "انا"),
        ("انا هنا", "أنا"),
        ("إلى المدرسة", "الي"),
        ("إلى المدرسة", "المدرسه"),
        ("ســـلام", "سلام"),
        ("سلام", "ســلام"),
    ],
)
def test_spellings_that_are_taken_for_the_same(repository, make_session, say, stored, term):
    session, titled = make_session(title="x"), make_session(title=stored)
    say(session, f"one, {stored}")
    found = repository.search_sessions(session.user_id, term)
    assert set(found) == {session, titled}
    excerpt = found[found.index(session)].excerpts[0]
    assert [segment.is_match for segment in excerpt.segments].count(True) == 1
    assert set(Session.objects.for_user(session.user_id).search(term)) == {session, titled}


@pytest.mark.parametrize(
    ("stored", "term"),
    [("cafe", "caf\u00e9"), ("2", "\u00b2"), ("\uff41", "a"), ("strasse", "straße")],
)
def test_spellings_that_are_not(repository, session, say, stored, term):
    say(session, stored)
    assert repository.search_sessions(session.user_id, term) == []


def test_scripts_without_spaces_have_no_better_and_worse_places(repository, make_session, say):
    alone, inside, titled = (make_session(title=t) for t in ("x", "y", "说你好吗"))
    say(alone, "你好")
    say(inside, "朋友你好世界")
    assert repository.search_sessions(alone.user_id, "你好") == [titled, inside, alone]
    assert repository.search_sessions(alone.user_id, "你") == [titled, inside, alone]


class TestExcerpts:
    def test_show_where_the_words_are(self, repository, session, say):
        say(session, "nothing", "I said: Red <b>apples</b> & pears", "a red apple", "apple, red")
        [found] = repository.search_sessions(session.user_id, "apple red", excerpts=2)
        assert [(e.sequence, e.role, e.text) for e in found.excerpts] == [
            (3, "user", "a red apple"),
            (4, "user", "apple, red"),
        ]
        assert found.excerpts[0].matches == ((2, 5), (6, 11))
        assert found.excerpts[0].segments == [
            ("a ", False),
            ("red", True),
            (" ", False),
            ("apple", True),
        ]
        assert not found.excerpts[0].begins_inside
        assert not found.excerpts[0].ends_inside

    def test_are_cut_between_words(self, repository, session, say):
        say(session, "before " * 9_000 + "the needle itself" + " behind" * 9_000)
        [found] = repository.search_sessions(session.user_id, "NEEDLE")
        [excerpt] = found.excerpts
        assert len(excerpt.text) <= 200
        assert set(excerpt.text.split()) == {"before", "the", "needle", "itself", "behind"}
        assert [excerpt.text[start:end] for start, end in excerpt.matches] == ["needle"]
        assert "".join(segment.text for segment in excerpt.segments) == excerpt.text
        assert excerpt.begins_inside
        assert excerpt.ends_inside

    def test_of_other_scripts_deep_in_a_text(self, repository, session, say):
        say(session, "🙂" * 30_000 + "ПРИВЕТ" + "🙂" * 30_000)
        [found] = repository.search_sessions(session.user_id, "привет")
        [excerpt] = found.excerpts
        assert [excerpt.text[start:end] for start, end in excerpt.matches] == ["ПРИВЕТ"]

    def test_take_one_query_for_all(self, repository, make_session, say, django_assert_num_queries):
        for number in range(20):
            say(make_session(title=str(number)), "kittens", "more kittens")
        user_id = make_session().user_id
        with django_assert_num_queries(2):
            found = repository.search_sessions(user_id, "kittens")
            assert [len(each.excerpts) for each in found] == [2] * 20
        with django_assert_num_queries(1):
            found = repository.search_sessions(user_id, "kittens", excerpts=0)
            assert {each.excerpts for each in found} == {()}

    def test_of_more_sessions_than_one_statement_holds(self, repository, make_session, say):
        for number in range(120):
            say(make_session(title=str(number)), "kittens")
        found = repository.search_sessions(make_session().user_id, "kittens", limit=1_000)
        assert [each.excerpts[0].text for each in found] == ["kittens"] * 120

    def test_of_a_title_that_was_found_are_of_messages(self, repository, make_session, say):
        titled = make_session(title="kittens")
        bare = make_session(title="my kittens")
        say(titled, "puppies", "Look, Kittens")
        found = repository.search_sessions(titled.user_id, "kittens")
        assert found == [titled, bare]
        assert [e.sequence for e in found[0].excerpts] == [2]
        assert found[1].excerpts == ()

    def test_are_those_of_the_first_three_messages(self, repository, session, say):
        say(session, "dog", *["cat"] * 4)
        [found] = repository.search_sessions(session.user_id, "cat")
        assert [excerpt.sequence for excerpt in found.excerpts] == [2, 3, 4]

    def test_number_of_excerpts_is_checked(self, repository, session):
        with pytest.raises(ValueError, match="at least 0"):
            repository.search_sessions(session.user_id, "x", excerpts=-1)


def test_four_megabytes_are_searchable_to_their_end(repository, session, say):
    say(session, "one two " * 500_000 + "needle", "ä " * 40_000 + "x" * 5_000 + " häystack")
    [found] = repository.search_sessions(session.user_id, "needle")
    [excerpt] = found.excerpts
    assert excerpt.text.endswith("two needle")
    assert not excerpt.ends_inside
    assert repository.search_sessions(session.user_id, "HÄYSTACK") == [session]


def test_any_term_is_answered(repository, session, say):
    say(session, "a:b & c | 'd' \\ <e> %f% _g_ (h)* é\u0301 ئ")
    terms = (
        "' '' a:b :* & | ! a&b <-> \\ \\' % _ ( [ * é é ́ ـ ئ ***:a (?i)a 🙂 1e5 -5 x:AB Ⅷ ß İ ǆ "
        "ﬁ ﷺ ٣ ² ½ क्षि แม่ ・ 々 ䷀ ｶﾞ \x1f \x01 3abc x² a_ 你a 你_好"
    )
    for term in (*terms.split(" "), "a & b", "a" * 600, "b " * 40, "\u2028", terms):
        found = repository.search_sessions(session.user_id, term)
        assert found in ([], [session]), term
        assert list(Session.objects.for_user(session.user_id).search(term)) == found, term


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


def test_search_composes_with_other_querysets(make_session):
    found = make_session(title="python a")
    make_session(title="python b", status="archived")
    query = Session.objects.for_user(found.user).active().search("python").newest_first()
    assert list(query) == [found]


def test_the_newest_messages_can_be_enough(session, make_session, say):
    later, titled = make_session(), make_session(title="kittens")
    say(session, "kittens", "kittens")
    say(later, "kittens", "kittens")
    assert set(Session.objects.search("kitten", newest=2)) == {later, titled}
    assert set(Session.objects.search("kitten", newest=3)) == {session, later, titled}


def test_sessions_of_two_users_compose(session, make_session, other_user, say):
    theirs = make_session(user=other_user)
    say(session, "kittens")
    say(theirs, "kittens")
    both = Session.objects.for_user(session.user) | Session.objects.for_user(other_user)
    assert set(both.search("kitten")) == {session, theirs}
    either = Session.objects.for_user(session.user) ^ Session.objects.for_user(other_user)
    assert set(either.search("kitten")) == {session, theirs}
    assert set(Session.objects.search("kitten")) == {session, theirs}
