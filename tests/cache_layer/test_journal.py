from __future__ import annotations

from cache_layer.journal import Journal
from cache_layer.keyspace import Keyspace


def keyspace(prefix: str) -> Keyspace:
    found = Keyspace.of(lambda key, prefix, version: f"{prefix}:{version}:{key}", prefix, 1)
    assert found is not None
    return found


APP, OTHER = keyspace("app"), keyspace("other")


def test_everything_is_remembered_once() -> None:
    journal = Journal(lambda: 10)
    for _ in range(20):
        journal.add_key("app:1:k", APP)
        journal.add_pattern("app:1:u*", APP)
    entries = journal.take()
    assert (list(entries.keys), list(entries.patterns)) == (["app:1:k"], ["app:1:u*"])
    assert len(journal) == 0


def test_beyond_the_limit_whole_scopes_are_remembered() -> None:
    journal = Journal(lambda: 3)
    journal.add_key("other:1:k", OTHER)
    for number in range(100):
        journal.add_key(f"app:1:{number}", APP)
        assert len(journal) <= 4
    entries = journal.take()
    assert entries.scopes == {APP, OTHER}
    assert not entries.keys


def test_keys_that_no_scope_covers_are_never_forgotten() -> None:
    journal = Journal(lambda: 3)
    for number in range(10):
        journal.add_key(f"digest{number}", None)
    journal.add_key("app:1:k", APP)
    assert len(journal.take().keys) == 10


def test_a_clear_makes_what_it_covers_superfluous() -> None:
    journal = Journal(lambda: 10)
    journal.add_key("app:1:k", APP)
    journal.add_key("other:1:k", OTHER)
    journal.add_keyspace(APP)
    journal.add_key("app:1:l", APP)
    journal.add_pattern("app:1:*", APP)
    entries = journal.take()
    assert entries.scopes == {APP}
    assert list(entries.keys) == ["other:1:k"]
    assert not entries.patterns


def test_what_could_not_be_replayed_is_remembered_beside_what_came_since() -> None:
    journal = Journal(lambda: 10)
    journal.add_key("app:1:k", APP)
    journal.add_pattern("app:1:u*", APP)
    journal.add_keyspace(OTHER)
    taken = journal.take()
    journal.add_key("app:1:new", APP)
    journal.give_back(taken)
    entries = journal.take()
    assert set(entries.keys) == {"app:1:k", "app:1:new"}
    assert set(entries.patterns) == {"app:1:u*"}
    assert entries.scopes == {OTHER}


def test_a_scope_owns_its_keys_of_all_versions_and_no_others() -> None:
    assert APP.owns(b"app:1:k")
    assert APP.owns(b"app:-12:k:l\nm")
    assert not APP.owns(b"app:sessions:1:k")
    assert not APP.owns(b"app2:1:k")
    assert not APP.owns(b"xapp:1:k")
    assert APP.pattern == "app:*:*"
    assert keyspace("a*[b]").pattern == r"a\*\[b\]:*:*"
