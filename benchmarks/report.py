"""Tables of results, as Markdown and as JSON."""

from __future__ import annotations

import json
import os
import platform
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from benchmarks.measure import Failed, Result

Cell = float | str | None
UNITS = {"s": 1.0, "ms": 1e3, "µs": 1e6}
DOCS = Path(__file__).parent.parent / "docs" / "benchmarks.md"


@dataclass
class Table:
    """The results of one subject, a row for each contestant. Plots and tools use ``name``."""

    title: str
    columns: list[str]
    rows: dict[str, list[Cell]] = field(default_factory=dict)
    note: str = ""
    name: str = ""

    def markdown(self, level: int = 3) -> str:
        lines = [f"\n{'#' * level} {self.title}\n"]
        if self.note:
            lines.append(f"{self.note}\n")
        lines.append("| | " + " | ".join(self.columns) + " |")
        lines.append("|---" * (len(self.columns) + 1) + "|")
        for row, cells in self.rows.items():
            cells = [*cells, *[None] * (len(self.columns) - len(cells))]
            lines.append(f"| {row} | " + " | ".join(map(show, cells)) + " |")
        return "\n".join(lines)

    def column(self, name: str) -> dict[str, float]:
        """Return the numbers of one column by row, without rows that failed."""
        index = self.columns.index(name)
        return {
            row: cells[index]
            for row, cells in self.rows.items()
            if len(cells) > index and isinstance(cells[index], int | float)
        }


def show(cell: Cell) -> str:
    if cell is None:
        return ""
    if isinstance(cell, str):
        return cell.replace("|", "/")
    if isinstance(cell, int) or abs(cell) >= 100:
        return f"{cell:,.0f}"
    return (
        f"{cell:.1f}" if abs(cell) >= 10 else f"{cell:.2f}" if abs(cell) >= 0.1 else f"{cell:.3f}"
    )


def timings(
    title: str,
    results: Mapping[str, Result | Failed],
    *,
    floor: str,
    unit: str = "µs",
    name: str = "",
    note: str = "",
    cpu_base: float | None = None,
) -> Table:
    """Return a table of times, with ratios to the row *floor* (CPU: *cpu_base* if given)."""
    scale = UNITS[unit]
    made = Table(
        title,
        [f"median {unit}", f"p99 {unit}", f"CPU {unit}", "ratio", "CPU ratio"],
        note=note,
        name=name,
    )
    base = results.get(floor)
    for row, result in results.items():
        if isinstance(result, Failed):
            made.rows[row] = [f"failed: {result.reason}"]
            continue
        cells: list[Cell] = [result.median * scale, result.p99 * scale, result.cpu * scale]
        if isinstance(base, Result):
            cells += [result.median / base.median, result.cpu / (cpu_base or base.cpu)]
        made.rows[row] = cells
    return made


@dataclass
class Report:
    """The tables of one run, and the versions and machine it ran on."""

    subject: str
    packages: Iterable[str]
    options: dict[str, Any]
    server: str = ""
    tables: list[Table] = field(default_factory=list)
    load: float = field(default_factory=lambda: os.getloadavg()[0])

    def add(self, *tables: Table) -> None:
        """Add tables and print them at once, so that a long run shows its progress."""
        for made in tables:
            self.tables.append(made)
            print(made.markdown(), flush=True)

    def conditions(self) -> str:
        python = platform.python_version()
        found = ", ".join(f"{name} {number}" for name, number in self.versions().items())
        # The load of the machine shows how far the figures can be trusted.
        load = f"load {self.load:.1f} before the run"
        return f"{os.cpu_count()} cores ({load}), {self.server}, Python {python}; {found}."

    def versions(self) -> dict[str, str]:
        found = {}
        for package in self.packages:
            try:
                found[package] = version(package)
            except PackageNotFoundError:
                found[package] = "not installed"
        return found

    def write_json(self, path: Path) -> None:
        content = {
            "subject": self.subject,
            "conditions": self.conditions(),
            "versions": self.versions(),
            "options": self.options,
            "tables": [asdict(made) for made in self.tables],
        }
        path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n")

    def write_docs(self, plots: Iterable[Path]) -> None:
        """Write the tables and plots between this subject's marks in docs/benchmarks.md."""
        images = [f"![{path.stem.replace('-', ' ')}](benchmarks/{path.name})" for path in plots]
        content = [f"Measured on {self.conditions()}", "", *images]
        content += [made.markdown() for made in self.tables]
        begin, end = f"<!-- {self.subject}: begin -->", f"<!-- {self.subject}: end -->"
        text = DOCS.read_text()
        marks = re.compile(f"{re.escape(begin)}.*{re.escape(end)}", re.DOTALL)
        if not marks.search(text):
            raise ValueError(f"{DOCS} has no marks {begin} and {end}.")
        body = "\n".join(content)
        DOCS.write_text(marks.sub(lambda _: f"{begin}\n{body}\n{end}", text))
