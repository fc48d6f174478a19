"""The command `streaming-pipeline`: what a user types on a laptop.

Exit codes: 0 done, 1 the work failed, 2 wrong use. A user's mistake is one sentence, never a traceback.
"""

import argparse
import os
import signal
import stat
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from datetime import datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape

from streaming_pipeline.errors import PipelineError, UsageError

if TYPE_CHECKING:
    from streaming_pipeline.settings import KafkaSettings

DEFAULT_HOME = Path(".local")
_MOST = 1_000_000_000


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    console = Console(soft_wrap=False)
    # `timeout`, systemd and a closing container ask in this way: what Ctrl-C would end in order must not be left behind.
    signal.signal(signal.SIGTERM, _as_ctrl_c)
    try:
        options = _parser().parse_args(arguments)
        return options.call(options, console)
    except KeyboardInterrupt as interrupt:
        _say(f"Stopped. {interrupt}".strip())
        return 130
    except BrokenPipeError:
        # Whoever read our output has seen enough; Python must not try to flush it once more.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except PipelineError as error:
        _say(str(error))
        return 2 if isinstance(error, UsageError) else 1


def _as_ctrl_c(*_: object) -> None:
    """End as by Ctrl-C, also where that is ignored, as in the background of a script."""
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        raise KeyboardInterrupt
    signal.raise_signal(signal.SIGINT)


def _say(text: str) -> None:
    print(text, file=sys.stderr)


def _check_numbers(options: argparse.Namespace, **lowest: float) -> None:
    """Refuse an option below the number that is named for it, beyond what Python's times and sequences hold, or NaN."""
    for name, least in lowest.items():
        given = getattr(options, name)
        if given is not None and not least <= given <= _MOST:
            raise UsageError(f"--{name} {given} cannot be: it must be from {least} to {_MOST}.")


def _demo(options: argparse.Namespace, console: Console) -> int:
    from streaming_pipeline.local.demo import run_demo

    _check_numbers(options, count=1, seed=0)
    home = options.home if options.home != DEFAULT_HOME else DEFAULT_HOME / "demo"
    return 0 if run_demo(home, count=options.count, seed=options.seed, console=console) else 1


def _run(options: argparse.Namespace, console: Console) -> int:
    parameters, variables = _pairs("--param", options.param), _pairs("--var", options.var)
    if not options.continuous:
        return _run_job(options, console, options.job, parameters, variables)
    from streaming_pipeline.local.continuous import run_continuously
    from streaming_pipeline.local.job import MAIN_JOB

    if options.job != MAIN_JOB:
        raise UsageError(f"--continuous runs {MAIN_JOB}: leave out {options.job}, which is to be run when there is need.")
    choices = {"target": options.target, "connect": options.connect}
    spark = run_continuously(options.home, parameters=parameters, variables=variables, console=console, **choices)
    with suppress(Exception):
        spark.stop()
    return 0


def _run_job(
    options: argparse.Namespace, console: Console, job: str, parameters: Mapping[str, str], variables: Mapping[str, str] | None = None
) -> int:
    from streaming_pipeline.local.job import run_on_laptop

    run, spark = run_on_laptop(
        options.home,
        job=job,
        parameters=parameters,
        variables=variables,
        target=getattr(options, "target", "dev"),
        connect=getattr(options, "connect", False),
        console=console,
    )
    with suppress(Exception):  # a Spark that a run has brought down cannot be asked to stop
        spark.stop()
    console.print(f"{run.state} in {run.seconds:.1f} s: {run.run_dir / 'index.html'}", soft_wrap=True, highlight=False)
    return 0 if run.state == "SUCCESS" else 1


def _quarantine(options: argparse.Namespace, console: Console) -> int:
    from streaming_pipeline.queries import query
    from streaming_pipeline.replay import Choice

    begin, end = _period(options)
    choice = Choice.from_texts(options.reason, begin, end)
    if options.action == "replay":
        choices = {"reason": choice.reason, "from_time": begin, "until_time": end, "dry_run": str(options.dry_run).lower()}
        return _run_job(options, console, "replay_quarantine", {"schema": options.schema, **choices})
    if options.dry_run:
        raise UsageError("--dry-run goes with quarantine replay: a list changes nothing.")
    from streaming_pipeline.local.sql import render, run_query

    text = query("quarantine_reasons").replace("resolved_at IS NULL", choice.sql())
    render(*run_query(options.home, text, options.schema), "table", console)
    return 0


def _backfill(options: argparse.Namespace, console: Console) -> int:
    return _run_job(options, console, "backfill_bronze", {"schema": options.schema, "from_time": options.begin.isoformat()})


