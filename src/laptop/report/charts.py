"""The report's pictures, as SVG that takes its colours from the page, so that one picture fits light and dark."""

import io
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from html import escape
from itertools import pairwise
from typing import Any

import matplotlib
import matplotlib.dates as mdates
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from streaming_pipeline.core.foreign_text import NAME, harmless

Rows = Sequence[dict[str, Any]]

# Colours that stand for one of the page's: it replaces them when the picture is written.
TEXT, FAINT, LINE, SERIES, SECOND, ALARM = (f"#00000{number}" for number in range(1, 7))
_PAGE = {TEXT: "--text", FAINT: "--faint", LINE: "--line", SERIES: "--series", SECOND: "--busy", ALARM: "--bad"}
_STYLE = {
    "svg.fonttype": "none",
    "font.size": 10,
    "text.color": TEXT,
    "axes.edgecolor": LINE,
    "axes.labelcolor": FAINT,
    "axes.grid": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": LINE,
    "grid.linewidth": 0.6,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "axes.axisbelow": True,
}
# What it is a little of shows the page through it.
_HEAT = LinearSegmentedColormap.from_list("heat", [(0.85, 0.25, 0.2, alpha) for alpha in (0.04, 0.3, 0.95)])
MOST_MARKS = 1_000
"""More marks of one kind would only cover each other."""


