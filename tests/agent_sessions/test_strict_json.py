"""JSON of requests and files is refused in a time that follows its size."""

from __future__ import annotations

import json

import pytest

from agent_sessions.strict_json import _object, parse_json


class Counted(str):
    __slots__ = ()
    comparisons = 0

    def __eq__(self, other: object) -> bool:
        Counted.comparisons += 1
        return str.__eq__(self, other)

    __hash__ = str.__hash__


def test_a_key_that_is_there_twice_is_named() -> None:
    with pytest.raises(ValueError, match="the key 'b' twice"):
        parse_json(b'{"a": 1, "b": 2, "c": 3, "b": 4}', 100)
    assert parse_json(json.dumps({"a": {"a": 1}}).encode(), 100) == {"a": {"a": 1}}


def test_a_repeated_key_behind_many_others_is_found_in_one_pass() -> None:
    names = [Counted(number) for number in [*range(1_000), 999]]
    with pytest.raises(ValueError, match="twice"):
        _object([(name, None) for name in names])
    assert Counted.comparisons < 10 * len(names)
