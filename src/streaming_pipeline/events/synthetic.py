"""Seeded events with a daily and weekly rhythm, faults put in on purpose, and the truth about each fault.

The same arguments give the same bytes. No stage of the pipeline reads the truth: it is there to judge results by.
"""

import hashlib
import json
import time
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from streaming_pipeline.core.errors import UsageError
from streaming_pipeline.events.spoilt_payloads import SPOILT

EVENT_FAULTS = ("redelivery", "malformed", "wrong_type", "missing_field", "late", "outlier")
WINDOW_FAULTS = ("spike", "gap", "drift")
FAULTS = (*EVENT_FAULTS, *WINDOW_FAULTS, "new_field")
"""What can be put in; `new_field` adds a field to all events from a moment on, which leaves them valid."""

SECOND, MINUTE, HOUR, DAY = 1_000, 60_000, 3_600_000, 86_400_000  # in ms, as Kafka's timestamps
BASELINE_MS = 3 * DAY
"""No window fault strikes before: a detector needs usual days to compare with."""
MAX_DELAY_MS = 2 * MINUTE
"""An event that is not late on purpose takes at most this long to the broker."""
MIN_LATENESS_MS, MAX_LATENESS_MS = 10 * MINUTE, 5 * DAY
MAX_DEVIATION = 4.0
"""Usual values stay within so many spreads of the usual one, so that nothing but an injected outlier is one."""

_SHARES = {"redelivery": 0.01, "malformed": 0.001, "wrong_type": 0.0015, "missing_field": 0.001, "late": 0.005, "outlier": 0.004}
_MIN_COUNT = 100  # with fewer events the faults, at least one of each variant, would be the rule
_MIN_EVENTS_PER_HOUR = 20  # with fewer, no gap or spike can be seen
_NEW_FIELD = ', "channel": "app"'


class Record(NamedTuple):
    """One Kafka record; `timestamp_ms` None leaves the time to the producer's clock."""

    key: bytes | None
    value: bytes | None
    timestamp_ms: int | None


class EventType(NamedTuple):
    """How one type behaves: when its events come, and their values (log-normal around `usual_value`)."""

    name: str
    share: float
    peak_hour: float  # UTC
    swing: float  # the rate at the peak hour is exp(2 · swing) times the rate twelve hours away
    weekend: float  # factor on the rate
    usual_value: float
    spread: float


TYPES = (
    EventType("view", share=0.62, peak_hour=20, swing=0.7, weekend=1.25, usual_value=1500, spread=0.30),
    EventType("click", share=0.30, peak_hour=14, swing=0.9, weekend=0.75, usual_value=1100, spread=0.28),
    EventType("purchase", share=0.08, peak_hour=18, swing=1.0, weekend=1.10, usual_value=2400, spread=0.32),
)
_USUAL_VALUE, _SPREAD = (np.array([getattr(kind, name) for kind in TYPES]) for name in ("usual_value", "spread"))


class Window(NamedTuple):
    """When a window fault strikes, and by which factor: on the rate for spike and gap, on the values for drift."""

    start_ms: int
    end_ms: int
    factor: float

    def covers(self, time_ms: np.ndarray) -> np.ndarray:
        return (time_ms >= self.start_ms) & (time_ms < self.end_ms)


@dataclass
class Generated:
    """Records in the order of their timestamps, and the truth about them: a summary first, then one line for each injected fault.

    Payloads are made while iterating, which can be done as often as needed.
    """

    first_id: int
    time_ms: np.ndarray  # columns of the events, in the order of event time; an event's id is `first_id` plus its place
    type_index: np.ndarray
    value: np.ndarray
    arrival_ms: np.ndarray
    new_field_from_ms: int | None = None
    truth: list[dict[str, Any]] = field(default_factory=list)
    spoilt: dict[int, bytes | None] = field(default_factory=dict)  # place → the payload sent instead
    again: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))  # places of the events that are sent twice
    again_ms: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    again_keys: dict[int, bytes | None] = field(default_factory=dict)  # index into `again` → its other key

    def __len__(self) -> int:
        return len(self.time_ms) + len(self.again)

    def __iter__(self) -> Iterator[Record]:
        count = len(self.time_ms)
        place_of_record = np.concatenate([np.arange(count), self.again])
        timestamp_ms = np.concatenate([self.arrival_ms, self.again_ms])
        order = np.argsort(timestamp_ms, kind="stable")  # stable: an event stands before its own re-delivery
        for low in range(0, len(order), 50_000):
            records = order[low : low + 50_000]
            places = place_of_record[records]
            for record, place, text, at in zip(
                records.tolist(), places.tolist(), self.texts(places), timestamp_ms[records].tolist(), strict=True
            ):
                key = b"%d" % (self.first_id + place)
                yield Record(self.again_keys.get(record - count, key), self.spoilt[place] if place in self.spoilt else text.encode(), at)

    def texts(self, places: np.ndarray) -> list[str]:
        """The payloads of these events, as they are before any is spoilt."""
        time_ms = self.time_ms[places]
        is_new = time_ms >= (np.inf if self.new_field_from_ms is None else self.new_field_from_ms)
        columns = (places + self.first_id, self.type_index[places], _iso(time_ms), self.value[places], is_new)
        return [
            f'{{"event_id": "{event_id}", "event_type": "{TYPES[kind].name}", "timestamp": "{at}", "value": "{value}"'
            f"{_NEW_FIELD if new else ''}}}"
            for event_id, kind, at, value, new in zip(*(column.tolist() for column in columns), strict=True)
        ]