def svg(figure: Figure, label: str) -> str:
    """The picture as an `<svg>` element that screen readers call `label`."""
    out = io.StringIO()
    # Pictures of one page must not share the names of their clip paths.
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": label}):
        figure.savefig(out, format="svg", transparent=True, metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    text = out.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>\s*", "", text, flags=re.DOTALL)
    text = re.sub(r'<g id="[^"]*"', "<g", text)
    for colour, name in _PAGE.items():
        text = text.replace(colour, f"var({name})")
    text = re.sub(r'<svg [^>]*?(viewBox="[^"]*")[^>]*>', rf'<svg \1 role="img" aria-label="{escape(label)}">', text, count=1)
    return text


def arrivals(windows: Rows, findings: Rows, judged_from: datetime | None = None) -> Figure:
    """Events of each window, with what was found strange in arrivals; `findings` have `anomaly_type`, `window_start`, `window_end`.

    What lies before `judged_from` is shaded.
    """
    axes = _axes()
    # Windows without events have no row; the newest one goes on yet.
    seen = {window["window_start"]: window["records"] for window in windows}
    step = min((b - a for a, b in pairwise(seen)), default=None)
    times = [min(seen) + n * step for n in range((max(seen) - min(seen)) // step)] if step else list(seen)
    axes.step(times, [seen.get(time, 0) for time in times], where="post", color=SERIES, linewidth=1)
    for kind, colour in (("spike", ALARM), ("missing_pattern", SECOND)):
        spans = [(f["window_start"], f["window_end"]) for f in findings if f["anomaly_type"] == kind and f["window_end"]][:MOST_MARKS]
        for number, (begin, end) in enumerate(spans):
            axes.axvspan(begin, end, color=colour, alpha=0.35, linewidth=1, label=kind if not number else None)
    axes.set(ylabel="events", ylim=(0, None))
    _shade_learning(axes, times, judged_from)
    _of_time(axes)
    return axes.figure


def values(windows: Rows, strange: Rows, column: str, judged_from: datetime | None = None) -> Figure:
    """Median and the middle nine tenths of a column's values in each window, and its strangest events.

    What lies before `judged_from` is shaded.
    """
    axes = _axes()
    times = [w["window_start"] for w in windows]
    low, middle, high = (np.array([w[name] for w in windows], dtype=float) for name in ("p05", "p50", "p95"))
    axes.fill_between(times, low, high, color=SERIES, alpha=0.25, linewidth=0, step="post", label="5 % to 95 %")
    axes.step(times, middle, where="post", color=SERIES, linewidth=1, label="median")
    marks = [s for s in strange if s["observed"] is not None]
    marks = marks[:: 1 + len(marks) // MOST_MARKS]
    axes.plot([s["event_time"] for s in marks], [s["observed"] for s in marks], ".", color=ALARM, markersize=4, label="strange events")
    usual = max(float(np.nanmedian(np.abs(high))), 1e-9)
    if max((abs(s["observed"]) for s in marks), default=0) > 5 * usual:  # the usual would be a line
        axes.set_yscale("symlog", linthresh=usual)
    axes.set(ylabel=column)
    _shade_learning(axes, times, judged_from)
    _of_time(axes)
    return axes.figure


def lines(rows: Rows, time: str, names: dict[str, str], ylabel: str, log: bool = False) -> Figure:
    """Some columns of `rows` (name → what it is called) over time."""
    axes = _axes()
    for (name, called), colour in zip(names.items(), (SERIES, SECOND, FAINT), strict=False):
        some = [(row[time], row[name]) for row in rows if row[name] is not None and (row[name] > 0 or not log)]
        axes.plot(*_columns(some), color=colour, linewidth=1.2, marker="." if len(some) < 50 else "", label=called)
    axes.set(ylabel=ylabel)
    if log:
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(_plain)
        axes.yaxis.set_minor_formatter(_plain)
    _of_time(axes)
    return axes.figure


def heat_map(cells: Rows, names: Mapping[str, str]) -> Figure:
    """Drift: columns × windows, how many times its threshold the worst metric is; a dot where it is drift.

    `names` has what columns are called, where not by their name.
    """
    columns = sorted({cell["column_name"] for cell in cells}, reverse=True)
    axes = _axes(height=0.9 + 0.32 * len(columns))
    drifts = []
    for place, column in enumerate(columns):
        row = [cell for cell in cells if cell["column_name"] == column]
        begins, ends = (mdates.date2num([cell[name] for cell in row]) for name in ("window_start", "window_end"))
        # Hours of most columns, days of the model's scores.
        width = (ends - begins).min()
        places = ((begins - begins.min()) / width).round().astype(int)
        colours = np.full((1, places.max() + 1), np.nan)
        colours[0, places] = [min(cell["times_threshold"], 2.0) for cell in row]
        extent = (begins.min(), begins.min() + colours.shape[1] * width, place - 0.5, place + 0.5)
        axes.imshow(colours, cmap=_HEAT, vmin=0, vmax=2, aspect="auto", origin="lower", extent=extent, interpolation="nearest")
        drifts += [(middle, place) for middle, cell in zip((begins + ends) / 2, row, strict=True) if cell["is_drift"]]
    axes.plot(*_columns(drifts), ".", color=ALARM, markersize=3)
    axes.set_xlim(*mdates.date2num([min(cell["window_start"] for cell in cells), max(cell["window_end"] for cell in cells)]))
    axes.set_ylim(-0.5, len(columns) - 0.5)
    # A name may come from a payload; behind a dollar matplotlib would read a formula.
    labels = [harmless(names.get(column, column), NAME).replace("$", r"\$") for column in columns]
    axes.set_yticks(range(len(columns)), labels)
    axes.grid(False)
    axes.xaxis_date()
    _of_time(axes)
    return axes.figure


def score_histogram(scores: Rows) -> Figure:
    """Events by score; below 0 they are anomalies. `scores` have `score`, `events`, `flagged`."""
    axes = _axes()
    for colour, label, kept in ((SERIES, "usual", lambda s: s >= 0), (ALARM, "flagged", lambda s: s < 0)):
        some = [row for row in scores if kept(row["score"])]
        axes.bar([row["score"] for row in some], [row["events"] for row in some], width=0.009, align="edge", color=colour, label=label)
    axes.axvline(0, color=ALARM, linestyle="--", linewidth=1)
    axes.set(xlabel="anomaly score (below 0: an anomaly)", ylabel="events", yscale="log")
    _legend(axes)
    return axes.figure


def timeline(tasks: Rows) -> Figure:
    """When each task of a run began and how long it took; `tasks` have `task_name`, `start_time`, `end_time`."""
    axes = _axes(height=0.9 + 0.3 * len(tasks))
    first = min(task["start_time"] for task in tasks)
    for place, task in enumerate(reversed(tasks)):
        begin, took = (task["start_time"] - first).total_seconds(), (task["end_time"] - task["start_time"]).total_seconds()
        colour = SERIES if task["notes"].startswith("SUCCESS") else ALARM
        axes.barh(place, took, left=begin, color=colour, height=0.6)
        axes.text(begin + took, place, f" {took:.1f} s", va="center", color=TEXT)
    axes.set_yticks(range(len(tasks)), [task["task_name"] for task in reversed(tasks)])
    axes.set(xlabel="seconds since the first task began")
    axes.margins(x=0.08)
    axes.grid(axis="y", visible=False)
    return axes.figure


def _shade_learning(axes: Axes, times: Sequence[datetime], judged_from: datetime | None) -> None:
    if judged_from and min(times) < judged_from:
        axes.axvspan(min(times), min(judged_from, max(times)), color=FAINT, alpha=0.12, linewidth=0, label="baseline being learnt")


def _columns(points: Sequence[tuple[Any, Any]]) -> tuple[list, list]:
    return [x for x, _ in points], [y for _, y in points]


def _axes(height: float = 2.6) -> Axes:
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(9, height), layout="constrained")
        return figure.subplots()


def _of_time(axes: Axes) -> None:
    locator = mdates.AutoDateLocator(minticks=3, maxticks=8)
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(mdates.ConciseDateFormatter(locator))
    if axes.get_legend_handles_labels()[1]:
        _legend(axes)


def _legend(axes: Axes) -> None:
    """Above the picture, where it covers nothing."""
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=4, frameon=False, labelcolor=TEXT, borderaxespad=0)


def _plain(value: float, _: int) -> str:
    """Of a logarithmic axis: 1, 2, 5, 10 and so on."""
    return f"{value:g}" if f"{value:e}"[0] in "125" else ""


def span(times: Sequence[datetime]) -> str:
    """From when to when, for a caption."""
    return f"{min(times):%Y-%m-%d %H:%M} to {max(times):%Y-%m-%d %H:%M} UTC" if times else ""