def _baseline(options: argparse.Namespace, console: Console) -> int:
    from streaming_pipeline.monitoring.baseline import Choice

    begin, end = _period(options)
    Choice.from_texts(options.name, begin, end)
    parameters = {"schema": options.schema, "name": options.name, "from_time": begin, "until_time": end}
    return _run_job(options, console, "set_baseline", parameters)


def _model(options: argparse.Namespace, console: Console) -> int:
    from streaming_pipeline.local.models import model_settings, show_versions
    from streaming_pipeline.model.registry import PREVIOUS, set_champion

    if (options.action == "promote") != (options.version is not None):
        raise UsageError("model promote wants the number of a version, model list and model rollback none: model list shows what there is.")
    settings = model_settings(options.home, options.schema)
    if options.action != "list":
        print(f"{set_champion(settings, options.version or PREVIOUS).note}: it scores what comes from now on.")
    show_versions(settings, console)
    return 0


def _rescore(options: argparse.Namespace, console: Console) -> int:
    from streaming_pipeline.rescore import Choice

    begin, end = _period(options)
    Choice.from_texts(begin, end, options.version)
    parameters = {"schema": options.schema, "from_time": begin, "until_time": end, "version": options.version}
    return _run_job(options, console, "rescore_gold", parameters)


def _silence(options: argparse.Namespace, console: Console) -> int:
    from streaming_pipeline.alerts.rules import load_rules
    from streaming_pipeline.alerts.silence import parse_for
    from streaming_pipeline.local.job import find_bundle

    parse_for(options.duration)
    load_rules(find_bundle() / "config" / "alert_rules.yml").check_name(options.rule)
    return _run_job(options, console, "silence_alerts", {"schema": options.schema, "rule": options.rule, "duration": options.duration})


def _resend(options: argparse.Namespace, console: Console) -> int:
    return _run_job(options, console, "resend_alerts", {"schema": options.schema})


def _backtest(options: argparse.Namespace, console: Console) -> int:
    from streaming_pipeline import backtest
    from streaming_pipeline.csv_series import read_series

    names = backtest.chosen_detectors(options.detector)
    backtest.check_places(options.file, options.output, options.plot)
    series = read_series(options.file, options.timestamp, options.value, options.label)
    train = backtest.training_rows(len(series.seconds), options.train_fraction, options.train_rows)
    series.check_begins(options.file, train)
    scores = backtest.backtest(series, train, names)
    backtest.write_scores(scores, options.output)
    for note in backtest.notes(series, train):
        console.print(note, soft_wrap=True, highlight=False)
    judged = f"{len(series.seconds) - train:,} rows judged, {train:,} learnt from"
    console.print(f"{judged}: {options.output}", soft_wrap=True, highlight=False)
    backtest.print_summary(scores, series.labels, train, console)
    if options.plot:
        backtest.plot(series, scores, train, options.value, options.plot)
        console.print(f"Picture: {options.plot}", soft_wrap=True, highlight=False)
    return 0


def _broker(options: argparse.Namespace, console: Console) -> int:
    from streaming_pipeline.local.broker import Broker

    broker = Broker(options.home)
    if options.action == "start":
        started = broker.start()
        status = broker.status()
        print(
            f"The broker {'is running' if started else 'was running already'}: mTLS on port {status.ports['SSL']}, "
            f"SASL_SSL on port {status.ports['SASL_SSL']} of 127.0.0.1 (pid {status.pid})."
        )
        return 0
    if options.action == "stop":
        print("The broker has stopped." if broker.stop() else "No broker was running.")
        return 0
    status = broker.status()
    if status.state == "running":
        print(f"running since {status.since:%Y-%m-%d %H:%M:%S} UTC, pid {status.pid}, ports {status.ports}")
        return 0
    print(status.state)
    if status.state == "crashed":
        _say(f"It ended without being stopped. The end of {broker.log}:\n{status.log_tail}")
    return 1


