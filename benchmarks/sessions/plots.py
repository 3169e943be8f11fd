"""The plots of docs/benchmarks."""

from __future__ import annotations

from pathlib import Path

from benchmarks.plots import bars, curves
from benchmarks.report import Table

BARS = (
    ("append", "ratio", "sessions-append", "Append one message: ratio to raw psycopg", True),
    ("batch", "ratio", "sessions-batch", "Append 100 messages: ratio to raw psycopg", True),
    ("distinct", "messages/s", "sessions-processes", "Eight processes: messages a second", False),
)
CURVES = (
    ("append-length", "sessions-append-length", "Append one, by length", "messages"),
    ("last-length", "sessions-last-length", "The last 50, by length", "messages"),
    ("size", "sessions-size", "By size of the table", "sessions in the table"),
)


def draw(tables: list[Table]) -> list[Path]:
    found = {table.name: table for table in tables}
    paths = [
        bars(found[name].column(column), file, title, logarithmic=logarithmic)
        for name, column, file, title, logarithmic in BARS
        if name in found
    ]
    for name, file, title, across in CURVES:
        if table := found.get(name):
            xs = [float(column.replace(",", "")) for column in table.columns[:-1]]
            lines = {
                row: [cell if isinstance(cell, int | float) else None for cell in cells[:-1]]
                for row, cells in table.rows.items()
            }
            paths.append(curves(xs, lines, file, title, across=across, up="ms"))
    return paths
