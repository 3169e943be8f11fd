from __future__ import annotations

from tests.model.history import Invalidated, Read, stale_reads


def test_a_read_that_began_after_an_invalidation_must_not_find_what_was_before() -> None:
    late = Read("k", 1, began=3.0)
    assert stale_reads([late, Invalidated("k", 2, ended=2.0)]) == [(late, 2)]


def test_a_read_that_began_before_the_invalidation_had_ended_may_find_either() -> None:
    changed = Invalidated("k", 2, ended=2.0)
    assert stale_reads([changed, Read("k", 1, began=1.0), Read("k", 2, began=1.0)]) == []
    assert stale_reads([changed, Read("k", 1, began=2.0)]) == []


def test_a_read_that_finds_nothing_is_never_stale() -> None:
    assert stale_reads([Invalidated("k", 2, ended=1.0), Read("k", None, began=2.0)]) == []


def test_keys_have_nothing_to_do_with_each_other() -> None:
    assert stale_reads([Invalidated("k", 2, ended=1.0), Read("other", 1, began=2.0)]) == []


def test_the_newest_invalidation_counts() -> None:
    read = Read("k", 2, began=9.0)
    changes = [Invalidated("k", version, ended=version) for version in (1, 2, 3)]
    assert stale_reads([*changes, read]) == [(read, 3)]
