"""The demo: a broker, two weeks of events with known faults, the job, and what the tables say about them."""

import shutil
from collections.abc import Iterable
from pathlib import Path

from pyspark.sql import SparkSession
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from laptop.models import laptop_settings
from laptop.report.judge import Verdict, judge
from laptop.report.report import write_report
from laptop.run import only_run, run_on_laptop
from laptop.services.broker import Broker, running_broker
from laptop.services.mailbox import Mailbox, running_mailbox
from streaming_pipeline.alerts.incidents import data_verdict, incidents, pipeline_verdict
from streaming_pipeline.core.errors import UsageError
from streaming_pipeline.core.settings import DEFAULT_TOPIC, KafkaSettings, Settings
from streaming_pipeline.core.wording import duration, plural
from streaming_pipeline.events import synthetic
from streaming_pipeline.events.producer import ProduceReport, produce
from streaming_pipeline.queries import query

GROUND_TRUTH = "ground_truth.jsonl"
MOST_SHOWN = 5
"""So many alerts of a mail are shown on the screen."""
_MARK = ".streaming-pipeline-demo"


def run_demo(home: Path, *, count: int = 300_000, seed: int = 7, console: Console) -> bool:
    """Run the whole demo in `home`, which is emptied first; returns whether the job succeeded.

    It always reads the local broker, whatever `.env` says: it would otherwise write made-up events to somebody's topic.
    """
    home = home.resolve()
    _empty(home)
    console.print(f"[bold]1 · Kafka[/bold]  a broker of its own in {_short(home)}: TLS, client certificates")
    with running_broker(home) as broker:
        broker.create_topic(DEFAULT_TOPIC)
        console.print(f"[bold]2 · Events[/bold]  {plural(count, 'event')} over 14 days, with known faults among them (seed {seed})")
        events = synthetic.generate(count, seed=seed)
        report = produce_with_progress(broker.kafka_settings("SSL"), events, console)
        synthetic.write_ground_truth(home / GROUND_TRUTH, events.truth)
        console.print(f"   {plural(report.delivered, 'record')} delivered in {duration(report.seconds)}")
        console.print("[bold]3 · The job[/bold]  full_streaming_pipeline, as databricks.yml and notebooks/ define it")
        with running_mailbox(broker.certificates, home / "mail") as (mailbox, smtp):
            run, spark = run_on_laptop(home, secrets={**broker.secrets("SSL"), **smtp}, console=console)
        if run.state == "SUCCESS":
            console.print("\n[bold]4 · What came out[/bold]")
            settings = laptop_settings(home, "streaming")
            show_tables(spark, settings, console)
            show_verdicts(judge(spark, settings, home / GROUND_TRUTH), console)
            report = write_report(spark, settings, home)
        show_mails(mailbox, console)
        spark.stop()
    page = _short(run.run_dir / "index.html")
    console.print(f"\nThe run's page, with each notebook's output:  {page}", soft_wrap=True, highlight=False)
    if run.state == "SUCCESS":
        console.print(f"The report, for a browser:                    {_short(report)}", soft_wrap=True, highlight=False)
        ask = f'uv run streaming-pipeline sql --home {_short(home)} "{query("top_anomalies")}"'
        console.print(f"Ask the tables:  {ask}", soft_wrap=True, highlight=False)
    return run.state == "SUCCESS"


def produce_with_progress(kafka: KafkaSettings, events: synthetic.Generated, console: Console) -> ProduceReport:
    """Send generated events, with a bar on a terminal."""
    columns = (TextColumn("  "), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("produce", total=len(events))
        return produce(kafka, events, progress=lambda delivered: bar.update(task, completed=delivered))


def show_tables(spark: SparkSession, settings: Settings, console: Console) -> None:
    """How many rows each data table holds, the conservation law, and the verdicts on the pipeline and on the data."""
    spark.sql(f"USE `{settings.catalog}`.`{settings.schema}`")
    names = ("bronze_events", "silver_events", "duplicate_events", "quarantined_events", "gold_anomaly_predictions")
    rows = {name: spark.table(settings.table(name)).count() for name in names}
    console.print(_table("table", ("rows", True), rows=[(name, f"{count:,}") for name, count in rows.items()]))
    newest = spark.table(settings.table("monitor_logs")).orderBy("run_time", ascending=False).first()
    console.print(
        f"bronze {rows['bronze_events']:,} = silver {rows['silver_events']:,} + duplicates {rows['duplicate_events']:,} + quarantine "
        f"{rows['quarantined_events']:,}; unaccounted for {newest['unaccounted_records']}, lost {newest['lost_records']}, "
        f"waiting on the topic {newest['kafka_lag_records']}; {plural(newest['late_events'], 'event')} late",
        soft_wrap=True,
    )
    found = incidents(row.asDict() for row in spark.sql(query("alerts")).collect())
    console.print(f"[bold]Pipeline:[/bold] {pipeline_verdict(newest['status'], found)}", highlight=False)
    console.print(f"[bold]Data:[/bold]     {data_verdict(newest['status'], found)}", highlight=False)


def show_verdicts(verdicts: Iterable[Verdict], console: Console) -> None:
    """What was found of each kind of fault that had been put in."""
    rows = [(verdict.kind, f"{verdict.injected:,}", f"{verdict.found:,}", verdict.note) for verdict in verdicts]
    console.print("\nThe faults that were put in, and how many of them were found:")
    console.print(_table("fault", ("put in", True), ("found", True), "note", rows=rows))


def show_mails(mailbox: Mailbox, console: Console) -> None:
    """The mails that the run sent, as somebody on call gets them."""
    console.print(f"\n[bold]5 · Alerts[/bold]  {plural(len(mailbox.mails), 'e-mail')} sent, to a mail server on this machine")
    for number, mail in enumerate(mailbox.mails, 1):
        lines = [f"[bold]To[/bold]       {mail['To']}", f"[bold]Subject[/bold]  {escape(mail['Subject'])}"]
        text = mail.get_body(("plain",)).get_content().replace("\r\n", "\n")
        for part in text.split("\n\n")[:-1][:MOST_SHOWN]:  # the last one is the foot
            headline, message, *_ = part.split("\n")
            lines += [f"  [bold]{escape(headline)}[/bold]", f"  {escape(message)}"]
        lines.append(f"The whole e-mail, with numbers and queries: {_short(mailbox.folder / f'{number:03}.html')}")
        console.print("\n".join(lines), soft_wrap=True, highlight=False)


def _table(*columns: str | tuple[str, bool], rows: list[tuple]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        name, is_number = column if isinstance(column, tuple) else (column, False)
        table.add_column(name, justify="right" if is_number else "left")
    for row in rows:
        table.add_row(*row)
    return table


def _empty(home: Path) -> None:
    """Empty the demo's folder; a folder that holds anything but an earlier demo is left alone."""
    if home.exists() and any(home.iterdir()) and not (home / _MARK).exists():
        raise UsageError(f"{home} is not empty and holds no earlier demo. The demo empties its folder, so name another --home.")
    if (home / "config").exists():
        raise UsageError(
            f"{home / 'config'} would be deleted, and the demo uses the shipped configuration: move it, or name another --home."
        )
    with only_run(home):
        Broker(home).stop()  # of a demo that was killed
        for entry in home.iterdir():
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            elif entry.name != "run.lock":
                entry.unlink()
        (home / _MARK).touch()


def _short(path: Path) -> str:
    """The path from here, where that is shorter."""
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)
