"""What a producer writes into a record is text wherever it is shown: it moves no cursor, forges no line and hides behind no other name."""

import pytest
from bronze_rows import append_to_bronze, event
from foreign_cases import FOREIGN, assert_is_text

from laptop import cli
from laptop.report.report import write_report
from laptop.services.spark import _LOG4J
from laptop.sql import run_query
from streaming_pipeline.alerts.send import send_alerts
from streaming_pipeline.core.errors import UsageError
from streaming_pipeline.core.foreign_text import harmless
from streaming_pipeline.events.producer import produce
from streaming_pipeline.events.synthetic import Record
from streaming_pipeline.monitoring.monitor import monitor_silver_events
from streaming_pipeline.silver.cleanse import cleanse_bronze_to_silver


def test_of_a_look_at_the_topic(broker, kafka_mtls, home, monkeypatch, capsys):
    for key, value in broker.secrets("SSL", kafka_mtls.topic).items():
        monkeypatch.setenv(key, value)
    produce(kafka_mtls, [Record(FOREIGN.encode(), FOREIGN.encode(), None), Record(None, b"x" * 1_000_000, None)])
    assert cli.main(["consume", "--home", str(home)]) == 0
    shown = capsys.readouterr().out
    assert_is_text(shown)
    assert len(shown) < 110_000


def test_on_its_way_through_all_stages_into_tables_mails_and_the_report(spark, offline_settings, home, mailbox, capsys):
    """Field names, ids and rejected values, through the real tables."""
    settings, (box, secrets) = offline_settings, mailbox
    payloads = [event(f"{n} {FOREIGN}", **{FOREIGN: 1}) for n in range(5)] + [event(f"r{n}", event_type=FOREIGN) for n in range(3)]
    payloads += [f"{n} {FOREIGN}".encode() for n in range(3)]
    append_to_bronze(spark, settings, payloads)
    cleanse_bronze_to_silver(spark, settings)
    assert_is_text(monitor_silver_events(spark, settings).note)

    before = len(box.mails)
    sending = send_alerts(spark, settings, {}, lambda: secrets)
    assert_is_text(capsys.readouterr().out)
    assert len(box.mails) == before + 1
    assert_is_text(box.mails[-1]["Subject"])
    for kind in ("plain", "html"):
        assert_is_text(box.mails[-1].get_body((kind,)).get_content(), 2)
    # The query of the mail still finds the field by its name.
    [alert] = [alert for alert in sending.new if alert.metric == "schema_added"]
    assert [row["column_name"] for row in spark.sql(alert.query).collect()] == [FOREIGN]
    assert harmless(alert.query) == alert.query

    assert_is_text(write_report(spark, settings, home).read_text(encoding="utf-8"), 5, is_html=True)
    assert cli.main(["quarantine", "list", "--home", str(home), "--schema", settings.schema]) == 0
    assert_is_text(capsys.readouterr().out)
    with pytest.raises(UsageError) as refused:
        run_query(home, "SELECT CAST(event_id AS INT) FROM silver_events", settings.schema)
    assert_is_text(harmless(refused.value), 0)  # its first line ends before that


def test_an_exception_that_quotes_a_record_stands_in_sparks_log_once_and_as_text(spark, tmp_path):
    log4j, jvm = tmp_path / "log4j2.properties", spark._jvm
    log4j.write_text(_LOG4J.format(log=tmp_path / "spark.log"))
    context = jvm.org.apache.logging.log4j.core.LoggerContext("a test", None, jvm.java.net.URI(log4j.as_uri()))
    context.start()
    context.getLogger("Stage").error("a task failed", jvm.java.lang.RuntimeException("cannot read \x1b[2Jx\x07y"))
    context.stop()
    said = (tmp_path / "spark.log").read_text()
    assert said.count("RuntimeException: cannot read ?[2Jx?y\n") == 1 and said.count("RuntimeException") == 1
