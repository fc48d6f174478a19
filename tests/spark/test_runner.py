"""The runner with a real Spark: interrupts, streams and sessions of tasks."""

import signal

import pytest
from runner_cases import LOG, states

STREAM = """
import os
frame = spark.readStream.format("rate").load().selectExpr("raise_error('the disk is full') AS x")
frame.writeStream.format("noop").option("checkpointLocation", os.path.abspath("checkpoint")).start().awaitTermination()
"""


@pytest.mark.parametrize(
    ("code", "cause"),
    [
        ("spark.table('nowhere').select('a').collect()", "AnalysisException: [TABLE_OR_VIEW_NOT_FOUND] The table or view `nowhere` cannot"),
        ("spark.range(2).selectExpr('1 / (id - id)').collect()", "ArithmeticException: [DIVIDE_BY_ZERO] Division by zero."),
        ("spark._jvm.java.util.ArrayList().get(0)", "IndexOutOfBoundsException: Index 0 out of bounds for length 0"),
        (
            "from pyspark.sql.functions import udf\nspark.range(1).select(udf(lambda x: 1 / 0)('id')).collect()",
            "ZeroDivisionError: division",
        ),
        (STREAM, "[USER_RAISED_EXCEPTION] the disk is full"),
        ("raise ValueError('x' * 1000)", f"ValueError: {'x' * 187}…"),
        ("raise ValueError", "ValueError"),
    ],
)
def test_an_attempt_that_failed_is_told_with_its_cause_in_a_short_line(bench, spark, code, cause):
    bench.job({**bench.notebook("a", code), "max_retries": 1, "min_retry_interval_millis": 1})
    bench.run(spark_for_task=lambda _: spark.newSession())
    said = bench.printed.getvalue().replace("\n", " ").partition("trying again: ")[2]
    assert said.startswith(cause)


SPARK_FOR_HOURS = "spark.range(10**13).selectExpr('sum(id % 7)').collect()"


def test_spark_is_interrupted_by_a_time_limit_and_serves_the_next_task(bench, spark):
    bench.job({**bench.notebook("a", SPARK_FOR_HOURS), "timeout_seconds": 1}, bench.notebook("b", LOG + "log(spark.range(5).count())"))
    run = bench.run(spark_for_task=lambda _: spark.newSession())
    assert states(run) == {"a": "TIMEDOUT", "b": "SUCCESS"}
    assert bench.log() == ["5"]


def test_spark_is_interrupted_by_ctrl_c(bench, spark):
    press = "import os, signal, threading\nthreading.Timer(1, os.kill, (os.getpid(), signal.SIGINT)).start()\n"
    bench.job({**bench.notebook("a", press + SPARK_FOR_HOURS), "max_retries": 3})
    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        bench.run(spark_for_task=lambda _: spark.newSession())
    assert signal.getsignal(signal.SIGINT) == handler
    assert "CANCELED" in (bench.run_dir / "index.html").read_text()
    assert "py4j" not in (bench.run_dir / "a.html").read_text()
    assert spark.range(5).count() == 5
