"""What happened, counted once: several detectors, metrics, slices and minutes that report the same thing are one incident."""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from streaming_pipeline.monitoring.arrivals import Anomaly
from streaming_pipeline.monitoring.drift import Drift, kind_of


def together(spans: Sequence[tuple[Any, Any]]) -> list[int]:
    """The number of the incident that each span (begin, end) belongs to: those that overlap or touch are one; the earliest is 0."""
    numbers, number, last = [0] * len(spans), -1, None
    for place in sorted(range(len(spans)), key=lambda place: spans[place]):
        begin, end = spans[place]
        if last is None or begin > last:
            number, last = number + 1, end
        numbers[place], last = number, max(last, end)
    return numbers


def incidents(anomalies: Iterable[Anomaly], judged: Iterable[Drift]) -> dict[str, int]:
    """Kind → how many incidents there are among these findings of a monitoring run; strange events, which are many, are not among them.

    Drift of a column, or a change of a field, is one incident in whatever windows it shows: `alerts` makes one alert of it, too.
    """
    spans: dict[tuple[str, str], list[tuple[int, int]]] = {}
    for one in anomalies:
        spans.setdefault((one.anomaly_type, one.series), []).append((one.start, one.end))
    found: Counter[str] = Counter()
    for (kind, _), of_series in spans.items():
        found[kind] += len(set(together(of_series)))
    # Where a drift ends, the window before it looks different too: that is no other incident.
    drifts = [one for one in judged if one.is_drift and one.comparison != "previous"]
    found.update(kind for kind, *_ in {(kind_of(one.table_name, one.metric), one.table_name, one.column) for one in drifts})
    return dict(found)
