from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_sessions.search.excerpts import LENGTH, Highlighter

FAMILY = "👨‍👩‍👧‍👦"
UNITS = ["a", "B", " ", "\n", "é", "e\u0301", "你", "🇩🇪", FAMILY, "ä", "-"]
TEXTS = st.lists(st.sampled_from(UNITS)).map("".join)


@given(text=TEXTS.map(lambda text: text * 40), words=st.lists(TEXTS.filter(str.strip), min_size=1))
def test_a_piece_is_short_and_holds_a_match_if_there_is_one(text: str, words: list[str]) -> None:
    words = [word for each in words for word in each.split()]
    piece = Highlighter(words).piece(text)
    assert 0 <= piece.start <= piece.end <= len(text)
    assert piece.end - piece.start <= LENGTH
    ends = [place for match in piece.matches for place in match]
    assert ends == sorted(ends)
    assert all(0 <= place <= piece.end - piece.start for place in ends)
    assert all(start < end for start, end in piece.matches)
    if any(word in text for word in words):
        assert piece.matches


@pytest.mark.parametrize("unit", [FAMILY, "🇩🇪", "e\u0301", "👍🏽", "กี่"])
def test_what_looks_like_one_character_is_not_cut(unit: str) -> None:
    for before in range(8):
        text = "x" * before + unit * 300 + "needle" + unit * 300
        piece = Highlighter(["needle"]).piece(text)
        shown = text[piece.start : piece.end]
        assert shown.replace(unit, "") == "needle"


def test_the_piece_with_most_words_is_chosen() -> None:
    filler = "lorem ipsum " * 40
    text = f"red {filler} redapple {filler} an apple, quite red {filler} red red red"
    piece = Highlighter(["red", "apple"]).piece(text)
    assert "an apple, quite red" in text[piece.start : piece.end]
    assert len(piece.matches) == 2


def test_the_signs_of_a_letter_belong_to_the_match() -> None:
    text = unicodedata.normalize("NFD", "café")
    assert Highlighter(["cafe"]).piece(text).matches == ((0, 5),)


def test_a_text_without_the_words_shows_its_beginning() -> None:
    piece = Highlighter(["needle"]).piece("one two " * 100)
    assert piece.start == 0
    assert piece.matches == ()
    assert ("one two " * 100)[: piece.end].endswith("two")
