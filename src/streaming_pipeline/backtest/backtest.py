"""Would these detectors have caught it? Every detector over the history in a CSV file, row by row, each row by those before it alone.

Nothing here needs Spark. Training rows get score 0 and flag 0; all scaling is fitted on them.
"""

import os
import warnings
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table
from sklearn.metrics import average_precision_score, roc_auc_score

from streaming_pipeline.backtest.csv_series import Series
from streaming_pipeline.core.errors import PipelineError, UsageError
from streaming_pipeline.core.wording import plural
from streaming_pipeline.detectors import DETECTORS, change, discord, ensemble, forecast, iforest, shift, textbook
from streaming_pipeline.detectors.phase import DAY, phase
from streaming_pipeline.detectors.surprise import LEAST, surprise

NAMES = ("iforest", *DETECTORS)
"""The detectors that can be chosen; the ensemble is always there."""
TRAIN_FRACTION = 0.15
_MOST_DRAWN, _LONGEST_NAME, _MOST_LISTED = 6, 40, 20
_DATES = (-3e10, 2e11)
"""Seconds since 1970 that matplotlib can draw as dates, with a margin: the years 1020 to 8300."""
_FLAGGED = 3.0
"""A detector's score is 0.5 where its deviation is to be expected once in a thousand rows; the forest flags from there."""


def training_rows(rows: int, fraction: float | None, count: int | None) -> int:
    """How many rows from the first on are training; raises `UsageError` for numbers that leave none to learn from or none to judge."""
    if count is None:
        fraction = TRAIN_FRACTION if fraction is None else fraction
        if not 0 < fraction < 1:
            raise UsageError(f"--train-fraction {fraction} cannot be: it must lie between 0 and 1.")
        # 0.29 of 200 is 58, though as a float it is a little less.
        count = max(1, int(round(fraction * rows, 6)))
    if not 0 < count < rows:
        raise UsageError(f"{count} training rows of {rows} cannot be: at least one row must be learnt from, and one be judged.")
    return count


def forest_inputs(values: np.ndarray, seconds: np.ndarray, train: int) -> np.ndarray:
    """What the forest sees of each row: each value, its step, its recent mean and spread, and, if each half of the training has all times
    of day, that."""
    away = values - change.moving_mean(values, change.ROWS)
    spread = np.sqrt(np.maximum(change.moving_mean(away**2, change.ROWS), 0))
    parts = [values, np.diff(values, axis=0, prepend=values[:1]), change.moving_mean(values, 5), spread]
    if train > 8 and np.ptp(seconds[:train]) >= 2 * DAY:
        parts.append(phase(seconds, DAY))
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
    has_one = values.shape[1] == 1
    if "iforest" in names or has_one:
        isolated = _isolation(forest_inputs(values, series.seconds, train), train)
    chosen = [name for name in names if name in DETECTORS]
    far = [textbook.distances(column, train, chosen) for column in values.T] if chosen else []
    found: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    for name in names:
        if name == "iforest":
            strength = surprise(isolated, train) / _FLAGGED
            found[name] = strength, strength >= 1
        else:
            distance = np.fmax.reduce([one[name] for one in far])
            found[name] = surprise(distance, train) / _FLAGGED, np.nan_to_num(distance) >= 1
    if not has_one:
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


def chosen_detectors(names: Sequence[str]) -> tuple[str, ...]:
    """The detectors beside the ensemble: each of these once, all where none is named. Raises `UsageError` for one that there is not."""
    for name in names:
        if name not in (*NAMES, "ensemble"):
            raise UsageError(f"--detector {name} cannot be: use {', '.join(NAMES)} or ensemble.")
    return tuple(name for name in dict.fromkeys(names) if name != "ensemble") if names else NAMES


def check_places(file: Path, output: Path, picture: Path | None) -> None:
    """Raise `UsageError` where `--output` or `--plot` cannot be written, or would be written over the file read or each other."""
    taken = {os.path.realpath(file): str(file)}
    for option, place in (("--output", output), ("--plot", picture)):
        if place is None:
            continue
        if os.path.isdir(place):
            raise UsageError(f"{option} {place} is a folder: name a file in it.")
        if not os.path.isdir(place.parent):
            raise UsageError(f"{option} {place} cannot be written: there is no folder {place.parent}.")
        real = os.path.realpath(place)
        for other, name in taken.items():
            if real == other or (os.path.exists(real) and os.path.exists(other) and os.path.samefile(real, other)):
                raise UsageError(f"{option} {place} would be written over {name}: name another file.")
        taken[real] = f"--output {place}"


