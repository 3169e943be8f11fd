"""Many patterns select what each of them would."""

from __future__ import annotations

import random

import pytest

from cache_layer.backends.operations.base import raw
from cache_layer.backends.operations.patterns import KeyPatterns
from cache_layer.globs import glob_match

LETTERS = "ab:\u00e9\n"


def pattern(chance: random.Random) -> str:
    pieces = [*LETTERS, "*", "?", "[ab]", "[^b]", "\\*", "\\"]
    return "a" * chance.randrange(3) + "".join(chance.choices(pieces, k=chance.randrange(6)))


@pytest.mark.parametrize("seed", range(200))
def test_the_selection_is_that_of_each_pattern(seed: int) -> None:
    chance = random.Random(seed)
    patterns = [pattern(chance) for _ in range(chance.randrange(1, 20))]
    keys = {"".join(chance.choices(f"{LETTERS}*", k=chance.randrange(7))) for _ in range(200)}
    # Redis compares bytes.
    texts = {raw(key).decode("latin-1"): key for key in keys}
    globs = [raw(each).decode("latin-1") for each in patterns]
    wanted = {key for text, key in texts.items() if any(glob_match(g, text) for g in globs)}
    selection = KeyPatterns(patterns)
    found = selection.matching([raw(key) for key in keys])
    assert sorted(found) == sorted(map(raw, wanted))
    common = raw(selection.common).decode("latin-1")
    assert all(glob_match(common, raw(key).decode("latin-1")) for key in wanted)
