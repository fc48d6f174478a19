"""A series from a CSV file: times, columns of numbers, and perhaps labels; or one sentence that says what is wrong with the file."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from streaming_pipeline.errors import PipelineError, UsageError


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


def _refuse(path: Path, texts: pd.Series, wrong: np.ndarray, why: str) -> None:
    """Name the first of the cells that are wrong, if there are any."""
    if wrong.any():
        row = int(np.argmax(wrong))
        raise PipelineError(f"{path}, {_line(row)}: {texts.name} is {texts.iloc[row]!r}{why}")


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
        nanoseconds = times.dt.tz_localize(None).to_numpy(dtype="datetime64[ns]").astype("int64")
        seconds = np.where(times.isna(), np.nan, nanoseconds / 1e9)
    _refuse(path, texts, ~np.isfinite(seconds), ", which is no time. Write times as 2026-01-31 23:59:00, or in seconds since 1970.")
    is_back = np.diff(seconds, prepend=seconds[0]) < 0
    if is_back.any():
        row = int(np.argmax(is_back))
        raise PipelineError(
            f"{path}, {_line(row)}: {texts.name} {texts.iloc[row]} is before that of the line above. Sort the file by {texts.name}."
        )
    return seconds


def _numbers(path: Path, texts: pd.Series) -> np.ndarray:
    stripped = texts.str.strip()
    empty = stripped.str.lower().isin(("", "na", "nan", "null", "none"))
    numbers = pd.to_numeric(stripped.mask(empty), errors="coerce").to_numpy(dtype=float)
    _refuse(path, texts, ~(np.isfinite(numbers) | empty), ", which is no number. An empty cell is allowed.")
    if empty.all():
        raise PipelineError(f"{path}: {texts.name} has no number in any row.")
    return numbers


def _labels(path: Path, texts: pd.Series) -> np.ndarray:
    known = {"": 0, "0": 0, "0.0": 0, "false": 0, "1": 1, "1.0": 1, "true": 1}
    labels = texts.str.strip().str.lower().map(known)
    _refuse(path, texts, labels.isna().to_numpy(), "; a label is 0 or 1.")
    return labels.to_numpy(dtype=int)


def _filled(column: np.ndarray) -> np.ndarray:
    """Each missing number as the one before it; those before the first as 0, since nothing is known yet."""
    place = np.maximum.accumulate(np.where(np.isnan(column), -1, np.arange(len(column))))
    return np.where(place < 0, 0.0, column[np.maximum(place, 0)])
