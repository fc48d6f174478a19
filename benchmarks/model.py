"""How good and how fast is the model? On made-up streams whose outliers are known, and against MLflow's own way to score a table."""

import argparse
import logging
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

import mlflow
import numpy as np
import pandas as pd
from bench import ROOT, fresh_home, seconds, table, write_section
from pyspark.sql import functions as F
from pyspark.sql.types import StructType
from sklearn.metrics import average_precision_score

from laptop.bundle.load import load_bundle
from laptop.run import prepare_mlflow
from laptop.services.spark import start_session
from streaming_pipeline.core import tables
from streaming_pipeline.core.contract import load_contract
from streaming_pipeline.core.settings import Settings
from streaming_pipeline.events import synthetic
from streaming_pipeline.gold import calibration, inputs
from streaming_pipeline.gold import score as gold
from streaming_pipeline.gold.registry import load_champion
from streaming_pipeline.gold.training import train

START = datetime(2026, 3, 2, tzinfo=UTC)  # a Monday
DAYS = timedelta(days=14)
EVENTS, TRAINED_ON = 300_000, 200_000
SPEED_EVENTS = 2_000_000


def events(
    count: int = 60_000, seed: int = 1, faults: Iterable[str] | None = (), start: datetime = START
) -> tuple[pd.DataFrame, np.ndarray]:
    """Events as the model gets them, in random order, and which of them are injected outliers."""
    made = synthetic.generate(count, start=start, duration=DAYS, seed=seed, faults=faults)
    kinds = np.array([kind.name for kind in synthetic.TYPES], dtype=object)[made.type_index]
    frame = pd.DataFrame({"event_type": kinds, "value": made.value.astype(float), "timestamp_unix": made.time_ms / 1000})
    is_outlier = np.zeros(count, dtype=bool)
    is_outlier[[int(line["event_id"]) - made.first_id for line in made.truth if line["kind"] == "outlier"]] = True
    order = np.random.default_rng(seed).permutation(count)
    return frame.iloc[order].reset_index(drop=True), is_outlier[order]


def quality(seeds: int) -> list[list[str]]:
    """Rows of the table: by contamination and what the training held, mean (and worst) over the seeds."""
    rows = []
    for contamination in (0.01, 0.001):
        for faults, held in (([], "clean"), (None, "all faults")):
            found = []
            for seed in range(1, seeds + 1):
                asked, is_outlier = events(EVENTS, seed, None)
                trained_on = asked if faults is None else events(EVENTS, 100 + seed, faults)[0]
                pipeline = calibration.fit(trained_on.head(TRAINED_ON), "event_type", contamination).pipeline
                score = pipeline.decision_function(asked)
                later, _ = events(EVENTS, 200 + seed, [], START + timedelta(days=180))
                found.append(
                    (
                        np.mean(score[is_outlier] < 0),
                        np.mean(is_outlier[score < 0]),
                        average_precision_score(is_outlier, -score),
                        np.mean(pipeline.decision_function(later) < 0) / contamination,
                    )
                )
            recall, precision, average, ratio = np.array(found).T
            rows.append(
                [
                    f"{contamination:.1%}",
                    held,
                    *(f"{one.mean():.3f} ({one.min():.3f})" for one in (recall, precision, average)),
                    f"{ratio.min():.2f} to {ratio.max():.2f}",
                ]
            )
    return rows


def speed(count: int) -> dict[str, float]:
    """Seconds to score the same silver rows, nothing written: as gold does, without Spark in one thread, and by `spark_udf`."""
    home = fresh_home("model")
    spark = start_session(home)
    logging.getLogger("mlflow").setLevel(logging.ERROR)
    prepare_mlflow(home, load_bundle(ROOT, local_home=home), {})
    settings = Settings(catalog="spark_catalog", config_dir=str(ROOT / "config"), runs_dir=str(home / "runs"))
    contract = load_contract(settings.contract_path)
    tables.create_missing(spark, settings, [tables.silver_events(contract)])
    asked, _ = events(count, 1, None)
    path = str(home / "events.parquet")
    asked.to_parquet(path)
    silver = spark.read.parquet(path).select(
        F.monotonically_increasing_id().cast("string").alias("event_id"),
        "event_type",
        F.timestamp_micros((F.col("timestamp_unix") * 1e6).cast("long")).alias("timestamp"),
        "value",
    )
    silver = silver.withColumn("event_date", F.to_date("timestamp"))
    silver.repartition(2).write.format("delta").mode("append").saveAsTable(settings.table("silver_events"))
    train(spark, settings)
    champion = load_champion(settings)
    silver = spark.table(settings.table("silver_events"))
    batch = "spark.sql.execution.arrow.maxRecordsPerBatch"

    def score_as_gold() -> None:
        spark.conf.set(batch, gold.ARROW_BATCH_ROWS)
        gold.score(silver, champion, contract).write.format("noop").mode("overwrite").save()

    predicted = StructType.fromDDL("anomaly_score double, anomaly_flag int, explanation string")
    predict = mlflow.pyfunc.spark_udf(spark, f"models:/{champion.name}/{champion.version}", result_type=predicted, env_manager="local")

    def score_by_mlflow() -> None:
        spark.conf.unset(batch)
        named = F.struct(*inputs.columns(contract, champion.columns))
        silver.select(predict(named)).write.format("noop").mode("overwrite").save()

    rows = asked.head(200_000)
    for warm in (score_as_gold, score_by_mlflow):
        warm()
    result = {
        "gold": min(seconds(score_as_gold)[0] for _ in range(2)),
        "mlflow": min(seconds(score_by_mlflow)[0] for _ in range(2)),
        "pipeline": seconds(lambda: champion.pipeline.predict(rows))[0] * count / len(rows),
    }
    spark.stop()
    return result


def main() -> None:
    """Run all, and write the section of RESULTS.md."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--events", type=int, default=SPEED_EVENTS)
    options = parser.parse_args()
    took = speed(options.events)
    print(took, flush=True)
    write_section(
        "The model",
        "\n\n".join(
            [
                f"{options.seeds} streams of {EVENTS:,} events over 14 days, 0.4 % of them outliers, each scored by a model that "
                f"was trained on {TRAINED_ON:,} of these events (all faults) or of a stream without faults (clean). Mean, and in "
                "brackets the worst. The last column: flagged of clean events 180 days later, against `contamination`.",
                table(
                    ["contamination", "trained on", "recall", "precision", "average precision", "flag rate after 180 days, × target"],
                    quality(options.seeds),
                ),
                f"Scoring {options.events:,} events with explanations, nothing written: as gold does {took['gold']:.1f} s, by "
                f"`mlflow.pyfunc.spark_udf` of the same model {took['mlflow']:.1f} s: {took['mlflow'] / took['gold']:.2f} times as fast. "
                f"The model alone, without Spark, in one thread: {took['pipeline']:.1f} s.",
            ]
        ),
    )


if __name__ == "__main__":
    main()
