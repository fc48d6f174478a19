"""A series from a CSV file: times, columns of numbers, and perhaps labels; or one sentence that says what is wrong with the file."""

import csv
import io
import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
from pandas.tseries.api import guess_datetime_format

from streaming_pipeline.core.errors import PipelineError, UsageError
from streaming_pipeline.core.wording import plural

_EXCEL = re.compile(r'\A(\s*)"?sep=(\t|[^\w\s"])"?(?=[\r\n])', re.IGNORECASE)
"""The first line by which Excel is told the separator."""
_COMPACT = {8: "%Y%m%d", 12: "%Y%m%d%H%M", 14: "%Y%m%d%H%M%S"}
"""Digits → the time that so many of them are, if those of the first row are one."""
_UNITS = ((1e11, 1.0), (1e14, 1e3), (1e17, 1e6), (np.inf, 1e9))
"""Numbers up to the first are times since 1970 in the second to a second."""
_EMPTY = ("", "-", "na", "n/a", "#n/a", "nan", "null", "none")
_LARGEST, _SMALLEST = 1e30, 1e-30
"""Squares and quotients of numbers between these can be computed with; no measurement lies outside."""
_LATEST = 1e15


@dataclass(frozen=True)
class Series:
    """A file: its timestamps as they stand there and in seconds, one column of numbers for each value, and labels if there are any."""

    timestamps: np.ndarray
    seconds: np.ndarray
    values: np.ndarray
    labels: np.ndarray | None
    missing: int
    """Cells without a number: each stands for the one before it, those before the first number for that."""
    begins: Mapping[str, int] = field(default_factory=dict)
    """Column → row of its first number."""

    @property
    def steps_back(self) -> np.ndarray:
        """Numbers of the rows whose time is before that of the row above."""
        return 1 + np.flatnonzero(np.diff(self.seconds) < 0)

    def interval(self, train: int) -> float:
        """The usual number of seconds from row to row in the first `train` rows; 0 if there is none."""
        steps = np.diff(self.seconds[:train])
        return float(np.median(steps)) if len(steps) else 0.0

    def check_begins(self, path: Path, train: int) -> None:
        """Raise `PipelineError` for a column of this file that has no number in the first `train` rows."""
        for name, begin in self.begins.items():
            if begin >= train:
                raise PipelineError(
                    f"{path}: {name} has no number in the {train} training rows: leave it out, or learn from more than {begin} rows."
                )


def read_series(path: Path, timestamp: str, values: Sequence[str], label: str | None) -> Series:
    """Read a CSV file (comma, semicolon or tab). Raises `PipelineError` that names the line and the column of what cannot be used."""
    wanted = [timestamp, *values, *([label] if label else [])]
    for name in wanted:
        if wanted.count(name) > 1:
            raise UsageError(f"The column {name!r} is asked for twice: the time, each --value and the label are columns of their own.")
    lines, columns = _columns(path, wanted)
    cells = [_Cells(path, name, pd.Series(column, dtype=object), lines) for name, column in zip(wanted, columns, strict=True)]
    seconds = _seconds(cells[0])
    numbers = [_numbers(column) for column in cells[1 : len(values) + 1]]
    begins = {name: int(np.argmax(~np.isnan(column))) for name, column in zip(values, numbers, strict=True)}
    filled = [pd.Series(column).ffill().bfill() for column in numbers]
    missing = int(sum(np.isnan(column).sum() for column in numbers))
    labels = _labels(cells[-1]) if label else None
    return Series(cells[0].texts.to_numpy(), seconds, np.column_stack(filled), labels, missing, begins)


def _columns(path: Path, wanted: Sequence[str]) -> tuple[list[int], list[tuple[str, ...]]]:
    """(line of each row, cells of each wanted column)."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError as error:
        raise UsageError(f"There is no file {path}.") from error
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        line = len((error.object[: error.start] + b".").splitlines())
        raise PipelineError(f"{path}, line {line} is no UTF-8: save the file as UTF-8.") from error
    excel = _EXCEL.match(text)
    text = _EXCEL.sub(r"\1", text)
    headers = {separator: _header(path, text, separator) for separator in (excel[2] if excel else ",;\t")}
    if not any(headers.values()):
        raise PipelineError(f"{path} cannot be read as CSV: it is empty.")
    separator = max(headers, key=lambda one: (sum(name in headers[one] for name in wanted), len(headers[one])))
    header = headers[separator]
    for name in wanted:
        if name not in header:
            raise UsageError(f"{path} has no column {name!r}; it has {', '.join(header)}.")
        if header.count(name) > 1:
            raise PipelineError(f"{path} has the column {name!r} {header.count(name)} times: give each a name of its own.")
    places = [header.index(name) for name in wanted]
    rows = _rows(path, text, separator)
    next(rows)
    lines, kept = [], []
    for line, fields in rows:
        if len(fields) != len(header):
            raise PipelineError(
                f"{path}, line {line} has {plural(len(fields), 'field')}, the header {len(header)}: put what holds the separator in "
                "quotes, close every quote, and write numbers with a point."
            )
        lines.append(line)
        kept.append([fields[place] for place in places])
    if not kept:
        raise PipelineError(f"{path} has a header and no rows.")
    return lines, list(zip(*kept, strict=True))


def _header(path: Path, text: str, separator: str) -> list[str]:
    _, fields = next(_rows(path, text, separator), (0, []))
    return [name.strip() for name in fields]


def _rows(path: Path, text: str, separator: str) -> Iterator[tuple[int, list[str]]]:
    """(line in which it begins, fields) of each row that is not blank."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, skipinitialspace=True)
    line = 1
    try:
        for fields in reader:
            if len(fields) > 1 or "".join(fields).strip():
                yield line, fields
            line = reader.line_num + 1
    except csv.Error as error:
        raise PipelineError(f"{path}, line {line} cannot be read as CSV ({error}): close the quote that begins there.") from error