def generate(
    count: int = 300_000,
    *,
    start: datetime | None = None,
    duration: timedelta = timedelta(days=14),
    seed: int = 7,
    faults: Iterable[str] | None = None,
) -> Generated:
    """`count` events from `start` (cut to the minute) for `duration`, and re-deliveries on top; by default the last 14 days.

    `faults` names those of `FAULTS` to put in, each in a place of its own; an empty list gives valid events only. None means each fault
    that `count` and `duration` have room for; what was left out, and why, stands in the summary. Raises `UsageError` for an unknown
    fault, a named fault without room, a time without zone or in the future, and numbers that make no sense.
    """
    if count < 1 or seed < 0 or duration < timedelta(minutes=1):
        raise UsageError(f"count {count}, seed {seed}, duration {duration}: they must be at least 1, 0 and one minute.")
    if start is not None and start.tzinfo is None:
        raise UsageError(f"start {start} has no time zone: write it like 2025-04-01T00:00:00Z.")
    now_ms = time.time_ns() // 1_000_000
    span_ms = duration // timedelta(minutes=1) * MINUTE
    exact_start_ms = int(start.timestamp() * 1000) if start else now_ms - span_ms
    start_ms = exact_start_ms // MINUTE * MINUTE
    end_ms = start_ms + span_ms
    if end_ms > now_ms:
        raise UsageError(f"start {_iso(start_ms)} and duration {duration} end in the future: start earlier or make it shorter.")
    chosen, left_out = _choose_faults(faults, count, start_ms, end_ms)
    windows = {fault: window for fault, window in _place_windows(seed, start_ms, end_ms).items() if fault in chosen}

    # The exact start tells calls apart that are made in the same minute.
    first_id = _first_id(seed, exact_start_ms, span_ms, count, sorted(chosen))
    events = _draw_events(first_id, count, seed, start_ms, end_ms, windows)
    truth = []
    for fault, window in windows.items():
        truth.append(_window_line(fault, window, events, factor=window.factor, expected=_EXPECTED_OF_WINDOW[fault]))
    if "new_field" in chosen:
        events.new_field_from_ms = int(events.time_ms[int(_rng(seed, "new_field").uniform(0.6, 0.8) * count)])
    # A fault strikes an event at most once, and none within a window fault, so that each can be told from the others.
    free = np.ones(count, dtype=bool)
    for window in windows.values():
        free &= ~window.covers(events.time_ms)
    for fault in EVENT_FAULTS:
        if fault not in chosen:
            continue
        rng = _rng(seed, fault)
        allowed = np.flatnonzero(free & (events.time_ms < end_ms - _NEEDED_AFTER_MS.get(fault, 0)))
        size = max(_MIN_SIZE[fault], round(_SHARES[fault] * count))
        if len(allowed) < size:
            raise UsageError(f"There is no room for fault {fault!r} in {count} events over {duration}: give more, or leave it out.")
        places = np.sort(rng.choice(allowed, size, replace=False))
        free[places] = False
        if fault in SPOILT:
            truth += _spoil(events, fault, places)
        elif fault == "outlier":
            truth += _put_outliers(events, places, rng)
        elif fault == "late":
            truth += _put_late(events, places, rng, end_ms, windows.get("gap"))
        else:
            truth += _put_redeliveries(events, places, rng, end_ms, windows.get("gap"))
    if events.new_field_from_ms is not None:
        since = Window(events.new_field_from_ms, end_ms, 1)
        carriers = np.flatnonzero(since.covers(events.time_ms)).tolist()
        facts = {
            "field": "channel",
            "first_event_id": str(first_id + carriers[0]),
            "last_event_id": str(first_id + carriers[-1]),
            "valid_events": sum(place not in events.spoilt for place in carriers),
            "expected": "kept: the events are valid",
        }
        truth.append(_window_line("new_field", since, events, **facts))
    quarantined = {fault: sum(line["kind"] == fault for line in truth) for fault in SPOILT}
    summary = {
        "kind": "summary",
        "seed": seed,
        "start": str(_iso(start_ms)),
        "end": str(_iso(end_ms)),
        "faults": [fault for fault in FAULTS if fault in chosen],
        "left_out": left_out,
        "records": len(events),
        "valid_events": count - sum(quarantined.values()),
        "duplicates": len(events.again),
        "quarantined": quarantined,
    }
    events.truth = [summary, *truth]
    return events