def backtest(series: Series, train: int, names: Sequence[str] = NAMES) -> pd.DataFrame:
    """One row for each of the series: `timestamp`, and for each detector and `ensemble` `<name>_score` in [0, 1] and `<name>_flag`."""
    columns: dict[str, np.ndarray] = {"timestamp": series.timestamps}
    is_judged = np.arange(len(series.seconds)) >= train
    for name, (strength, flags) in strengths(series, train, names).items():
        columns[f"{name}_score"] = np.where(is_judged, 1 - 0.5**strength, 0.0)
        columns[f"{name}_flag"] = (is_judged & flags).astype(int)
    return pd.DataFrame(columns)


def incidents(scores: pd.DataFrame) -> pd.DataFrame:
    """What the ensemble flags, one row for each incident, in order: `begin` and `end` (first and last row) and the highest `score`.

    It begins at a flag and ends with the last row before the next flag whose score is 0.5 or more. A further flag before the score has
    fallen below that belongs to it. The score looks back over some twenty rows, so it outlasts a short spike, and falls during a long
    incident once the series is as it was the rows before.
    """
    score, flags = scores["ensemble_score"].to_numpy(), scores["ensemble_flag"].to_numpy() == 1
    is_up = flags | (score >= 0.5)
    begins = [row for row in np.flatnonzero(flags).tolist() if not row or not is_up[row - 1]]
    found = []
    for begin, behind in pairwise([*begins, len(score)]):
        end = begin + int(np.flatnonzero(is_up[begin:behind])[-1])
        found.append((begin, end, score[begin : end + 1].max()))
    return pd.DataFrame(found, columns=["begin", "end", "score"])


def _detectors(scores: pd.DataFrame) -> list[str]:
    return [column.removesuffix("_score") for column in scores.columns if column.endswith("_score")]


def is_mixed(labels: np.ndarray) -> bool:
    """Whether there are labels of both kinds, as measures need them."""
    return bool(labels.min() != labels.max())


