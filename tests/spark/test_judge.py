"""The judge against tables that the real rules made of two productions, and against tables spoilt on purpose."""

import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from bronze_rows import KAFKA_SCHEMA, shipped_contract

from laptop.report.judge import Verdict, judge
from streaming_pipeline.bronze.ingest import to_bronze
from streaming_pipeline.core import tables
from streaming_pipeline.core.errors import UsageError
from streaming_pipeline.core.settings import Settings
from streaming_pipeline.events.synthetic import FAULTS, generate, write_ground_truth
from streaming_pipeline.silver.cleanse import cleanse_bronze_to_silver

ROOT = Path(__file__).parents[2]
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
PRODUCTIONS = [
    generate(8_000, start=datetime(2025, 4, 1, tzinfo=UTC), seed=1),
    generate(8_000, start=datetime(2025, 4, 1, 5, 30, tzinfo=UTC), seed=2),
]
INJECTED = {
    **{kind: sum(line["kind"] == kind for production in PRODUCTIONS for line in production.truth) for kind in FAULTS},
    "new_field": sum(line["valid_events"] for production in PRODUCTIONS for line in production.truth if line["kind"] == "new_field"),
    "records": sum(len(production) for production in PRODUCTIONS),
}


OF_KIND = {kind: [line for production in PRODUCTIONS for line in production.truth if line["kind"] == kind] for kind in FAULTS}
HOUR = 3600
LATE_BY_AN_HOUR = [line for line in OF_KIND["late"] if line["late_seconds"] > HOUR]


@pytest.fixture
def truth_path(tmp_path):
    path = tmp_path / "ground_truth.jsonl"
    for production in PRODUCTIONS:
        write_ground_truth(path, production.truth)
    return path


@pytest.fixture(scope="module")
def cleansed(spark, tmp_path_factory) -> Settings:
    """Settings of a schema with silver, duplicates and quarantine as the pipeline's own rules made them of the records."""
    folder = tmp_path_factory.mktemp("judge")
    places = {"config_dir": str(ROOT / "config"), "checkpoint_dir": str(folder / "checkpoints"), "runs_dir": str(folder / "runs")}
    settings = Settings(catalog="spark_catalog", schema="judged", **places)
    rows = [
        (record.key, record.value, "events", 0, offset, EPOCH + timedelta(milliseconds=record.timestamp_ms), 0)
        for offset, record in enumerate(record for production in PRODUCTIONS for record in production)
    ]
    tables.create_missing(spark, settings, [tables.bronze_events(shipped_contract())])
    bronze = to_bronze(spark.createDataFrame(rows, KAFKA_SCHEMA), shipped_contract(), "topic-a")
    bronze.coalesce(1).write.format("delta").mode("append").saveAsTable(settings.table("bronze_events"))
    cleanse_bronze_to_silver(spark, settings)
    return settings


@pytest.fixture
def spoilt(spark, cleansed, offline_settings) -> Settings:
    """A copy of these tables that lacks one late event, one re-delivery and the tombstones, and has one wrong reason."""
    of = {
        "silver_events": f"SELECT * FROM {{}} WHERE event_id <> '{LATE_BY_AN_HOUR[0]['event_id']}'",
        "duplicate_events": f"SELECT * FROM {{}} WHERE event_id <> '{OF_KIND['redelivery'][0]['event_id']}'",
        "quarantined_events": "SELECT * EXCEPT (reasons), "
        f"if(sha2(raw_payload, 256) = '{OF_KIND['wrong_type'][0]['payload_sha256']}', array('other'), reasons) AS reasons "
        "FROM {} WHERE raw_payload IS NOT NULL",
    }
    spark.sql(f"CREATE SCHEMA `{offline_settings.schema}`")
    for name, query in of.items():
        copy = spark.sql(query.format(cleansed.table(name)))
        copy.write.format("delta").saveAsTable(offline_settings.table(name))
    return offline_settings


def score(spark, settings, flagged_ids) -> None:
    """Gold as a model would have made it that flags just these events."""
    ids = spark.createDataFrame([(event_id, -1) for event_id in flagged_ids], "event_id string, anomaly_flag int")
    scored = spark.table(settings.table("silver_events")).join(ids, on="event_id", how="left").na.fill(1, ["anomaly_flag"])
    scored.select("event_id", "anomaly_flag").write.format("delta").saveAsTable(settings.table("gold_anomaly_predictions"))


def make_table(spark, settings, name, rows, **columns) -> None:
    """A table of findings; times come as texts."""
    frame = spark.createDataFrame(
        rows, ", ".join(f"{column} {'string' if kind == 'timestamp' else kind}" for column, kind in columns.items())
    )
    casts = [f"CAST({column} AS {kind}) AS {column}" for column, kind in columns.items()]
    frame.selectExpr(*casts).write.format("delta").saveAsTable(settings.table(name))


