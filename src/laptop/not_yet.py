"""What makes a table that a young home lacks, in words: for whoever asks it before the job has come to it."""

from pathlib import Path

_MADE_BY = {
    "task 01 of a run makes it": ("bronze_events",),
    "task 02 of a run makes it": ("silver_events", "duplicate_events", "quarantined_events"),
    "task 03 of a run makes it": ("monitor_logs", "profile_metrics", "drift_metrics", "anomaly_logs", "monitor_state", "baselines"),
    "task 04 of a run makes it": ("gold_anomaly_predictions",),
    "task 05 of a run makes it": ("alert_outbox", "alert_silences"),
    "the first task that ends makes it": ("benchmark_logs", "cluster_logs"),
}


def why_missing(table: str) -> str | None:
    """Why this table is not there yet, as a sentence; None for a table that no task makes."""
    return next((f"{table} is not there yet: {how}." for how, tables in _MADE_BY.items() if table in tables), None)


def has_table(home: Path, schema: str, table: str) -> bool:
    """Whether the home has this table, without Spark."""
    return any((home / "warehouse" / f"{schema}.db" / table / "_delta_log").glob("*.json"))
