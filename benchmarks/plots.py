"""Bars and curves as small SVG files beside the documentation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.report import DOCS

FOLDER = DOCS.parent / "benchmarks"
#: Colours of our rows and of the others.
OURS, OTHERS = "#0c6b58", "#b8bfc6"
OUR_ROWS = ("cache_layer", "agent_sessions")


def _axes(height: float, title: str) -> tuple[Any, Any]:
    import matplotlib as mpl

    mpl.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "docs", "font.size": 9})
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, height))
    axes = figure.subplots()
    axes.set_title(title, loc="left", fontsize=10, fontweight="bold")
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _save(figure: Any, name: str) -> Path:
    FOLDER.mkdir(exist_ok=True)
    path = FOLDER / f"{name}.svg"
    figure.savefig(path, format="svg", bbox_inches="tight", metadata={"Date": None})
    lines = path.read_text().splitlines()
    path.write_text("\n".join(line.rstrip() for line in lines) + "\n")
    return path


def bars(values: Mapping[str, float], name: str, title: str, *, logarithmic: bool) -> Path:
    """One horizontal bar a row, shortest first."""
    figure, axes = _axes(0.6 + 0.24 * len(values), title)
    rows = sorted(values, key=lambda row: values[row], reverse=True)
    drawn = axes.barh(
        rows,
        [values[row] for row in rows],
        color=[OURS if row.startswith(OUR_ROWS) else OTHERS for row in rows],
        log=logarithmic,
    )
    axes.bar_label(drawn, fmt=lambda value: f"{value:,.3g}", padding=3, fontsize=8)
    axes.margins(x=0.12)
    if logarithmic:
        axes.set_xlabel("logarithmic scale")
    return _save(figure, name)


def curves(
    xs: Sequence[float],
    lines: Mapping[str, Sequence[float | None]],
    name: str,
    title: str,
    *,
    across: str,
    up: str,
) -> Path:
    """Lines over logarithmic axes; None is a point that is missing."""
    figure, axes = _axes(4, title)
    for label, ys in lines.items():
        points = [(x, y) for x, y in zip(xs, ys, strict=True) if y is not None]
        ours = label.startswith(OUR_ROWS)
        axes.plot(
            [x for x, _ in points],
            [y for _, y in points],
            marker="o",
            markersize=3,
            linewidth=2 if ours else 1,
            color=OURS if ours else None,
            linestyle="--" if "await" in label else "-",
            label=label,
        )
    axes.set(xscale="log", yscale="log", xlabel=across, ylabel=up)
    axes.legend(fontsize=8, frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    return _save(figure, name)