def judged(spark, settings, truth_path) -> dict[str, Verdict]:
    return {verdict.kind: verdict for verdict in judge(spark, settings, truth_path)}


def test_before_the_first_run_nothing_is_found_and_the_notes_say_why(spark, offline_settings, truth_path):
    verdicts = judge(spark, offline_settings, truth_path)
    assert {verdict.kind: verdict.injected for verdict in verdicts} == INJECTED
    assert [verdict.kind for verdict in verdicts] == [*FAULTS, "records"]
    assert {verdict.found for verdict in verdicts} == {0}
    assert all("does not exist yet" in verdict.note for verdict in verdicts)


def test_the_rules_find_every_injected_fault(spark, cleansed, truth_path):
    verdicts = judged(spark, cleansed, truth_path)
    for kind in ("redelivery", "malformed", "wrong_type", "missing_field", "late", "new_field", "records"):
        assert verdicts[kind].found == verdicts[kind].injected == INJECTED[kind], verdicts[kind]
    for kind in ("spike", "gap", "drift"):
        assert verdicts[kind] == (kind, 2, 0, f"the table {'drift_metrics' if kind == 'drift' else 'anomaly_logs'} does not exist yet")
    assert verdicts["outlier"].note == "the table gold_anomaly_predictions does not exist yet"
    summaries = [production.truth[0] for production in PRODUCTIONS]
    for name, expected in (
        ("silver_events", sum(summary["valid_events"] for summary in summaries)),
        ("duplicate_events", sum(summary["duplicates"] for summary in summaries)),
        ("quarantined_events", sum(sum(summary["quarantined"].values()) for summary in summaries)),
    ):
        assert f"{expected:,} in {name} ({expected:,} expected)" in verdicts["records"].note


def test_what_is_missing_is_counted_and_what_detectors_say(spark, spoilt, truth_path):
    high = [line["event_id"] for line in OF_KIND["outlier"] if line["variant"] == "high"]
    score(spark, spoilt, [*high, *(line["event_id"] for line in LATE_BY_AN_HOUR[1:6])])
    first_spike, *_ = OF_KIND["spike"]
    findings = [
        ("spike", first_spike["window_start"], first_spike["window_end"]),
        ("spike", "2025-04-01T00:00:00Z", "2025-04-01T01:00:00Z"),
        *[("missing_pattern", gap["window_start"], gap["window_end"]) for gap in OF_KIND["gap"]],
    ]
    make_table(spark, spoilt, "anomaly_logs", findings, anomaly_type="string", window_start="timestamp", window_end="timestamp")
    metrics = [(day["window_start"], day["window_end"], False, "baseline", "psi") for day in OF_KIND["drift"]]
    columns = {"window_start": "timestamp", "window_end": "timestamp", "is_drift": "boolean", "comparison": "string", "metric": "string"}
    make_table(spark, spoilt, "drift_metrics", metrics, **columns)

    # What "late" means is the settings': the truth's own seconds decide what must be found.
    verdicts = judged(spark, replace(spoilt, late_after_seconds=HOUR), truth_path)
    assert verdicts["late"].injected == len(LATE_BY_AN_HOUR) < INJECTED["late"]
    tombstones = sum(line["variant"] == "tombstone" for line in OF_KIND["malformed"])
    missing = {kind: verdict.injected - verdict.found for kind, verdict in verdicts.items()}
    assert missing == {
        "redelivery": 1,
        "malformed": tombstones,
        "wrong_type": 1,
        "missing_field": 0,
        "late": 1,
        "outlier": INJECTED["outlier"] - len(high),
        "spike": 1,
        "gap": 0,
        "drift": 2,
        "new_field": 0,
        "records": tombstones + 2,
    }
    assert verdicts["wrong_type"].note == "1 record was rejected for another reason"
    assert verdicts["malformed"].note == f"{tombstones} records are not in quarantined_events"
    assert f"high {len(high)} of {len(high)}" in verdicts["outlier"].note
    assert f"precision {len(high) / (len(high) + 5):.1%} of {len(high) + 5} flagged events" in verdicts["outlier"].note
    assert verdicts["spike"].note.startswith("1 other incident of this kind in anomaly_logs")
    # Whoever makes a small demo is told why less is found.
    assert re.fullmatch(
        r"no such finding in drift_metrics: [1-9]\d? events? an hour, and a window is judged only with 100 or more", verdicts["drift"].note
    )


def test_without_truth_there_is_nothing_to_judge_by(spark, offline_settings, tmp_path):
    with pytest.raises(UsageError, match="does not exist: produce events here first"):
        judge(spark, offline_settings, tmp_path / "ground_truth.jsonl")
    other = tmp_path / "other.jsonl"
    other.write_text("not json\n")
    with pytest.raises(UsageError, match="this project's generator did not write it"):
        judge(spark, offline_settings, other)
