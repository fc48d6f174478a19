"""A look's findings in the tables: what was put in is found, nothing else is, and looks in parts tell what one look tells."""

import shutil
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
from bronze_rows import DEEP, append_to_bronze, event, shipped_contract, with_field
from conftest import ROOT
from detection_cases import held
from pyspark.sql import functions as F

from streaming_pipeline.alerts.findings import read_looks
from streaming_pipeline.core import tables
from streaming_pipeline.core.contract import load_contract
from streaming_pipeline.core.errors import PipelineError, UsageError
from streaming_pipeline.core.settings import Settings
from streaming_pipeline.detectors import DETECTORS
from streaming_pipeline.events import synthetic
from streaming_pipeline.monitoring import baseline, schema
from streaming_pipeline.monitoring.detection import Asked, ask, begin_look, detect
from streaming_pipeline.monitoring.findings import Found, MonitoringRun, write
from streaming_pipeline.monitoring.state import State
from streaming_pipeline.queries import query
from streaming_pipeline.silver.cleanse import cleanse_bronze_to_silver

START = datetime(2026, 3, 2, tzinfo=UTC)
DAYS = 14
WINDOW_FAULTS = ["outlier", "spike", "gap", "drift"]


def fill_silver(spark, settings, generated, **more):
    """Silver as the pipeline would make it of these events (none of them spoilt); returns their columns, in the order of arrival."""
    contract = load_contract(settings.contract_path)
    tables.create_missing(spark, settings, [tables.silver_events(contract)])
    order = np.argsort(generated.arrival_ms, kind="stable")
    names = np.array([kind.name for kind in synthetic.TYPES])
    columns = {
        "event_id": (generated.first_id + order).astype(str),
        "event_type": names[generated.type_index[order]],
        "time_ms": generated.time_ms[order],
        "value": generated.value[order].astype(float),
        "arrival_ms": generated.arrival_ms[order],
        "offset": np.arange(len(order)),
        **more,
    }
    held = tables.silver_events(contract)
    rows = spark.createDataFrame(pa.table({name: pa.array(values, from_pandas=True) for name, values in columns.items()})).select(
        "*",
        F.timestamp_millis("time_ms").alias("timestamp"),
        F.timestamp_millis("arrival_ms").alias("kafka_timestamp"),
        F.to_date(F.timestamp_millis("time_ms")).alias("event_date"),
        F.lit("a").alias("topic_id"),
        F.lit("events").alias("topic"),
        F.lit(0).alias("partition"),
        F.lit("f").alias("contract_fingerprint"),
        F.current_timestamp().alias("processed_at"),
    )
    rows.select(*held.column_names).write.format("delta").mode("append").saveAsTable(settings.table("silver_events"))
    return columns


def look(spark, settings, contract, number, new, now):
    """One look at rows of silver."""
    begun = begin_look(spark, settings, number)
    asked = Asked() if new is None else ask(spark, settings, contract, begun, new, None, None, now)
    return detect(spark, settings, contract, begun, new, asked, now, waiting=0)


def look_at(spark, settings, columns, borders):
    """Looks at the arrivals between these places of the columns, each just behind its last arrival."""
    contract = load_contract(settings.contract_path)
    silver = spark.table(settings.table("silver_events"))
    for number, (begin, end) in enumerate(pairwise(borders), 1):
        now = datetime.fromtimestamp(columns["arrival_ms"][end - 1] / 1000 + 1, UTC)
        new = silver.where(f"offset >= {begin} AND offset < {end}") if end > begin else None
        last = look(spark, settings, contract, number, new, now)
    return last


def overlaps(row, line):
    return row["window_start"] < datetime.fromisoformat(line["window_end"]) + timedelta(minutes=3) and row[
        "window_end"
    ] > datetime.fromisoformat(line["window_start"])


@pytest.fixture(scope="module")
def faulty_events(spark, home):
    """Silver with an outlier here and there, a spike, a gap and a day of drift, in a schema of its own."""
    generated = synthetic.generate(100_000, seed=3, start=START, duration=timedelta(days=DAYS), faults=WINDOW_FAULTS)
    settings = Settings(catalog="spark_catalog", schema="faulty_events", config_dir=str(ROOT / "config"))
    columns = fill_silver(spark, settings, generated)
    yield generated, columns, settings
    shutil.rmtree(home / "warehouse" / "faulty_events.db", ignore_errors=True)


@pytest.fixture
def faulty(spark, offline_settings, faulty_events):
    """The same silver in the schema of the test."""
    generated, columns, settings = faulty_events
    tables.create_missing(spark, offline_settings, [tables.MONITOR_LOGS])
    spark.sql(f"CREATE TABLE {offline_settings.table('silver_events')} SHALLOW CLONE {settings.table('silver_events')}")
    return generated, columns


