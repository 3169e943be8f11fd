from __future__ import annotations

from cache_layer.journal import MAX_PATTERNS, Changes, Journal
from cache_layer.keyspace import Keyspace


def keyspace(prefix: str) -> Keyspace:
    found = Keyspace.of(lambda key, prefix, version: f"{prefix}:{version}:{key}", prefix, 1)
    assert found is not None
    return found


APP, OTHER = keyspace("app"), keyspace("other")
EVERYTHING = Changes(everything=True)


def test_a_key_and_a_pattern_are_remembered_once() -> None:
    journal = Journal(lambda: 10)
    assert not journal
    for _ in range(20):
        journal.add_key("app:1:k", APP)
        journal.add_pattern("app:1:u*", APP)
    assert journal
    assert journal.take() == {APP: Changes({"app:1:k"}, {"app:1:u*"})}
    assert not journal


def test_a_journal_beyond_its_limit_remembers_whole_keyspaces() -> None:
    journal = Journal(lambda: 3)
    journal.add_key("other:1:k", OTHER)
    for number in range(100):
        journal.add_key(f"app:1:{number}", APP)
    assert journal.take() == {APP: EVERYTHING, OTHER: EVERYTHING}
    # It begins anew.
    for number in range(3):
        journal.add_key(f"app:1:{number}", APP)
    assert len(journal.take()[APP].keys) == 3


def test_patterns_that_begin_differently_are_remembered_one_by_one() -> None:
    journal = Journal(lambda: 1000)
    for number in range(900):
        journal.add_pattern(f"app:1:{number}:*", APP)
    assert len(journal) == 900
    assert len(journal.take()[APP].patterns) == 900
    for number in range(1001):
        journal.add_pattern(f"app:1:{number}:*", APP)
    assert journal.take() == {APP: EVERYTHING}


def test_many_patterns_that_begin_alike_become_one() -> None:
    journal = Journal(lambda: 10_000)
    journal.add_pattern("app:1:v:*", APP)
    for number in range(MAX_PATTERNS + 50):
        journal.add_pattern(f"app:1:user[*]*:{number}", APP)
        journal.add_pattern(f"app:1:\\**{number}", APP)
    assert len(journal) == 3
    assert journal.take() == {APP: Changes(set(), {"app:1:v:*", "app:1:user*", "app:1:\\**"})}
    # Then the count is right, too.
    for number in range(9_999):
        journal.add_key(f"app:1:{number}", APP)
    assert len(journal) == 9_999


def test_many_patterns_of_any_beginning_become_the_whole_keyspace() -> None:
    journal = Journal(lambda: 10_000)
    journal.add_pattern("other:1:*", OTHER)
    for number in range(MAX_PATTERNS + 1):
        journal.add_pattern(f"app:*:{number}", APP)
    assert journal.take() == {APP: EVERYTHING, OTHER: Changes(set(), {"other:1:*"})}


def test_keys_of_no_keyspace_are_never_forgotten() -> None:
    journal = Journal(lambda: 3)
    for number in range(10):
        journal.add_key(f"digest{number}", None)
    journal.add_key("app:1:k", APP)
    entries = journal.take()
    assert len(entries[None].keys) == 10
    assert entries[APP] == Changes({"app:1:k"})


def test_a_clear_makes_what_it_covers_superfluous() -> None:
    journal = Journal(lambda: 10)
    journal.add_key("app:1:k", APP)
    journal.add_key("other:1:k", OTHER)
    journal.add_keyspace(APP)
    journal.add_key("app:1:l", APP)
    journal.add_pattern("app:1:*", APP)
    assert journal.take() == {APP: EVERYTHING, OTHER: Changes({"other:1:k"})}


def test_what_was_not_replayed_is_remembered_beside_what_came_since() -> None:
    journal = Journal(lambda: 10)
    journal.add_key("app:1:k", APP)
    journal.add_pattern("app:1:u*", APP)
    journal.add_keyspace(OTHER)
    taken = journal.take()
    journal.add_key("app:1:new", APP)
    journal.give_back(taken)
    assert journal.take() == {
        APP: Changes({"app:1:k", "app:1:new"}, {"app:1:u*"}),
        OTHER: EVERYTHING,
    }


def test_a_keyspace_owns_its_keys_of_all_versions_and_no_others() -> None:
    mine = [b"app:1:k", b"app:-12:k:l\nm"]
    others = [b"app:sessions:1:k", b"app2:1:k", b"xapp:1:k"]
    assert APP.owned([*others, *mine]) == mine
    assert APP.pattern == "app:*:*"
    assert keyspace("a*[b]").pattern == r"a\*\[b\]:*:*"
