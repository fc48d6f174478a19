"""Would these detectors have caught it? Every detector over the history in a CSV file, row by row, each row by those before it alone.

Nothing here needs Spark. Training rows get score 0 and flag 0; all scaling is fitted on them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table
from sklearn.metrics import average_precision_score, roc_auc_score

from streaming_pipeline.detectors import DETECTORS, change, discord, ensemble, forecast, iforest, shift, textbook
from streaming_pipeline.detectors.surprise import LEAST, surprise
from streaming_pipeline.errors import PipelineError, UsageError

NAMES = ("iforest", *DETECTORS)
"""The detectors that can be chosen; the ensemble is always there."""
TRAIN_FRACTION = 0.15
_MOST_DRAWN = 6
_FLAGGED = 3.0
"""A detector's score is 0.5 where its deviation is to be expected once in a thousand rows; the forest flags from there."""


@dataclass(frozen=True)
class Series:
    """A file: its timestamps as they stand there and in seconds, one column of numbers for each value, and labels if there are any."""

    timestamps: np.ndarray
    seconds: np.ndarray
    values: np.ndarray
    labels: np.ndarray | None
    missing: int
    """Cells without a number: each stands for the one before it."""

    def interval(self, train: int) -> float:
        """The usual number of seconds from row to row in the first `train` rows; 0 if there is none."""
        steps = np.diff(self.seconds[:train])
        return float(np.median(steps)) if len(steps) else 0.0


