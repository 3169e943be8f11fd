"""The plots of docs/benchmarks."""

from __future__ import annotations

from pathlib import Path

from benchmarks.plots import bars
from benchmarks.report import Table

#: Table, column, file, title; on a logarithmic scale?
PLOTS = (
    ("get", "CPU ratio", "cache-get-cpu", "get: CPU, as a ratio to redis-py's GET", False),
    ("hit", "CPU ratio", "cache-hit-cpu", "A cached function's hit: CPU, ratio to GET", False),
    ("near-hit", "median µs", "cache-near-hit", "A hit in the process: µs", True),
    ("concurrent", "median ms", "cache-concurrent", "100 concurrent gets: ms", True),
    ("invalidation-1000000", "median ms", "cache-drop", "Drop 1,000 among 1,000,000: ms", True),
    ("hung", "next calls, median ms", "cache-hung", "Redis hung: ms a call", True),
)


def draw(tables: list[Table]) -> list[Path]:
    found = {table.name: table for table in tables}
    return [
        bars(found[name].column(column), file, title, logarithmic=logarithmic)
        for name, column, file, title, logarithmic in PLOTS
        if name in found
    ]
