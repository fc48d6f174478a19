"""Are the model's scores still spread as at its training? If not, concept drift is suspected: without labels nobody can prove it."""

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import numpy as np
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from streaming_pipeline.core.contract import Contract
from streaming_pipeline.core.json_files import whole
from streaming_pipeline.core.settings import Settings
from streaming_pipeline.detectors.bins import SHARES, lay_bins
from streaming_pipeline.detectors.phase import DAY
from streaming_pipeline.detectors.summary import Summary
from streaming_pipeline.monitoring import baseline as baselines
from streaming_pipeline.monitoring.baseline import GOLD, Baseline
from streaming_pipeline.monitoring.drift import Drift, Pair, compare
from streaming_pipeline.monitoring.profile import ALL, ColumnProfile, Shape, bin_of
from streaming_pipeline.monitoring.windows import DAY_MINUTES, number_of, window_of

COLUMN = "anomaly_score"
_ANY_DAY, _WEEKDAYS = 0, 7
"""In place of a reference's windows: all days together, and behind them the weekdays."""
_KEPT = 3
"""So many versions of the model are judged at most, the newest."""


@dataclass(eq=False)
class Scores:
    """What is remembered of scores: when the newest that were read were written, and the days that are not over."""

    until: datetime | None = None
    next_day: int | None = None
    """The first day that was not judged."""
    open: dict[tuple[str, int], Summary] = field(default_factory=dict)
    """(model and version, day since 1970) → its scores."""

    def to_json(self) -> dict[str, Any]:
        """As JSON can hold it."""
        days = [[model, day, list(summary.edges), summary.to_json()] for (model, day), summary in self.open.items()]
        return {"until": self.until.isoformat() if self.until else None, "next_day": self.next_day, "open": days}

    @classmethod
    def from_json(cls, held: dict[str, Any]) -> "Scores":
        """What `to_json` wrote."""
        days = {(str(model), int(day)): Summary.from_json(kept, edges) for model, day, edges, kept in held["open"]}
        return cls(datetime.fromisoformat(held["until"]) if held["until"] else None, whole(held["next_day"]), days)


@dataclass(frozen=True)
class ScoreProfile:
    """What is new of gold: how many events were scored and flagged, and the days whose scores were judged."""

    records: int
    flagged: int
    judged: list[Drift]


def reference(scores: np.ndarray, seconds: np.ndarray, model_name: str, version: str) -> Baseline:
    """The scores of a model's training, in bins, as the baseline of what it scores: of all events, and, if they lie in more than a week, by
    weekday, as a model that knows the week scores each in its own way. `seconds` are the times of the events (since 1970). Its number is
    the model's version."""
    edges, _ = lay_bins(np.quantile(scores, SHARES))
    chosen = {_ANY_DAY: scores}
    days = seconds // DAY
    if len(days) and np.ptp(days) >= _WEEKDAYS:
        is_whole = (days > days.min()) & (days < days.max())
        chosen |= {_weekday(day): scores[is_whole & (days % _WEEKDAYS == day)] for day in range(_WEEKDAYS)}
    profiles = (ColumnProfile(place, ALL, COLUMN, len(some), 0, raw=Summary.of(some, edges)) for place, some in chosen.items() if len(some))
    held = {profile.key: profile for profile in profiles}
    return Baseline(int(version), GOLD, named(model_name, version), (), Shape(DAY_MINUTES, (), {COLUMN: edges}), held)


def named(model_name: str, version: str) -> str:
    """A version of a model, as its baseline is called."""
    return f"{model_name}/{version}"


def judge_scores(spark: SparkSession, settings: Settings, contract: Contract, state: Scores, now: datetime) -> ScoreProfile:
    """Read what was scored since the last look, and judge the days that are over: those before today, and before the newest day with
    scores."""
    if not spark.catalog.tableExists(settings.table(GOLD)):
        return ScoreProfile(0, 0, [])
    held = {one.name: one for one in baselines.newest_few(spark, settings, GOLD, _KEPT)}
    gold = spark.table(settings.table(GOLD))
    rows = counts(gold.where(F.col("scored_at") > F.lit(state.until)) if state.until else gold, contract, held).toArrow().to_pylist()
    for row in rows:
        state.until = max(filter(None, (state.until, row["until"].astimezone(UTC))))
        key = (row["model"], row["day"])
        if row["model"] in held and (state.next_day is None or row["day"] >= state.next_day):
            summary = _summary(row, held[row["model"]].shape.edges[COLUMN])
            state.open[key] = state.open[key].merge(summary) if key in state.open else summary
    over: dict[tuple[str, int], Summary] = {}
    if state.open:
        oldest, newest = (choose(day for _, day in state.open) for choose in (min, max))
        newest = min(newest, number_of(now, DAY_MINUTES))  # a source may date events ahead
        if state.next_day is None:
            # The stream began somewhere within its first day: such a part of a day is not like others.
            state.next_day = oldest + 1
        over = {key: summary for key, summary in state.open.items() if state.next_day <= key[1] < newest}
        state.next_day = max(state.next_day, newest)
        state.open = {key: summary for key, summary in state.open.items() if key[1] >= newest}
    pairs = list(filter(None, (_pair(held[model], day, summary) for (model, day), summary in sorted(over.items()) if model in held)))
    flagged = sum(row["flagged"] for row in rows)
    return ScoreProfile(sum(row["records"] for row in rows), flagged, compare(pairs))


def counts(gold: DataFrame, contract: Contract, held: dict[str, Baseline]) -> DataFrame:
    """`model, day, bin` and of the scores in it: `records`, `flagged`, `mean`, `variance`, `lowest`, `highest`, and `until`."""
    model = F.concat_ws("/", "model_name", "model_version")
    place = F.lit(0)
    for name, baseline in held.items():
        place = F.when(model == name, bin_of(F.col(COLUMN), baseline.shape.edges[COLUMN])).otherwise(place)
    keys = (model.alias("model"), window_of(f"`{contract.event_time_field}`", DAY_MINUTES).alias("day"), place.alias("bin"))
    return gold.groupBy(*keys).agg(
        F.count(F.lit(1)).alias("records"),
        F.count_if(F.col("anomaly_flag") == -1).alias("flagged"),
        F.avg(COLUMN).alias("mean"),
        F.var_pop(COLUMN).alias("variance"),
        F.min(COLUMN).alias("lowest"),
        F.max(COLUMN).alias("highest"),
        F.max("scored_at").alias("until"),
    )


def _summary(row: dict[str, Any], edges: tuple[float, ...]) -> Summary:
    """One bin of a day."""
    empty = Summary.empty(edges)
    for part, value in ((empty.count, row["records"]), (empty.means, row["mean"]), (empty.m2, row["variance"] * row["records"])):
        part[row["bin"]] = value
    return Summary(empty.edges, empty.count, empty.means, empty.m2, row["lowest"], row["highest"])


def _pair(training: Baseline, day: int, summary: Summary) -> Pair | None:
    """A day and what it is held against: its weekday at the training, if that knew weekdays; None if not this one."""
    place = _weekday(day) if len(training.reference) > 1 else _ANY_DAY
    then = training.reference.get((place, ALL, COLUMN))
    now = ColumnProfile(day, ALL, COLUMN, round(summary.records), 0, raw=summary)
    return Pair(now, then, "training", GOLD, DAY_MINUTES, training.baseline_id) if then else None


def _weekday(day: int) -> int:
    """Where the reference has the weekday of this day (since 1970)."""
    return _ANY_DAY + 1 + day % _WEEKDAYS