def read_series(path: Path, timestamp: str, values: Sequence[str], label: str | None) -> Series:
    """Read a CSV file (comma, semicolon or tab). Raises `PipelineError` that names the row and the column of what cannot be used."""
    try:
        with path.open(encoding="utf-8-sig") as file:
            header = file.readline()
        separator = max(",;\t", key=header.count)
        wanted = [timestamp, *values, *([label] if label else [])]
        frame = pd.read_csv(path, sep=separator, dtype=str, keep_default_na=False, encoding="utf-8-sig", skipinitialspace=True)
    except FileNotFoundError as error:
        raise UsageError(f"There is no file {path}.") from error
    except (OSError, UnicodeDecodeError, pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise PipelineError(f"{path} cannot be read as CSV: {' '.join(str(error).split())}") from error
    frame.columns = [name.strip() for name in frame.columns]
    for name in wanted:
        if name not in frame.columns:
            raise UsageError(f"{path} has no column {name!r}; it has {', '.join(frame.columns)}.")
    if frame.empty:
        raise PipelineError(f"{path} has a header and no rows.")
    seconds = _seconds(path, frame[timestamp])
    columns = [_numbers(path, frame[name]) for name in values]
    labels = _labels(path, frame[label]) if label else None
    missing = int(sum(np.isnan(column).sum() for column in columns))
    return Series(frame[timestamp].to_numpy(), seconds, np.column_stack([_filled(column) for column in columns]), labels, missing)


def _line(row: int) -> str:
    return f"line {row + 2}"


def _seconds(path: Path, texts: pd.Series) -> np.ndarray:
    numbers = pd.to_numeric(texts, errors="coerce")
    if numbers.notna().all():
        seconds = numbers.to_numpy(dtype=float)
        # Milliseconds since 1970 are what a number beyond the year 5000 means.
        seconds = seconds / 1000 if np.abs(seconds).max() > 1e11 else seconds
    else:
        times = pd.to_datetime(texts, errors="coerce", utc=True, format="ISO8601")
        if times.isna().any():
            times = times.fillna(pd.to_datetime(texts[times.isna()], errors="coerce", utc=True, format="mixed"))
        if times.isna().any():
            row = int(np.flatnonzero(times.isna())[0])
            raise PipelineError(
                f"{path}, {_line(row)}: {texts.name} is {texts.iloc[row]!r}, which is no time. Write times as 2026-01-31 23:59:00, or in "
                "seconds since 1970."
            )
        seconds = times.dt.tz_localize(None).to_numpy(dtype="datetime64[ns]").astype("int64") / 1e9
    if not np.isfinite(seconds).all():
        row = int(np.flatnonzero(~np.isfinite(seconds))[0])
        raise PipelineError(f"{path}, {_line(row)}: {texts.name} is {texts.iloc[row]!r}, which is no time.")
    backwards = np.flatnonzero(np.diff(seconds) < 0)
    if len(backwards):
        row = int(backwards[0]) + 1
        raise PipelineError(
            f"{path}, {_line(row)}: {texts.name} {texts.iloc[row]} is before that of the line above. Sort the file by {texts.name}."
        )
    return seconds


def _numbers(path: Path, texts: pd.Series) -> np.ndarray:
    stripped = texts.str.strip()
    empty = stripped.str.lower().isin(("", "na", "nan", "null", "none"))
    numbers = pd.to_numeric(stripped.mask(empty), errors="coerce")
    wrong = (numbers.isna() & ~empty) | np.isinf(numbers)
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        raise PipelineError(f"{path}, {_line(row)}: {texts.name} is {texts.iloc[row]!r}, which is no number. An empty cell is allowed.")
    if empty.all():
        raise PipelineError(f"{path}: {texts.name} has no number in any row.")
    return numbers.to_numpy(dtype=float)


def _labels(path: Path, texts: pd.Series) -> np.ndarray:
    known = {"": 0, "0": 0, "0.0": 0, "false": 0, "1": 1, "1.0": 1, "true": 1}
    labels = texts.str.strip().str.lower().map(known)
    if labels.isna().any():
        row = int(np.flatnonzero(labels.isna())[0])
        raise PipelineError(f"{path}, {_line(row)}: {texts.name} is {texts.iloc[row]!r}; a label is 0 or 1.")
    return labels.to_numpy(dtype=int)


def _filled(column: np.ndarray) -> np.ndarray:
    """Each missing number as the one before it; those before the first as 0, since nothing is known yet."""
    place = np.maximum.accumulate(np.where(np.isnan(column), -1, np.arange(len(column))))
    return np.where(place < 0, 0.0, column[np.maximum(place, 0)])


def training_rows(rows: int, fraction: float | None, count: int | None) -> int:
    """How many rows from the first on are training; raises `UsageError` for numbers that leave none to learn from or none to judge."""
    if count is None:
        fraction = TRAIN_FRACTION if fraction is None else fraction
        if not 0 < fraction < 1:
            raise UsageError(f"--train-fraction {fraction} cannot be: it must lie between 0 and 1.")
        count = max(1, int(fraction * rows))
    if not 0 < count < rows:
        raise UsageError(f"{count} training rows of {rows} cannot be: at least one row must be learnt from, and one be judged.")
    return count


def forest_inputs(values: np.ndarray, seconds: np.ndarray, train: int) -> np.ndarray:
    """What the forest sees of each row: each value, its step, its recent mean and spread, and, if each half of the training has all times
    of day, that."""
    spread = np.sqrt(np.maximum(change.moving_mean((values - change.moving_mean(values, 20)) ** 2, 20), 0))
    parts = [values, np.diff(values, axis=0, prepend=values[:1]), change.moving_mean(values, 5), spread]
    if train > 8 and seconds[train - 1] - seconds[0] >= 2 * forecast.DAY:
        phase = 2 * np.pi * (seconds % forecast.DAY) / forecast.DAY
        parts.append(np.column_stack([np.sin(phase), np.cos(phase)]))
    return np.hstack(parts)


def _isolation(inputs: np.ndarray, train: int) -> np.ndarray:
    """How isolated each row is. The second half of the training is judged by the first, since rows that a forest has learnt from are less
    strange to it than any later one."""

    def by(fitted: int, rows: np.ndarray) -> np.ndarray:
        return -iforest.isolation_forest(samples=min(iforest.SAMPLES, fitted)).fit(inputs[:fitted]).score_samples(rows)

    half = max(1, train // 2)
    return np.concatenate([by(half, inputs[:train]), by(train, inputs[train:])])


def strengths(series: Series, train: int, names: Sequence[str]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Detector → (strength, flags) of each row; with `ensemble`. A strength of 1 is a score of 0.5."""
    values, interval = series.values, series.interval(train)
    inputs = forest_inputs(values, series.seconds, train)
    isolated = _isolation(inputs, train)
    chosen = [name for name in names if name in DETECTORS]
    far = [textbook.distances(column, train, chosen) for column in values.T]
    found: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    for name in names:
        if name == "iforest":
            strength = surprise(isolated, train) / _FLAGGED
            found[name] = strength, strength >= 1
        else:
            distance = np.fmax.reduce([one[name] for one in far])
            found[name] = surprise(distance, train) / _FLAGGED, np.nan_to_num(distance) >= 1
    if len(values.T) > 1:
        found["ensemble"] = shift.faults(values, train)
    else:
        column = values[:, 0]
        scaled = column / (np.ptp(np.quantile(column[:train], [0.05, 0.95])) or 1.0)
        deviations = {
            "forecast": np.abs(forecast.residuals(series.seconds, column, interval)),
            "forest": isolated,
            "value": discord.nearest_value(scaled),
            "shape": discord.nearest_shape(scaled),
            "movement": change.movement(column, train),
            "jump": change.jump(column),
        }
        strength = ensemble.combined(deviations, train)
        found["ensemble"] = strength, ensemble.alarms(strength, train)
    return found


def backtest(series: Series, train: int, names: Sequence[str] = NAMES) -> pd.DataFrame:
    """One row for each of the series: `timestamp`, and for each detector and `ensemble` `<name>_score` in [0, 1] and `<name>_flag`."""
    columns: dict[str, np.ndarray] = {"timestamp": series.timestamps}
    is_judged = np.arange(len(series.seconds)) >= train
    for name, (strength, flags) in strengths(series, train, names).items():
        columns[f"{name}_score"] = np.where(is_judged, 1 - 0.5**strength, 0.0)
        columns[f"{name}_flag"] = (is_judged & flags).astype(int)
    return pd.DataFrame(columns)


def metrics(scores: pd.DataFrame, labels: np.ndarray, train: int) -> pd.DataFrame:
    """Per detector, over the rows behind the training: how many it flags, precision, recall, F1, AUROC and average precision; NaN where
    the labels are all alike, or nothing is flagged."""
    truth = labels[train:]
    rows = []
    for column in (c for c in scores.columns if c.endswith("_score")):
        name = column.removesuffix("_score")
        score, flags = scores[column].to_numpy()[train:], scores[f"{name}_flag"].to_numpy()[train:]
        hits, flagged, positives = int((flags * truth).sum()), int(flags.sum()), int(truth.sum())
        is_mixed = 0 < positives < len(truth)
        rows.append(
            {
                "detector": name,
                "flags": flagged,
                "precision": hits / flagged if flagged else np.nan,
                "recall": hits / positives if positives else np.nan,
                "f1": 2 * hits / (flagged + positives) if flagged + positives else np.nan,
                "auroc": roc_auc_score(truth, score) if is_mixed else np.nan,
                "average_precision": average_precision_score(truth, score) if is_mixed else np.nan,
            }
        )
    return pd.DataFrame(rows)


def write_scores(scores: pd.DataFrame, path: Path) -> None:
    """Write the scores as CSV. Raises `PipelineError` where that cannot be."""
    try:
        scores.to_csv(path, index=False, float_format="%.6f")
    except OSError as error:
        raise PipelineError(f"--output {path} cannot be written: {error.strerror or error}") from error


def notes(series: Series, train: int) -> list[str]:
    """What whoever reads the scores has to know of the series."""
    found = []
    if series.missing:
        found.append(f"{series.missing:,} cells are empty: each is taken for the value before it.")
    constant = int((np.ptp(series.values, axis=0) == 0).sum())
    if constant:
        found.append(f"{constant} of {series.values.shape[1]} columns never change: there is nothing to be found in them.")
    least = shift.LEAST if series.values.shape[1] > 1 else 2 * LEAST
    if train < least:
        found.append(f"{train} training rows are few: with fewer than {least} the first rows behind them get no score.")
    return found


def print_summary(scores: pd.DataFrame, labels: np.ndarray | None, train: int, console: Console) -> None:
    """Print what each detector flags and, by labels, how good it is."""
    if labels is None:
        table = Table("detector", "flags")
        for name in (c.removesuffix("_flag") for c in scores.columns if c.endswith("_flag")):
            table.add_row(name, f"{scores[f'{name}_flag'].sum():,}")
    else:
        found = metrics(scores, labels, train)
        table = Table(*(name.replace("_", " ") for name in found.columns))
        for row in found.to_dict("records"):
            name, flags, *shares = row.values()
            table.add_row(name, f"{flags:,}", *("-" if np.isnan(share) else f"{share:.3f}" for share in shares))
    console.print(table)


def plot(series: Series, scores: pd.DataFrame, train: int, names: Sequence[str], path: Path) -> None:
    """Draw each column and the score of the ensemble, with its flags; training and labelled rows are shaded. Raises `PipelineError`."""
    shown = min(len(names), _MOST_DRAWN)
    figure = Figure(figsize=(12, 2 + 1.8 * (shown + 1)), layout="constrained")
    axes = figure.subplots(shown + 1, 1, sharex=True)
    times = (series.seconds * 1e6).astype("int64").astype("datetime64[us]")
    flagged = scores["ensemble_flag"].to_numpy() == 1
    for axis, name, column in zip(axes, names, series.values.T, strict=False):
        axis.plot(times, column, color="#3b6ea5", linewidth=0.8)
        axis.plot(times[flagged], column[flagged], "o", color="#c0392b", markersize=4, label="flag")
        axis.set_ylabel(name)
    axes[-1].plot(times, scores["ensemble_score"], color="#555555", linewidth=0.8)
    axes[-1].axhline(0.5, color="#c0392b", linestyle="--", linewidth=0.8)
    axes[-1].set(ylabel="ensemble score", ylim=(0, 1))
    for axis in axes:
        axis.axvspan(times[0], times[train - 1], color="#999999", alpha=0.15)
        if series.labels is not None and series.labels.any():
            low, high = axis.get_ylim()
            axis.fill_between(times, low, high, where=series.labels == 1, color="#e0a030", alpha=0.3, step="mid")
            axis.set_ylim(low, high)
    axes[0].set_title("Grey: learnt from. Red: flagged." + (" Yellow: labelled." if series.labels is not None else ""))
    try:
        figure.savefig(path, format="png", dpi=100)
    except OSError as error:
        raise PipelineError(f"--plot {path} cannot be written: {error.strerror or error}") from error
