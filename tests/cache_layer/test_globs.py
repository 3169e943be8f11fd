from __future__ import annotations

import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cache_layer.globs import escape_glob, glob_match

ALPHABET = "ab-[]^*?\\!x"


@pytest.mark.parametrize(
    ("pattern", "yes", "no"),
    [
        ("users:*", ["users:", "users:1", "users:1\n2"], ["users", "users2:1"]),
        ("h?llo", ["hello", "hällo"], ["hllo", "heello"]),
        ("h[ae]llo", ["hallo", "hello"], ["hillo"]),
        ("h[^e]llo", ["hallo"], ["hello", "hllo"]),
        ("h[a-c]llo", ["hbllo"], ["hdllo"]),
        ("h[c-a]llo", ["hbllo"], ["hdllo"]),
        (r"h\*llo", ["h*llo"], ["hello"]),
        (r"[\]]", ["]"], ["\\", "\\]"]),
        ("", [""], ["a"]),
        (".+", [".+"], ["ab"]),
    ],
)
def test_patterns_match_what_redis_matches(pattern: str, yes: list[str], no: list[str]) -> None:
    assert [text for text in yes if not glob_match(pattern, text)] == []
    assert [text for text in no if glob_match(pattern, text)] == []


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        ("*a" * 6 + "b", "a" * 2_000),
        ("*a" * 30 + "*b", "a" * 2_000),
        ("*?" * 20 + "b*c", "ab" * 1_000),
        ("*[a-z]x" * 12, "ax" * 1_000 + "y"),
    ],
)
def test_many_stars_do_not_take_exponential_time(pattern: str, text: str) -> None:
    # The time of trying all places in turn would be beyond any limit of the suite.
    assert not glob_match(pattern, text)


def test_what_stands_between_stars_is_found_at_its_first_place() -> None:
    assert glob_match("*ab*b", "abab")
    assert glob_match("*ab*ab", "abab")
    assert not glob_match("*ab*ab*ab", "abab")
    assert glob_match("a*a", "aa")
    assert not glob_match("a*a", "a")


@given(st.text(), st.text())
def test_an_escaped_text_matches_itself_alone(text: str, other: str) -> None:
    assert glob_match(escape_glob(text), text)
    assert glob_match(escape_glob(text), other) == (text == other)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    pattern=st.text(ALPHABET, max_size=8),
    keys=st.lists(st.text(ALPHABET, min_size=1, max_size=4), max_size=12, unique=True),
)
def test_memory_reads_patterns_as_redis_does(redis_url: str, pattern: str, keys: list[str]) -> None:
    with redis.Redis.from_url(redis_url, decode_responses=True) as client:
        client.flushdb()
        if keys:
            client.mset(dict.fromkeys(keys, "1"))
        matched = set(client.keys(pattern))
    assert {key for key in keys if glob_match(pattern, key)} == matched
