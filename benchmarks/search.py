"""Search of one user's sessions among all users' messages, on PostgreSQL and on SQLite.

    python -m benchmarks.search [--messages 1000000] [--explain needle the]
    python -m benchmarks.search --sqlite [--messages 300000]

DATABASE_URL names the PostgreSQL server; the benchmark makes a database of its own there and
drops it. Texts are pieces of Python's own documentation, with Chinese, Japanese and Arabic ones
of drawn characters; one user has 100,000 messages, another has 1,000.
"""

from __future__ import annotations

import argparse
import itertools
import os
import random
import re
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

from tqdm import tqdm

PER_SESSION = 10
OPEN_AT_ONCE = 1_000
ENGLISH = re.sub(r"\s+", " ", " ".join(topics.values()))
KANA = "".join(map(chr, range(0x3042, 0x3094)))
ARABIC = "ابتثجحخدذرزسشصضطظعغفقكلمنهويأإةى"
TERMS = {
    "a common word": "the",
    "a word": "generator",
    "a rare word": "needle",
    "no word at all": "xylophone",
    "the beginning of a word": "gener",
    "the inside of a word": "terat",
    "a rare inside": "eedl",
    "two words": "class instance",
    "two letters, beginning of a word": "py",
    "two letters, inside of a word": "yt",
    "two letters that never occur": "qz",
    "one letter": "x",
    "a common Chinese character": "\u4e00",
    "two Chinese characters": "\u4e00\u4e01",
    "a rare Chinese character": "\u5780",
    "a Japanese word": "\u306e\u3042",
    "an Arabic word": "\u0633\u0644\u0627\u0645",
    "signs": "__",
}


class Texts:
    """Texts of many lengths (median 150 characters), a rare word in one of 10,000."""

    def __init__(self) -> None:
        self.random = random.Random(7)
        self.han = [chr(0x4E00 + number) for number in range(3_000)]
        self.arabic = ["".join(self.random.choices(ARABIC, k=2 + n % 6)) for n in range(5_000)]
        self.zipf = [1 / (rank + 3) for rank in range(5_000)]

    def __call__(self, number: int, language: str) -> str:
        length = min(4_000, int(self.random.lognormvariate(5.0, 0.9))) + 10
        draw = self.random.choices
        if language == "english":
            start = self.random.randrange(len(ENGLISH) - length)
            text = ENGLISH[start : start + length].partition(" ")[2]
        elif language == "chinese":
            drawn = draw(self.han, self.zipf[:3_000], k=length // 3)
            text = "\uff0c".join("".join(clause) for clause in itertools.batched(drawn, 9))
        elif language == "japanese":
            pairs = zip(draw(self.han, self.zipf[:3_000], k=length // 4), draw(KANA, k=length // 4))
            text = "".join(itertools.chain.from_iterable(pairs))
        else:
            text = " ".join(draw(self.arabic, self.zipf, k=length // 6 + 1))
        return f"{text} ref{number}{' needle' if number % 10_000 == 17 else ''}"