def metrics(scores: pd.DataFrame, labels: np.ndarray, train: int) -> pd.DataFrame:
    """Per detector, over the rows behind the training: how many it flags, precision, recall, F1, AUROC and average precision; NaN where
    the labels are all alike, or nothing is flagged."""
    truth = labels[train:]
    rows = []
    for name in _detectors(scores):
        score, flags = scores[f"{name}_score"].to_numpy()[train:], scores[f"{name}_flag"].to_numpy()[train:]
        hits, flagged, positives = int((flags * truth).sum()), int(flags.sum()), int(truth.sum())
        rows.append(
            {
                "detector": name,
                "flags": flagged,
                "precision": hits / flagged if flagged else np.nan,
                "recall": hits / positives if positives else np.nan,
                "f1": 2 * hits / (flagged + positives) if flagged + positives else np.nan,
                "auroc": roc_auc_score(truth, score) if is_mixed(truth) else np.nan,
                "average_precision": average_precision_score(truth, score) if is_mixed(truth) else np.nan,
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
        cells = plural(series.missing, "cell is empty: it", "cells are empty: each")
        found.append(f"{cells} is taken for the value before it, at the beginning for the first.")
    if len(back := series.steps_back):
        before, after = series.timestamps[[back[0] - 1, back[0]]]
        found.append(
            f"Time goes back in {plural(len(back), 'row')}, first from {before} to {after}; the rows are judged in the file's order. If "
            "these are local times of autumn, write them with a zone (+01:00) or in UTC."
        )
    constant = int((np.ptp(series.values, axis=0) == 0).sum())
    if constant:
        found.append(f"{plural(constant, 'column never changes', 'columns never change')}: there is nothing to be found.")
    if series.values.shape[1] > 1 and train < shift.LEAST:
        found.append(
            f"{train} training rows are too few: with fewer than {shift.LEAST} the ensemble of several columns scores no row at all."
        )
    if train < 2 * LEAST:
        found.append(f"{train} training rows are few: with fewer than {2 * LEAST} the first rows behind them get no score.")
    if series.labels is not None and not is_mixed(series.labels[train:]):
        found.append(f"The labels of the judged rows are all {series.labels[-1]}, so there are no measures: they need both 0 and 1.")
    return found


def print_incidents(scores: pd.DataFrame, console: Console) -> None:
    """Print where each incident begins, until when the ensemble's score stays up, and the highest score: all, or the strongest in order
    of time."""
    found = incidents(scores)
    if found.empty:
        console.print("The ensemble flags no incident.")
        return
    shown = found.nlargest(_MOST_LISTED, "score").sort_index()
    table = Table("begins", "until", "rows", "highest score")
    times = scores["timestamp"].astype(str).to_numpy()
    for one in shown.itertuples():
        table.add_row(times[one.begin], times[one.end], f"{one.end - one.begin + 1:,}", f"{one.score:.2f}")
    which = f"The {len(shown)} strongest of {len(found):,} incidents" if len(found) > len(shown) else "Incidents"
    console.print(f"{which} of the ensemble. Each is flagged where it begins; its last row is the last with a score of 0.5 or more.")
    console.print(table)


def print_summary(scores: pd.DataFrame, labels: np.ndarray | None, train: int, console: Console) -> None:
    """Print what each detector flags and, by labels of both kinds, how good it is."""
    if labels is None or not is_mixed(labels[train:]):
        table = Table("detector", "flags")
        for name in _detectors(scores):
            table.add_row(name, f"{scores[f'{name}_flag'].sum():,}")
    else:
        found = metrics(scores, labels, train)
        table = Table(*(name.replace("_", " ") for name in found.columns))
        for row in found.to_dict("records"):
            name, flags, *shares = row.values()
            table.add_row(name, f"{flags:,}", *("-" if np.isnan(share) else f"{share:.3f}" for share in shares))
    console.print(table)


def plot(series: Series, scores: pd.DataFrame, train: int, names: Sequence[str], path: Path) -> None:
    """Draw the first columns and the score of the ensemble, with its flags; training, incidents and labelled rows are shaded, and
    times that matplotlib has no date for are row numbers. Raises `PipelineError`."""
    shown = min(len(names), _MOST_DRAWN)
    figure = Figure(figsize=(12, 2 + 1.8 * (shown + 1)), layout="constrained")
    *axes, score_axis = figure.subplots(shown + 1, 1, sharex=True)
    times = np.arange(len(series.seconds))
    if series.seconds.min() >= _DATES[0] and series.seconds.max() <= _DATES[1]:
        times = (series.seconds * 1e6).astype("int64").astype("datetime64[us]")
    else:
        score_axis.set_xlabel("row")
    flagged = scores["ensemble_flag"].to_numpy() == 1
    for axis, name, column in zip(axes, names, series.values.T, strict=False):
        axis.plot(times, column, color="#3b6ea5", linewidth=0.8)
        axis.plot(times[flagged], column[flagged], "o", color="#c0392b", markersize=4, label="flag")
        # A name is no formula, and a long one leaves no room for the picture.
        axis.set_ylabel(name[:_LONGEST_NAME], parse_math=False)
    score_axis.plot(times, scores["ensemble_score"], color="#555555", linewidth=0.8)
    score_axis.axhline(0.5, color="#c0392b", linestyle="--", linewidth=0.8)
    score_axis.set(ylabel="ensemble score", ylim=(0, 1))
    found = incidents(scores)
    for axis in (*axes, score_axis):
        axis.axvspan(times[0], times[train - 1], color="#999999", alpha=0.15)
        for begin, end in zip(found["begin"], found["end"], strict=True):
            axis.axvspan(times[begin], times[end], color="#c0392b", alpha=0.15)
        if series.labels is not None and series.labels.any():
            low, high = axis.get_ylim()
            axis.fill_between(times, low, high, where=series.labels == 1, color="#e0a030", alpha=0.3, step="mid")
            axis.set_ylim(low, high)
    title = "Grey: learnt from. Dot: flagged, an incident begins. Red: until its score is below 0.5."
    title += " Yellow: labelled." if series.labels is not None else ""
    axes[0].set_title(title + (f" Columns left out: {len(names) - shown}." if len(names) > shown else ""))
    try:
        with warnings.catch_warnings():
            # A sign that the font lacks is drawn as a box.
            warnings.simplefilter("ignore")
            figure.savefig(path, format="png", dpi=100)
    except OSError as error:
        raise PipelineError(f"--plot {path} cannot be written: {error.strerror or error}") from error