@dataclass(frozen=True)
class _Cells:
    """A column as it stands in a file, and the line of each row."""

    path: Path
    name: str
    texts: pd.Series
    lines: list[int]

    def refuse(self, wrong: np.ndarray, why: Callable[[str], str]) -> None:
        """Name the first of the cells that are wrong, if there are any, and say why."""
        if wrong.any():
            row = int(np.argmax(wrong))
            text = self.texts[row]
            raise PipelineError(f"{self.path}, line {self.lines[row]}: {self.name} {why(text if len(text) < 60 else text[:60] + '…')}")


def _seconds(cells: _Cells) -> np.ndarray:
    texts = cells.texts.str.strip()
    numbers = pd.to_numeric(texts, errors="coerce").to_numpy(dtype=float)
    digits = len(texts[0])
    is_compact = digits in _COMPACT and texts.str.fullmatch(f"[0-9]{{{digits}}}").all()
    compact = pd.to_datetime(texts, format=_COMPACT[digits], errors="coerce") if is_compact else None
    if compact is not None and pd.notna(compact[0]):
        seconds = _as_seconds(compact)
    elif np.isfinite(numbers).all():
        # By the first row alone, or what is said of a row would hang on later ones.
        seconds = numbers / next(unit for most, unit in _UNITS if abs(numbers[0]) <= most)
    else:
        seconds = _parsed(texts, day_first=False)
        if any(_wrong(seconds)):
            by_day = _parsed(texts, day_first=True)
            seconds = min(seconds, by_day, key=_wrong)
    cells.refuse(
        ~(np.abs(seconds) <= _LATEST),
        lambda text: f"is {text!r}, which is no time. Write times as 2026-01-31 23:59:00, or in seconds since 1970.",
    )
    steps = np.diff(seconds)
    if (steps < 0).sum() > (steps > 0).sum():
        raise PipelineError(f"{cells.path}: {cells.name} goes back from row to row more often than on. Sort the file by it, oldest first.")
    return seconds


def _parsed(texts: pd.Series, day_first: bool) -> np.ndarray:
    """Seconds since 1970 of dates and times, NaN for what is none; 01/02/2026 is a day of January or of February."""
    # Words such as "now" mean the time of this run.
    texts = texts.where(texts.str.contains(r"[0-9]"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        times = pd.to_datetime(texts, errors="coerce", utc=True, format="ISO8601")
        # Each by itself is slow; most files have one format, whose days up to the 12th look like two.
        for may_guess in (True, True, True, False):
            rest = texts[times.isna()].dropna()
            guesses = [guess_datetime_format(text, dayfirst=day_first) for text in rest[:20]] if may_guess else ["mixed"]
            if any(guesses):
                form = next(filter(None, guesses))
                times = times.fillna(pd.to_datetime(rest, errors="coerce", utc=True, format=form, dayfirst=day_first))
    return _as_seconds(times.dt.tz_localize(None))


def _as_seconds(times: pd.Series) -> np.ndarray:
    nanoseconds = times.to_numpy(dtype="datetime64[ns]").astype("int64")
    return np.where(times.isna(), np.nan, nanoseconds / 1e9)


def _wrong(seconds: np.ndarray) -> tuple[int, int]:
    """(how many are no time, how often they step back)."""
    return int(np.isnan(seconds).sum()), int((np.diff(seconds) < 0).sum())


def _numbers(cells: _Cells) -> np.ndarray:
    """The numbers of a column, NaN for empty cells."""
    texts = cells.texts.str.strip()
    is_empty = texts.str.lower().isin(_EMPTY).to_numpy()
    numbers = pd.to_numeric(texts.mask(is_empty), errors="coerce").to_numpy(dtype=float)

    def why(text: str) -> str:
        if re.fullmatch(r"[-+]?[0-9. ]*,[0-9]+", text.strip()):
            return f"is {text!r}, which is no number: write a point for the decimal comma."
        return f"is {text!r}, which is no number. An empty cell is allowed."

    cells.refuse(~(np.isfinite(numbers) | is_empty), why)
    cells.refuse(
        np.abs(numbers) > _LARGEST,
        lambda text: f"is {text}, beyond 1e30: if it is a placeholder for a missing value, leave the cell empty.",
    )
    if is_empty.all():
        raise PipelineError(f"{cells.path}: {cells.name} has no number in any row.")
    return np.where(np.abs(numbers) < _SMALLEST, 0.0, numbers)


def _labels(cells: _Cells) -> np.ndarray:
    known = {"": 0, "0": 0, "0.0": 0, "false": 0, "1": 1, "1.0": 1, "true": 1}
    labels = cells.texts.str.strip().str.lower().map(known)
    cells.refuse(labels.isna().to_numpy(), lambda text: f"is {text!r}; a label is 0 or 1.")
    return labels.to_numpy(dtype=int)
