"""How good is the backtest's ensemble on made-up series of many kinds, with faults of many kinds? And how long does it take?

None of these series was used to write a test, and the generator of the pipeline's own events makes none of them.
"""

import argparse
import time

import numpy as np
from bench import table, write_section

from streaming_pipeline.backtest.backtest import forest_inputs, strengths
from streaming_pipeline.backtest.csv_series import Series
from streaming_pipeline.detectors.iforest import isolation_forest

KINDS = {
    "steady": 300,
    "daily": 300,
    "walk": 300,
    "bursts": 300,
    "skewed": 300,
    "counts": 300,
    "steps": 300,
    "weekly": 1_800,
    "hourly rate": 3_600,
}
"""Kind → seconds from row to row."""
FAULTS = ("spike", "shift", "noise", "stands still", "dip", "wrong phase", "slow rise")
TRAIN = 0.15


def clean(kind: str, rows: int, rng: np.random.Generator) -> np.ndarray:
    """A series of a kind without a fault."""
    number = np.arange(rows)
    day = 86_400 // KINDS[kind]
    wave = np.sin(2 * np.pi * number / day + rng.uniform(0, 6))
    match kind:
        case "steady":
            return 50 + rng.normal(0, 2, rows)
        case "daily":
            return 50 + 20 * wave + rng.normal(0, 2, rows)
        case "bursts":
            values = np.abs(rng.normal(2, 0.5, rows))
            burst = rng.random(rows) < 0.01
            values[burst] += rng.uniform(20, 40, burst.sum())
            values[::day] += 30
            return values
        case "skewed":
            return np.exp(rng.normal(0, 0.6, rows)) * (1 + 0.5 * wave)
        case "counts":
            return rng.poisson(np.maximum(5 + 4 * wave, 0.3)).astype(float)
        case "steps":
            begins = np.flatnonzero(rng.random(rows) < 0.002)
            levels = np.concatenate([[40.0], rng.uniform(20, 60, len(begins))])
            return levels[np.searchsorted(begins, number, side="right")] + rng.normal(0, 1, rows)
        case "weekly":
            return 1_000 * (1 + 0.8 * wave) * np.where(number // day % 7 >= 5, 0.5, 1) + rng.normal(0, 60, rows)
        case "hourly rate":
            return 0.3 + 0.1 * wave + 0.05 * np.abs(rng.standard_t(3, rows))
    values = rng.normal(0, 1, rows)
    for row in range(1, rows):
        values[row] += 0.97 * values[row - 1]
    return 100 + values


def spoil(values: np.ndarray, fault: str, begin: int, rows: int, day: int, rng: np.random.Generator) -> None:
    """Put a fault into a series."""
    spread, end = values.std(), begin + rows
    match fault:
        case "spike":
            values[begin : begin + int(rng.integers(1, 5))] += rng.choice([-1, 1]) * rng.uniform(3, 6) * spread
        case "shift":
            values[begin:end] += rng.choice([-1, 1]) * rng.uniform(3, 6) * spread
        case "noise":
            values[begin:end] += rng.normal(0, 4 * spread, rows)
        case "stands still":
            values[begin : max(end, begin + 40)] = values[begin]
        case "dip":
            values[begin:end] = values[begin:end] * 0.2 - spread
        case "wrong phase":
            long = max(rows, 60)
            values[begin : begin + long] = values[begin - day // 2 - long : begin - day // 2].copy()
        case "slow rise":
            values[begin:end] += np.linspace(0, 6 * spread, rows)


def spoilt(kind: str, rng: np.random.Generator) -> tuple[np.ndarray, list[tuple[int, int, str]]]:
    """A series of a kind with one to three faults: (first row, row behind the last in which an alarm is right, fault)."""
    rows = int(rng.choice([2_000, 4_000, 8_000]))
    values, window = clean(kind, rows, rng), rows // 10
    found = []
    for begin in np.sort(
        rng.choice(np.arange(int(0.2 * rows), rows - 2 * window, 2 * window), int(rng.integers(1, 4)), replace=False)
    ).tolist():
        fault, long = str(rng.choice(FAULTS)), int(rng.integers(5, window // 2))
        spoil(values, fault, begin + window // 4, long, 86_400 // KINDS[kind], rng)
        found.append((begin + window // 4, begin + window, fault))
    return values, found


def rig(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Sensors of a rig that move together and drift, and in which rows one to three of them are off."""
    rows, columns = int(rng.integers(900, 1_300)), int(rng.integers(3, 10))
    common = np.zeros((rows, 3))
    own = np.zeros((rows, columns))
    memory = rng.choice([0, 0.5, 0.95], columns)
    for row in range(1, rows):
        common[row] = 0.9 * common[row - 1] + rng.normal(0, 0.4, 3)
        own[row] = memory * own[row - 1] + rng.normal(0, 0.6, columns) * np.sqrt(1 - memory**2)
    values = common @ rng.normal(0, 1, (3, columns)) + own
    drift = np.cumsum(rng.normal(0, 1, values.shape), axis=0)
    values += drift / np.abs(drift).max(axis=0) * rng.choice([0.2, 0.6, 1.0]) * values.std(axis=0)
    begin = int(rng.uniform(0.5, 0.62) * rows)
    end = begin + int(rng.uniform(0.25, 0.38) * rows)
    kind = rng.choice(["shift", "other mix", "noise", "ramp"])
    for column in rng.choice(columns, rng.integers(1, 4), replace=False):
        part, spread = values[begin:end, column], values[:400, column].std()
        if kind == "shift":
            part += rng.choice([-1, 1]) * rng.uniform(1.5, 4) * spread
        elif kind == "other mix":
            part[:] = rng.permutation(part) * 1.3 + spread
        elif kind == "noise":
            part += rng.normal(0, 2.5 * spread, end - begin)
        else:
            part += np.minimum(np.arange(end - begin) / 60, 1) * rng.uniform(2, 4) * spread
    is_fault = np.zeros(rows, dtype=bool)
    is_fault[begin:end] = True
    return values * rng.uniform(0.1, 100, columns) + rng.uniform(-50, 50, columns), is_fault


def series(values: np.ndarray, interval: float) -> Series:
    """Rows at this interval, as a file would have them."""
    seconds = np.arange(len(values)) * interval
    return Series(seconds, seconds, values.reshape(len(values), -1), None, 0)


def flags(values: np.ndarray, interval: float, train: int) -> np.ndarray:
    """What the ensemble flags behind the training."""
    _, found = strengths(series(values, interval), train, ())["ensemble"]
    return found & (np.arange(len(values)) >= train)


def main() -> None:
    """Run all, and write the section of RESULTS.md."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--series", type=int, default=10, help="of each kind")
    parser.add_argument("--rigs", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    rng = np.random.default_rng(options.seed)

    rows, by_fault = [], {fault: [0, 0] for fault in FAULTS}
    for kind, interval in KINDS.items():
        found = faults = false_alarms = length = 0
        for _ in range(options.series):
            values, windows = spoilt(kind, rng)
            alarms = flags(values, interval, int(TRAIN * len(values)))
            for begin, end, fault in windows:
                is_found = bool(alarms[begin:end].any())
                by_fault[fault][0] += is_found
                by_fault[fault][1] += 1
                found, faults = found + is_found, faults + 1
                alarms[begin:end] = False
            false_alarms, length = false_alarms + int(alarms.sum()), length + len(values)
        rows.append([kind, f"{found} of {faults}", f"{false_alarms / options.series:.1f}", f"{1_000 * false_alarms / length:.2f}"])

    counted = np.zeros(4)
    for _ in range(options.rigs):
        values, is_fault = rig(rng)
        flagged, truth = flags(values, 1.0, 400)[400:], is_fault[400:]
        counted += [(flagged & truth).sum(), (flagged & ~truth).sum(), (~flagged & truth).sum(), (~flagged & ~truth).sum()]
    hits, false, missed, right = counted

    long = series(clean("daily", 100_000, rng), 300.0)
    began = time.perf_counter()
    strengths(long, 15_000, ("iforest", "zscore", "robust_zscore", "iqr", "moving_average"))
    whole = time.perf_counter() - began
    began = time.perf_counter()
    inputs = forest_inputs(long.values, long.seconds, 15_000)
    isolation_forest().fit(inputs[:15_000]).score_samples(inputs)
    forest = time.perf_counter() - began

    write_section(
        "Detection by the backtest's ensemble",
        "\n\n".join(
            [
                f"One column, {options.series} series of each kind, 2,000 to 8,000 rows, one to three faults in each; "
                "the first 15 % are learnt from.",
                table(["kind", "faults found", "false alarms a series", "false alarms in 1,000 rows"], rows),
                table(["fault", "found"], [[fault, f"{found} of {count}"] for fault, (found, count) in by_fault.items()]),
                f"Several columns, {options.rigs} rigs of 3 to 9 sensors, row by row behind 400 rows of training: F1 "
                f"{2 * hits / (2 * hits + false + missed):.2f}, false alarm rate {100 * false / (false + right):.1f} %, missed "
                f"{100 * missed / (hits + missed):.1f} %.",
                f"100,000 rows of one column, every detector and the ensemble: {whole:.1f} s, {whole / forest:.1f} times scikit-learn's "
                "forest alone.",
            ]
        ),
    )


if __name__ == "__main__":
    main()