def test_each_fault_is_found_and_nothing_else(spark, offline_settings, faulty):
    generated, columns = faulty
    look_at(spark, offline_settings, columns, [0, len(columns["offset"])])
    truth = {line["kind"]: line for line in generated.truth}
    drifts = held(spark, offline_settings, "drift_metrics", "is_drift AND comparison = 'baseline'")
    assert [row for row in drifts if not overlaps(row, truth["drift"])] == []
    day = truth["drift"]["window_start"][:10]
    judged = held(spark, offline_settings, "drift_metrics", f"metric = 'psi' AND slice = '*' AND date(window_start) = '{day}'")
    judged = [row for row in judged if row["comparison"] == "baseline" and row["status"] != "unknown"]
    assert len(judged) >= 20 and all(row["is_drift"] for row in judged)
    for kind, anomaly_type in (("spike", "spike"), ("gap", "missing_pattern")):
        found = held(spark, offline_settings, "anomaly_logs", f"anomaly_type = '{anomaly_type}'")
        assert found and all(overlaps(row, truth[kind]) for row in found)
    documented = (ROOT / "docs" / "monitoring.md").read_text()
    for name, table in (("drift", "drift_metrics"), ("spikes_and_silences", "anomaly_logs"), ("strange_events", "anomaly_logs")):
        assert query(name) in documented
        assert spark.sql(query(name).replace(table, offline_settings.table(table))).collect()
    # Outliers: those behind the baseline, all of them, and next to no others: the demo's usual values end at four standard deviations.
    (made,) = held(spark, offline_settings, "baselines")
    begins = max(made["windows"]) + timedelta(hours=1)
    is_behind = {name: at >= begins.timestamp() * 1000 for name, at in zip(columns["event_id"].tolist(), columns["time_ms"], strict=True)}
    put_in = {line["event_id"] for line in generated.truth if line["kind"] == "outlier" and is_behind[line["event_id"]]}
    for detector in ("zscore", "robust_zscore", "iqr", "moving_average"):
        found = {
            row["event_id"] for row in held(spark, offline_settings, "anomaly_logs", f"event_id IS NOT NULL AND detector = '{detector}'")
        }
        assert len(found & put_in) >= 0.99 * len(put_in)
        assert len(found - put_in) <= 0.0002 * len(columns["event_id"])