def stream(*, seed: int = 7, duration: timedelta | None = None) -> Iterator[Record]:
    """Valid events without end (or for `duration`), each stamped with the moment it is asked for: who asks sets the rate."""
    rng = _rng(seed, "stream")
    start_ms = now_ms = time.time_ns() // 1_000_000
    first_id = _first_id("stream", seed, start_ms)
    while True:
        rates = _rates(np.array([now_ms]))[0]
        kinds = rng.choice(len(TYPES), 1_000, p=rates / rates.sum())
        for kind, value, delay_ms in zip(kinds, _usual_values(rng, kinds), _delays(rng, 1_000), strict=True):
            now_ms = time.time_ns() // 1_000_000
            if duration is not None and now_ms - start_ms >= duration / timedelta(milliseconds=1):
                return
            yield next(iter(Generated(first_id, np.array([now_ms - delay_ms]), np.array([kind]), np.array([value]), np.array([now_ms]))))
            first_id += 1


def write_ground_truth(path: Path, truth: Iterable[Mapping[str, Any]]) -> None:
    """Append the truth of one `generate` to the file, so that what several calls produced is judged together."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.writelines(json.dumps(line) + "\n" for line in truth)


def _rng(seed: int, purpose: str) -> np.random.Generator:
    """One generator for each purpose: switching one fault off leaves the others of their kind as they were."""
    return np.random.default_rng([seed, zlib.crc32(purpose.encode())])


def _first_id(*identity: object) -> int:
    """Fifteen digits that follow from all that makes a call what it is: running numbers of two calls do not meet by accident."""
    digest = hashlib.sha256(repr(identity).encode()).digest()
    return 10**14 + int.from_bytes(digest[:8], "big") % (9 * 10**14 - 10**9)


def _iso(ms: Any) -> Any:
    """Milliseconds → ISO-8601 in UTC with `Z`; a number or an array of them."""
    return np.datetime_as_string(np.asarray(ms).astype("datetime64[ms]"), unit="ms", timezone="UTC")


def _choose_faults(faults: Iterable[str] | None, count: int, start_ms: int, end_ms: int) -> tuple[set[str], dict[str, str]]:
    """The faults to put in, and those without room, each with what it would need."""
    wanted = list(FAULTS if faults is None else faults)
    if unknown := sorted(set(wanted) - set(FAULTS)):
        raise UsageError(f"Fault {unknown[0]!r} is not known. Known faults: {', '.join(FAULTS)}.")
    hours = (end_ms - start_ms) / HOUR
    left_out = {}
    for fault in wanted:
        if fault in EVENT_FAULTS and count < _MIN_COUNT:
            left_out[fault] = f"needs at least {_MIN_COUNT} events"
        elif fault in _NEEDED_AFTER_MS and hours < 1:
            left_out[fault] = "needs a duration of at least one hour"
        elif fault in WINDOW_FAULTS and len(_days_after_baseline(start_ms, end_ms)) < len(WINDOW_FAULTS):
            left_out[fault] = "needs a duration of at least 7 days"
        elif fault in WINDOW_FAULTS and count / hours < _MIN_EVENTS_PER_HOUR:
            left_out[fault] = f"needs at least {_MIN_EVENTS_PER_HOUR} events an hour"
    if faults is not None and left_out:
        fault, need = next(iter(left_out.items()))
        raise UsageError(f"Fault {fault!r} {need}: give more, or leave it out.")
    return set(wanted) - set(left_out), left_out


def _days_after_baseline(start_ms: int, end_ms: int) -> list[int]:
    """Starts of the whole UTC days that lie after the baseline and before the end."""
    return list(range(-(-(start_ms + BASELINE_MS) // DAY) * DAY, end_ms - DAY + 1, DAY))


def _place_windows(seed: int, start_ms: int, end_ms: int) -> dict[str, Window]:
    """Each window fault on a day of its own; none where there are too few days."""
    days = _days_after_baseline(start_ms, end_ms)
    if len(days) < len(WINDOW_FAULTS):
        return {}
    rng = _rng(seed, "windows")
    spike_day, gap_day, drift_day = rng.permutation(days)[:3].tolist()
    spike_at = spike_day + int(rng.integers(6 * 60, 22 * 60)) * MINUTE
    gap_minutes = int(rng.integers(90, 181))
    rates = _rates(gap_day + np.arange(0, DAY, MINUTE)).sum(axis=1)
    busy = rates > rates.mean()
    busy_throughout = [at for at in range(len(busy) - gap_minutes + 1) if busy[at : at + gap_minutes].all()]
    gap_at = gap_day + int(rng.choice(busy_throughout)) * MINUTE
    return {
        "spike": Window(spike_at, spike_at + int(rng.integers(10, 21)) * MINUTE, round(rng.uniform(6, 10), 1)),
        "gap": Window(gap_at, gap_at + gap_minutes * MINUTE, 0),
        "drift": Window(drift_day, drift_day + DAY, round(rng.uniform(1.35, 1.45), 2)),
    }


def _rates(time_ms: np.ndarray) -> np.ndarray:
    """The usual relative rate of each type (columns) at each time (rows)."""
    hour = time_ms / HOUR % 24
    is_weekend = (time_ms // DAY + 3) % 7 >= 5  # 1970-01-01 was a Thursday
    columns = [
        kind.share * np.exp(kind.swing * np.cos((hour - kind.peak_hour) * np.pi / 12)) * np.where(is_weekend, kind.weekend, 1)
        for kind in TYPES
    ]
    # i0(swing) is the day's mean of exp(swing · cos): divided by it, the shares are what they say.
    return np.stack(columns, axis=1) / np.i0([kind.swing for kind in TYPES])


def _usual_values(rng: np.random.Generator, type_index: np.ndarray, factor: np.ndarray | float = 1) -> np.ndarray:
    deviation = np.clip(rng.standard_normal(len(type_index)), -MAX_DEVIATION, MAX_DEVIATION)
    return np.rint(_USUAL_VALUE[type_index] * np.exp(_SPREAD[type_index] * deviation) * factor).astype(np.int64)


def _delays(rng: np.random.Generator, count: int) -> np.ndarray:
    """From event to broker: mostly a few seconds."""
    return np.minimum(rng.lognormal(np.log(1_500), 0.8, count).astype(np.int64), MAX_DELAY_MS)


def _draw_events(first_id: int, count: int, seed: int, start_ms: int, end_ms: int, windows: Mapping[str, Window]) -> Generated:
    """Events spread over minutes and types as the rates say, with spike, gap and drift in them."""
    rng = _rng(seed, "events")
    minutes = np.arange(start_ms, end_ms, MINUTE)
    rates = _rates(minutes)
    for fault in ("spike", "gap"):
        if fault in windows:
            rates[windows[fault].covers(minutes)] *= windows[fault].factor
    upto = np.cumsum(rates)
    cell = np.searchsorted(upto, rng.random(count) * upto[-1], side="right")
    time_ms = minutes[cell // len(TYPES)] + rng.integers(0, MINUTE, count)
    by_time = np.argsort(time_ms, kind="stable")
    time_ms, type_index = time_ms[by_time], (cell % len(TYPES))[by_time]
    factor = np.where(windows["drift"].covers(time_ms), windows["drift"].factor, 1) if "drift" in windows else 1
    value = _usual_values(rng, type_index, factor)
    return Generated(first_id, time_ms, type_index, value, arrival_ms=np.minimum(time_ms + _delays(rng, count), end_ms))


_EXPECTED_OF_WINDOW = {"spike": "kept, reported as a spike", "gap": "reported as a missing pattern", "drift": "kept, reported as drift"}


def _window_line(kind: str, window: Window, events: Generated, **facts: Any) -> dict[str, Any]:
    times = {"window_start": str(_iso(window.start_ms)), "window_end": str(_iso(window.end_ms))}
    return {"kind": kind, **times, "events": int(np.count_nonzero(window.covers(events.time_ms))), **facts}


def _put_outliers(events: Generated, places: np.ndarray, rng: np.random.Generator) -> list[dict[str, Any]]:
    """Three in four far too high, most others far below zero, a few about zero; the first three are one of each."""
    shape = rng.choice(3, len(places), p=[0.75, 0.05, 0.2])
    shape[:3] = range(3)
    times_usual = np.choose(shape, [rng.uniform(low, high, len(places)) for low, high in ((8, 20), (0, 0.02), (-20, -8))])
    events.value[places] = np.rint(_USUAL_VALUE[events.type_index[places]] * times_usual).astype(np.int64)
    return [
        {
            "kind": "outlier",
            "variant": ("high", "near_zero", "negative")[shape[n]],
            "event_id": str(events.first_id + place),
            "event_type": TYPES[events.type_index[place]].name,
            "value": int(events.value[place]),
            "expected": "kept, scored as an anomaly",
        }
        for n, place in enumerate(places.tolist())
    ]


def _later(from_ms: np.ndarray, shortest_ms: int, longest_ms: int, rng: np.random.Generator, end_ms: int, gap: Window | None) -> np.ndarray:
    """When something sent late arrives: soon is common, long after is rare, never after the end nor in the gap, which is silent."""
    longest = np.minimum(longest_ms, end_ms - from_ms)
    arrival_ms = from_ms + np.exp(rng.uniform(np.log(shortest_ms), np.log(longest))).astype(np.int64)
    if gap is not None:
        arrival_ms[gap.covers(arrival_ms)] += gap.end_ms - gap.start_ms
    return np.minimum(arrival_ms, end_ms)


def _put_late(events: Generated, places: np.ndarray, rng: np.random.Generator, end_ms: int, gap: Window | None) -> list[dict[str, Any]]:
    events.arrival_ms[places] = _later(events.time_ms[places], MIN_LATENESS_MS, MAX_LATENESS_MS, rng, end_ms, gap)
    late_ms = (events.arrival_ms - events.time_ms)[places].tolist()
    return [
        {"kind": "late", "event_id": str(events.first_id + place), "late_seconds": late / 1000, "expected": "kept, counted as late"}
        for place, late in zip(places.tolist(), late_ms, strict=True)
    ]


def _put_redeliveries(
    events: Generated, places: np.ndarray, rng: np.random.Generator, end_ms: int, gap: Window | None
) -> list[dict[str, Any]]:
    """The same payload again; one in three has no key or another one, and so perhaps comes by another partition."""
    first_ms = events.arrival_ms[places]
    events.again = places
    events.again_ms = _later(first_ms, 5 * SECOND, 6 * HOUR, rng, end_ms, gap)
    other_key = rng.integers(0, 6, len(places)).tolist()
    events.again_keys = {n: (None, b"retry-%d" % n)[which] for n, which in enumerate(other_key) if which < 2}
    return [
        {
            "kind": "redelivery",
            "event_id": str(events.first_id + place),
            "seconds_later": later / 1000,
            "same_key": n not in events.again_keys,
            "expected": "duplicate",
        }
        for n, (place, later) in enumerate(zip(places.tolist(), (events.again_ms - first_ms).tolist(), strict=True))
    ]


_MIN_SIZE = {"redelivery": 3, "late": 1, "outlier": 3} | {fault: len(variants) for fault, variants in SPOILT.items()}
_NEEDED_AFTER_MS = {"late": MIN_LATENESS_MS + MINUTE, "redelivery": MAX_DELAY_MS + MINUTE}
"""How long before the end an event must lie, so that what comes later still comes before the end."""


def _spoil(events: Generated, fault: str, places: np.ndarray) -> list[dict[str, Any]]:
    """Send spoilt payloads in place of these events, the variants taking turns."""
    truth = []
    for n, (place, text) in enumerate(zip(places.tolist(), events.texts(places), strict=True)):
        variant = list(SPOILT[fault])[n % len(SPOILT[fault])]
        reason, spoil = SPOILT[fault][variant]
        payload = events.spoilt[place] = spoil(text)
        truth.append(
            {
                "kind": fault,
                "variant": variant,
                "key": str(events.first_id + place),
                "payload_sha256": None if payload is None else hashlib.sha256(payload).hexdigest(),
                "reason": reason,
                "expected": f"quarantined as {reason}",
            }
        )
    return truth