def _produce(options: argparse.Namespace, console: Console) -> int:
    from streaming_pipeline import synthetic
    from streaming_pipeline.contract import load_contract
    from streaming_pipeline.local.demo import GROUND_TRUTH, produce_with_progress
    from streaming_pipeline.local.job import find_bundle
    from streaming_pipeline.producer import LineRecords, produce

    _check_numbers(options, count=1, seed=0, rate=0.001, duration=0)
    live = options.rate is not None
    for option, given, fits in (
        ("--rate", options.rate, True),
        ("--count", options.count, not options.file),
        ("--duration", options.duration, not options.file),
        ("--start", options.start, not options.file and not live),
        ("--faults", options.faults, not options.file and not live),
    ):
        if given is not None and not fits:
            raise UsageError(f"{option} does not go with {'--file' if options.file else '--rate'}: leave one of them out.")
    lines = None
    if options.file:
        lines = sys.stdin.buffer if options.file == "-" else _open(Path(options.file))
    with _topic(options) as kafka:
        if lines:
            records = LineRecords(lines, load_contract(find_bundle() / "config" / "event_contract.yml").id_field)
            report = produce(kafka, records, rate=options.rate)
            if records.not_json:
                _say(f"Lines that are not JSON: {records.not_json:,}; they were sent as they are.")
        elif live:
            duration = timedelta(seconds=options.duration) if options.duration is not None else None
            events = synthetic.stream(seed=options.seed, duration=duration)
            report = produce(kafka, islice(events, options.count), rate=options.rate)
        else:
            days = timedelta(days=14) if options.duration is None else timedelta(seconds=options.duration)
            faults = None if options.faults in (None, "all") else [] if options.faults == "none" else options.faults.split(",")
            count = 300_000 if options.count is None else options.count
            events = synthetic.generate(count, start=options.start, duration=days, seed=options.seed, faults=faults)
            report = produce_with_progress(kafka, events, options.home, console)
            print(f"What is in them, for judging results: {options.home / GROUND_TRUTH}")
        print(f"{report.delivered:,} records delivered to {kafka.topic} in {report.seconds:.1f} s.")
    return 0


def _consume(options: argparse.Namespace, console: Console) -> int:
    from streaming_pipeline.consumer import consume

    _check_numbers(options, limit=0)
    with _topic(options) as kafka:
        count = 0
        for record in consume(kafka, limit=options.limit or None, from_beginning=not options.newest, follow=options.follow):
            try:
                at = datetime.fromtimestamp(record.timestamp_ms / 1000).astimezone().isoformat(timespec="milliseconds")
            except (ValueError, OverflowError, OSError):  # a producer that takes Kafka's milliseconds for something else
                at = f"{record.timestamp_ms} ms"
            value = "(no value)" if record.value is None else record.value.decode("utf-8", errors="replace")
            print(f"{record.partition}/{record.offset}  {at}  {value}", flush=options.follow)
            count += 1
        _say(f"{count:,} records.")
    return 0


def _sql(options: argparse.Namespace, console: Console) -> int:
    from streaming_pipeline.local.sql import render, run_query

    columns, rows = run_query(options.home, options.query, options.schema)
    render(columns, rows, options.format, console)
    return 0


def _report(options: argparse.Namespace, console: Console) -> int:
    from streaming_pipeline.local.models import laptop_settings
    from streaming_pipeline.local.report import write_report
    from streaming_pipeline.local.spark import start_session
    from streaming_pipeline.local.sql import check_has_tables

    settings = laptop_settings(options.home, options.schema)
    check_has_tables(options.home, options.schema)
    with console.status("Reading the tables") if console.is_terminal else nullcontext():
        page = write_report(start_session(options.home), settings, options.home)
    console.print(f"The report: {page}", soft_wrap=True, highlight=False)
    return 0


def _doctor(options: argparse.Namespace, console: Console) -> int:
    from streaming_pipeline.local.doctor import examine
    from streaming_pipeline.local.job import find_bundle

    wrong = 0
    for finding in examine(options.home, find_bundle()):
        mark = "[green]ok[/green]     " if finding.is_well else "[red]wrong[/red]  "
        console.print(f"{mark}  [bold]{finding.part}[/bold]  {escape(finding.text)}", soft_wrap=True, highlight=False)
        wrong += not finding.is_well
    parts = "1 part is" if wrong == 1 else f"{wrong} parts are"
    console.print(f"{parts} wrong: mend that first." if wrong else "All is well: a run would work here.")
    return 1 if wrong else 0


@contextmanager
def _topic(options: argparse.Namespace) -> Iterator["KafkaSettings"]:
    """The topic of `.env`, else of the local broker, as a context that yields `KafkaSettings`."""
    from streaming_pipeline.local.env import read_secrets
    from streaming_pipeline.local.job import find_bundle, kafka_secrets
    from streaming_pipeline.settings import KafkaSettings

    with kafka_secrets(options.home, read_secrets(find_bundle() / ".env")) as secrets:
        yield KafkaSettings.from_secrets(secrets)


def _open(path: Path):
    try:
        return path.open("rb")
    except OSError as error:
        raise UsageError(f"--file {path} cannot be read: {error.strerror}.") from None


def _period(options: argparse.Namespace) -> tuple[str, str]:
    """`--from` and `--until` as a job takes them."""
    return tuple(time.isoformat() if time else "" for time in (options.begin, options.end))