def test_looks_in_parts_tell_what_one_look_tells(spark, offline_settings, faulty):
    _, columns = faulty
    size = len(columns["offset"])
    borders = [0, 1, 9_000, 9_000, 50_123, size]
    look_at(spark, offline_settings, columns, borders)
    profiles = held(spark, offline_settings, "profile_metrics", "column_name = 'value' AND baseline_id IS NOT NULL")
    (made,) = held(spark, offline_settings, "baselines")
    edges = np.array(dict(made["edges"])["value"])
    window = columns["time_ms"] // 3_600_000
    first_place = borders[made["look"] - 1]
    by_window = {}
    for row in profiles:
        by_window.setdefault((int(row["window_start"].timestamp()) // 3600, row["slice"]), []).append(row)
    checked = 0
    for (number, slice_name), rows in by_window.items():
        chosen = (window == number) & (np.arange(size) >= first_place)
        if slice_name != "*":
            chosen &= columns["event_type"] == slice_name
        values = columns["value"][chosen]
        assert sum(row["records"] for row in rows) == len(values)
        assert np.array_equal(
            sum(np.array(row["bin_counts"]) for row in rows), np.bincount(np.searchsorted(edges, values), minlength=len(edges) + 1)
        )
        weights = [row["records"] for row in rows]
        mean = np.average([row["avg"] for row in rows], weights=weights)
        square = np.average([row["stddev"] ** 2 + row["avg"] ** 2 for row in rows], weights=weights)
        assert mean == pytest.approx(values.mean(), rel=1e-9)
        assert square - mean**2 == pytest.approx(values.var(), rel=1e-9)
        assert (min(row["min"] for row in rows), max(row["max"] for row in rows)) == (values.min(), values.max())
        quantiles = dict(rows[0]["quantiles"])
        if len(rows) == 1:
            largest = max(rows[0]["bin_counts"]) / len(values)
            assert all(abs((values <= quantiles[f"p{q:02}"]).mean() - q / 100) <= largest for q in (5, 25, 50, 75, 95))
        checked += len(rows) > 1
    assert checked >= 3  # windows that two looks have seen
    # Every window that has closed was judged once.
    judged = held(spark, offline_settings, "drift_metrics", "metric = 'ks' AND slice = '*' AND comparison = 'baseline'")
    starts = [row["window_start"] for row in judged]
    assert len(starts) == len(set(starts)) and min(starts) == max(made["windows"]) + timedelta(hours=1)
    assert max(starts) == START + timedelta(days=DAYS, hours=-2)
    # Distinct values, merged in SQL: ids exactly, values to a few per cent.
    sql = f"""SELECT column_name, sum(distinct_count) AS counted, hll_sketch_estimate(hll_union_agg(distinct_sketch)) AS estimated
        FROM {offline_settings.table("profile_metrics")} WHERE slice = '*' GROUP BY column_name"""
    distinct = {row["column_name"]: row for row in spark.sql(sql).collect()}
    assert distinct["event_id"]["counted"] == size
    assert distinct["value"]["estimated"] == pytest.approx(len(np.unique(columns["value"])), rel=0.1)


def test_a_look_that_did_not_come_to_its_end_is_made_again_and_tells_nothing_twice(spark, offline_settings, faulty):
    _, columns = faulty
    size = len(columns["offset"])
    contract = shipped_contract()
    silver = spark.table(offline_settings.table("silver_events"))
    names = ("profile_metrics", "drift_metrics", "anomaly_logs", "monitor_state", "baselines")
    now = datetime.fromtimestamp(columns["arrival_ms"][-1] / 1000 + 1, UTC)
    first = silver.where("offset < 50000")
    middle = datetime.fromtimestamp(columns["arrival_ms"][49_999] / 1000 + 1, UTC)
    look(spark, offline_settings, contract, 1, first, middle)
    counts = []
    for _ in range(2):
        look(spark, offline_settings, contract, 2, silver.where("offset >= 50000"), now)
        counts.append({name: len(held(spark, offline_settings, name)) for name in names})
    assert counts[0] == counts[1] and all(counts[0].values())
    records = held(spark, offline_settings, "profile_metrics", "slice = '*' AND column_name = 'event_id'")
    assert sum(row["records"] for row in records) == size


def test_fields_that_may_be_empty_and_times_that_cannot_be(spark, offline_settings, tmp_path):
    changed = replace(with_field(offline_settings, tmp_path, "channel"), baseline_windows=3)
    generated = synthetic.generate(3_000, seed=1, start=START, duration=timedelta(hours=6), faults=[])
    size = len(generated.time_ms)
    generated.arrival_ms[0] = 0  # a producer that knows no time
    generated.arrival_ms[-1] = int(datetime(2999, 1, 1, tzinfo=UTC).timestamp() * 1000)
    values = [None if n % 4 == 0 else f"c{n % 700}" for n in range(size)]
    columns = fill_silver(spark, changed, generated, channel=values)
    contract = load_contract(changed.contract_path)
    now = START + timedelta(hours=6)
    look(spark, changed, contract, 1, spark.table(changed.table("silver_events")), now)
    rows = held(spark, changed, "profile_metrics", "column_name = 'channel' AND slice = '*'")
    assert (sum(row["records"] for row in rows), sum(row["nulls"] for row in rows)) == (size, sum(v is None for v in values))
    assert held(spark, changed, "anomaly_logs") == []
    assert len(columns["offset"]) == size


def test_a_retyped_field_is_told_from_which_type_to_which(spark, offline_settings):
    contract = shipped_contract()
    frame = b"\x00\x00\x00\x00\x07"
    wrong = [frame + event(f"f{n}", value="n/a \x1b[1m") for n in range(30)] + [event(f"o{n}", value={"amount": 3}) for n in range(20)]
    deep = event("d").replace(b'"10"', DEEP)
    append_to_bronze(spark, offline_settings, [event("a"), *wrong, deep, event("t", timestamp=17), event("m", value=None)])
    cleanse_bronze_to_silver(spark, offline_settings)
    quarantined = spark.table(offline_settings.table("quarantined_events"))
    rejected = schema.rejections(quarantined, 60)
    told = schema.retyped(quarantined, contract, rejected)
    assert told == {"value": 'number by the contract, now string such as "n/a \\u001b[1m"'}
    assert schema.retyped(quarantined, contract, {(1, "wrong_type:value"): 19}) == {}
    drift = schema.changes(schema.Known(), [], {(6, "wrong_type:value"): 50, (6, "*"): 50}, {6: 60}, 60, told)
    found = Found({}, drift, [], None, None, False)
    tables.create_missing(spark, offline_settings, [tables.ANOMALY_LOGS])
    write(spark, offline_settings, MonitoringRun(1, "test", START, 60), State(), found)
    row = {"run_time": START, "look": 1, "run_id": "test", "table_name": "silver_events", "findings": {"schema_change": 1}}
    tables.append_rows(spark, offline_settings, tables.MONITOR_LOGS, [row])
    ((_, [finding]),) = read_looks(spark, offline_settings, datetime(2020, 1, 1, tzinfo=UTC), {"schema_change"}, False)
    assert finding.text.startswith("Field value has another type (number by the contract, now string such as ")


def test_a_new_baseline_is_a_command_and_in_force_from_the_next_look_on(spark, offline_settings):
    """Values move for good on the fifth day: drift until a new baseline is set, and none behind it."""
    settings = replace(offline_settings, baseline_windows=48)
    generated = synthetic.generate(60_000, seed=5, start=START, duration=timedelta(days=7), faults=[])
    moved = generated.time_ms >= (START + timedelta(days=4)).timestamp() * 1000
    generated.value[moved] = np.rint(generated.value[moved] * 1.6).astype(np.int64)
    first_of_last_day = int(np.searchsorted(generated.time_ms, (START + timedelta(days=6, minutes=5)).timestamp() * 1000))
    generated.value[first_of_last_day] = 10**7
    columns = fill_silver(spark, settings, generated)
    contract, silver = shipped_contract(), spark.table(settings.table("silver_events"))
    border = int(np.searchsorted(columns["arrival_ms"], (START + timedelta(days=6)).timestamp() * 1000))
    at = lambda place: datetime.fromtimestamp(columns["arrival_ms"][place] / 1000 + 1, UTC)  # noqa: E731
    look(spark, settings, contract, 1, silver.where(f"offset < {border}"), at(border - 1))
    psi = "metric = 'psi' AND slice = '*' AND comparison = 'baseline'"
    assert {row["is_drift"] for row in held(spark, settings, "drift_metrics", f"{psi} AND window_start >= '2026-03-06'")} == {True}

    begin, end = (str(START + timedelta(days=days)) for days in (4, 6))
    made = baseline.set_baseline(spark, settings, baseline.BaselineRequest.from_texts("after the change", begin, end))
    assert (made.baseline_id, made.windows) == (2, 48)
    assert made.note.startswith("baseline 2 (after the change) is made from 48 windows of 1 hour; ")
    assert "fewer than the usual 72" in made.note
    assert "fewer" not in replace(made, windows=72).note
    look(spark, settings, contract, 2, silver.where(f"offset >= {border}"), at(-1))
    second = held(spark, settings, "drift_metrics", f"{psi} AND look = 2")
    assert len(second) >= 20 and {(row["baseline_id"], row["is_drift"]) for row in second} == {(2, False)}
    # What the baseline held is remembered: its first hour is judged already.
    strange = held(spark, settings, "anomaly_logs", f"look = 2 AND event_id = '{generated.first_id + first_of_last_day}'")
    assert {row["detector"] for row in strange} == set(DETECTORS)
    assert [row["name"] for row in sorted(held(spark, settings, "baselines"), key=lambda row: row["baseline_id"])] == [
        baseline.FIRST,
        "after the change",
    ]

    # Without a period: the newest windows, but for those with a spike or a silence.
    spark.sql(
        f"INSERT INTO {settings.table('anomaly_logs')} (anomaly_type, window_start, window_end) VALUES "
        "('spike', TIMESTAMP'2026-03-08T20:10:00Z', TIMESTAMP'2026-03-08T20:25:00Z'), "
        "('missing_pattern', TIMESTAMP'2026-03-08T10:30:00Z', TIMESTAMP'2026-03-08T12:00:00Z'), "
        "('degradation', NULL, NULL)"
    )
    made = baseline.set_baseline(spark, replace(settings, baseline_windows=10), baseline.BaselineRequest("newest"))
    [row] = held(spark, settings, "baselines", f"baseline_id = {made.baseline_id}")
    hours = sorted(window.hour for window in row["windows"])
    # The last hour is not over.
    assert hours == [12, 13, 14, 15, 16, 17, 18, 19, 21, 22]

    for texts, said in (
        (("x", "2026-03-01", ""), r"both 'from_time' \(--from\) and 'until_time' \(--until\)"),
        (("x", "2026-03-02", "2026-03-01"), "'until_time' is '2026-03-01'"),
        (("x", "soon", "2026-03-01"), "'from_time' is 'soon'"),
    ):
        with pytest.raises(UsageError, match=said):
            baseline.BaselineRequest.from_texts(*texts)
    with pytest.raises(PipelineError, match="no window of 1 hour has 100 events"):
        baseline.set_baseline(spark, settings, baseline.BaselineRequest.from_texts("x", "2025-03-01", "2025-03-02"))
    with pytest.raises(
        PipelineError, match=r"clean windows of 1 hour, and the baseline needs 9000\. .* \(--windows, parameter 'baseline_windows'\)"
    ):
        baseline.set_baseline(spark, replace(settings, baseline_windows=9_000), baseline.BaselineRequest("x"))
