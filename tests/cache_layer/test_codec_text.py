from __future__ import annotations

import msgpack
import pytest

from cache_layer.codec import SafeSerializer


@pytest.mark.parametrize("size", [0, 1, 31, 32, 33, 255, 256, 257, 65_535, 65_536, 65_537])
@pytest.mark.parametrize("letter", ["a", "é", "\U0001f600"])
def test_text_of_every_length_is_msgpack(size: int, letter: str) -> None:
    length = len(letter.encode())
    text = letter * (size // length) + "a" * (size % length)
    data = SafeSerializer().dumps(text)
    assert data[:1] == b"\x01"
    assert data[1:] == msgpack.packb(text)
    assert SafeSerializer().loads(data) == text


def test_text_with_lone_surrogates_survives() -> None:
    text = "a" * 100 + "\ud800"
    assert SafeSerializer().loads(SafeSerializer().dumps(text)) == text


def test_a_subclass_of_str_is_no_text() -> None:
    class Name(str):
        __slots__ = ()

    with pytest.raises(TypeError, match="Name"):
        SafeSerializer().dumps(Name("x" * 100))