def _pairs(option: str, texts: Sequence[str]) -> Mapping[str, str]:
    """`["k=v"]` → `{"k": "v"}`."""
    for text in texts:
        if "=" not in text or text.startswith("="):
            raise UsageError(f"{option} {text}: write it as name=value.")
    return dict(text.split("=", 1) for text in texts)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="streaming-pipeline", description="Kafka events become monitored, scored Delta tables.")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    def command(name: str, call: Callable, text: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=text, description=text)
        added.set_defaults(call=call)
        added.add_argument(
            "--home", type=_home, default=str(DEFAULT_HOME), help="folder of tables, broker, models and runs (default: .local)"
        )
        return added

    demo = command(
        "demo",
        _demo,
        "Set-up and main job in one, on made-up events with known faults, in .local/demo or --home, which is emptied first.",
    )
    demo.add_argument("--count", type=int, default=300_000, help="events to make (default: 300000)")
    demo.add_argument("--seed", type=int, default=7, help="the same seed makes the same choices; the days end now (default: 7)")

    run = command("run", _run, "One run of a job of the bundle, on this machine, or the main job again and again.")
    run.add_argument("job", nargs="?", default="full_streaming_pipeline", help="default: full_streaming_pipeline")
    run.add_argument("--param", action="append", default=[], metavar="NAME=VALUE", help="set a job parameter (may be repeated)")
    run.add_argument("--var", action="append", default=[], metavar="NAME=VALUE", help="set a bundle variable (may be repeated)")
    run.add_argument("--target", default="dev", help="target of the bundle (default: dev)")
    run.add_argument("--connect", action="store_true", help="on a local Spark Connect server, by the rules of serverless")
    run.add_argument(
        "--continuous",
        action="store_true",
        help="the main job again and again in one warm session, with a line for each run: records, latency from Kafka to gold, and records "
        "that wait on the topic; without new records once a minute. Ctrl-C lets the run in progress end, a second one stops at once. A "
        "run that fails is followed by the next, after 1 s to a minute; only if the first one fails, that is the end",
    )

    quarantine = command(
        "quarantine", _quarantine, "Rejected records: what there is, and through the rules again after a fix of the contract."
    )
    quarantine.add_argument("action", choices=("list", "replay"))
    quarantine.add_argument("--reason", default="", help="of this reason alone: wrong_type:value, or wrong_type for every field")
    quarantine.add_argument("--from", dest="begin", type=_time, metavar="TIME", help="rejected at or after this time (UTC)")
    quarantine.add_argument("--until", dest="end", type=_time, metavar="TIME", help="rejected before this time (UTC)")
    quarantine.add_argument("--dry-run", action="store_true", help="replay: say what would happen, and write nothing")
    quarantine.add_argument("--schema", default="streaming", help="schema of the tables (default: streaming)")

    backfill = command("backfill", _backfill, "Read the topic again from a time on, and add to bronze what it lacks.")
    backfill.add_argument("--from", dest="begin", type=_time, required=True, metavar="TIME", help="such as 2026-03-01T00:00:00Z (UTC)")
    backfill.add_argument("--schema", default="streaming", help="schema of the tables (default: streaming)")

    baseline = command("baseline", _baseline, "What drift is measured against: make a new one, of a period or of the newest clean windows.")
    baseline.add_argument("action", choices=("set",))
    baseline.add_argument("--from", dest="begin", type=_time, metavar="TIME", help="begin of the period (UTC)")
    baseline.add_argument("--until", dest="end", type=_time, metavar="TIME", help="its end (UTC)")
    baseline.add_argument("--name", default="chosen", help="what to call it (default: chosen)")
    baseline.add_argument("--schema", default="streaming", help="schema of the tables (default: streaming)")

    model = command("model", _model, "The versions of the anomaly model: which there are, and which one scores.")
    model.add_argument("action", choices=("list", "promote", "rollback"))
    model.add_argument("version", nargs="?", metavar="VERSION", help="promote: the number of the version that is to score")
    model.add_argument("--schema", default="streaming", help="schema of the tables (default: streaming)")

    rescore = command("rescore", _rescore, "Score the events of a period again; the scores before stay in the table's history.")
    rescore.add_argument("--from", dest="begin", type=_time, required=True, metavar="TIME", help="event time, such as 2026-03-01 (UTC)")
    rescore.add_argument("--to", "--until", dest="end", type=_time, required=True, metavar="TIME", help="its end, not included")
    rescore.add_argument("--version", default="", metavar="VERSION", help="version of the model (default: the champion)")
    rescore.add_argument("--schema", default="streaming", help="schema of the tables (default: streaming)")

    silence = command("silence", _silence, "Quiet a rule of config/alert_rules.yml for a while.")
    silence.add_argument("rule", metavar="RULE", help="the rule's name, such as drift")
    silence.add_argument("--for", dest="duration", required=True, metavar="TIME", help="such as 30m, 4h or 7d; 0m ends a silence")
    silence.add_argument("--schema", default="streaming", help="schema of the tables (default: streaming)")

    resend = command("resend", _resend, "Alerts that could not be delivered (DEAD): the next run of the main job tries them again.")
    resend.add_argument("--schema", default="streaming", help="schema of the tables (default: streaming)")

    backtest = command("backtest", _backtest, "Would the detectors have caught it? Scores each row of a CSV file by the rows before it.")
    backtest.add_argument("file", type=Path, metavar="FILE.csv", help="in order of time, with a header")
    backtest.add_argument("--timestamp", required=True, metavar="COLUMN", help="ISO-8601, or a number since 1970")
    backtest.add_argument("--value", required=True, action="append", metavar="COLUMN", help="a column of numbers (may be repeated)")
    backtest.add_argument("--label", metavar="COLUMN", help="1 where something was wrong, 0 elsewhere: prints how good each detector is")
    backtest.add_argument(
        "--detector",
        action="append",
        default=[],
        metavar="NAME",
        help="iforest, zscore, robust_zscore, iqr, moving_average or ensemble, which is always there (may be repeated; default: all)",
    )
    training = backtest.add_mutually_exclusive_group()
    training.add_argument("--train-fraction", type=float, metavar="SHARE", help="share of the rows to learn from (default: 0.15)")
    training.add_argument("--train-rows", type=int, metavar="N", help="so many instead")
    backtest.add_argument("--output", type=Path, required=True, metavar="SCORES.csv", help="one row for each row of the file")
    backtest.add_argument("--plot", type=Path, metavar="PICTURE.png", help="the series with score and flags of the ensemble")

    broker = command("broker", _broker, "The local Kafka broker.")
    broker.add_argument("action", choices=("start", "stop", "status"))

    produce = command("produce", _produce, "Put events on the topic: made-up ones, or those of a file or pipe of JSON lines.")
    produce.add_argument("--count", type=int, help="how many (default: 300000; with --rate: without end)")
    produce.add_argument("--rate", type=float, help="live events, this many a second, stamped with now")
    produce.add_argument(
        "--duration", type=float, metavar="SECONDS", help="time that the events cover (default: 14 days), or how long to go on"
    )
    produce.add_argument("--seed", type=int, default=7, help="the same seed and start make the same events (default: 7)")
    produce.add_argument("--start", type=_time, help="time of the first event, such as 2026-03-01T00:00:00Z")
    produce.add_argument("--faults", help="all, none, or names separated by commas (default: all; live events have none)")
    produce.add_argument("--file", metavar="FILE", help="JSON lines to send as they are; - for standard input")

    consume = command("consume", _consume, "Look at what is on the topic.")
    consume.add_argument("--limit", type=int, default=10, help="at most this many records; 0 for all (default: 10)")
    consume.add_argument("--newest", action="store_true", help="the newest instead of the first")
    consume.add_argument("--follow", action="store_true", help="go on waiting for new records")

    sql = command("sql", _sql, "A query over the local tables.")
    sql.add_argument("query", metavar="QUERY", help='such as "SELECT * FROM monitor_logs ORDER BY run_time DESC"')
    sql.add_argument("--format", choices=("table", "csv", "json"), default="table")
    sql.add_argument("--schema", default="streaming", help="where bare table names are looked up (default: streaming)")

    command("doctor", _doctor, "What would keep a run from working here: Java, jars, disk, configuration, Kafka, mail.")

    report = command("report", _report, "The report of what the local tables hold: one page for a browser.")
    report.add_argument("--schema", default="streaming", help="the schema of the tables (default: streaming)")
    return parser


def _home(text: str) -> Path:
    """The folder that `--home` names; there may be none yet."""
    if not text.strip():  # as a path it would be this folder
        raise UsageError("--home is empty: name a folder.")
    home = Path(text)
    try:
        if not stat.S_ISDIR(home.stat().st_mode):
            raise UsageError(f"--home {home} is a file: name a folder.")
    except FileNotFoundError:
        pass
    except OSError as error:
        raise UsageError(f"--home {home} cannot be used ({error.strerror}): name another folder.") from None
    return home


def _time(text: str) -> datetime:
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a time such as 2026-03-01T00:00:00Z") from None


if __name__ == "__main__":
    sys.exit(main())
