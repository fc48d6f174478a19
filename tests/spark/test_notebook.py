"""Notebooks that ask Spark: tables on the page, and SQL cells."""

import re

from notebook_cases import run

# ---- Spark


def test_sql_cells_take_widgets_and_show_the_last_result(tmp_path, spark):
    result, page = run(
        tmp_path,
        "dbutils.widgets.text('wanted', 'b')",
        """# MAGIC %sql
# MAGIC -- a; comment
# MAGIC CREATE OR REPLACE TEMP VIEW notebook_letters AS SELECT explode(array('a;x', 'b', 'c')) AS letter;
# MAGIC SELECT upper(letter) AS found FROM notebook_letters WHERE letter = :wanted;""",
        "print('from Python:', _sqldf.first().found)",
        "# MAGIC %sql DROP VIEW notebook_letters",
        "# MAGIC %sql SELECT * FROM no_such_table",
        spark=spark,
    )
    assert "<td>B</td>" in page
    assert "from Python: B" in page
    assert ">OK<" in page
    assert '<span class="k">SELECT</span>' in page
    assert "TABLE_OR_VIEW_NOT_FOUND" in result.error.message
    assert "SQLQueryContextLogger" not in page
    assert (result.error.kind, result.error.line) == ("sql", 21)


def test_spark_frames_are_readable_tables(tmp_path, spark):
    query = """SELECT 1 AS a, 2 AS a, timestamp'2025-04-01 17:37:57.123' AS t, X'4869' AS readable, X'00ff' AS bytes,
        CAST(X'ff' AS STRING) AS bad,
        map('k', 1) AS m, array(named_struct('d', date'2025-01-02')) AS s, true AS yes, CAST(NULL AS INT) AS nothing, '<b>' AS html"""
    result, page = run(tmp_path, f"display(spark.sql('''{query}'''))\ndisplay(spark.range(1001))", spark=spark)
    assert result.error is None
    row = re.search(r"<tbody><tr>(.*?)</tr>", page)[1]
    assert re.findall(r"<td[^>]*>(.*?)</td>", row) == [
        "1",
        "2",
        "2025-04-01 17:37:57.123",
        "Hi",
        "0x00ff",
        "0xff",
        "{&quot;k&quot;: 1}",
        "[{&quot;d&quot;: &quot;2025-01-02&quot;}]",
        "true",
        '<span class="null">null</span>',
        "&lt;b&gt;",
    ]
    assert "timestamp, UTC" in page
    assert "the first 1,000 rows of more" in page

    result, _ = run(tmp_path, "display(spark.readStream.format('rate').load())", spark=spark)
    assert "streaming DataFrame is not offered" in result.error.message


def test_a_notebooks_functions_run_on_workers_and_in_foreach_batch(tmp_path, spark):
    source = tmp_path / "source"
    spark.range(3).write.json(str(source))
    result, page = run(
        tmp_path,
        "def double(frames):\n    for frame in frames:\n        yield frame * 2",
        "print('sum', spark.range(4).mapInPandas(double, 'id long').groupBy().sum().first()[0])",
        f"""def count(batch, number):
    print("batch", number, "has", batch.count())

stream = spark.readStream.schema("id long").json({str(source)!r})
checkpoint = {str(tmp_path / "checkpoint")!r}
stream.writeStream.foreachBatch(count).option("checkpointLocation", checkpoint).trigger(availableNow=True).start().awaitTermination()""",
        spark=spark,
    )
    assert result.error is None
    assert "sum 12" in page
    assert "batch 0 has 3" in page
