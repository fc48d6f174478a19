"""The command `streaming-pipeline`: what a user types on a laptop.

Exit codes: 0 done, 1 the work failed, 2 wrong use. A user's mistake is one sentence, never a traceback.
"""

from __future__ import annotations  # Console is imported late: Ctrl-C during imports would end in a traceback

import argparse
import os
import re
import signal
import stat
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from datetime import UTC, datetime, timedelta
from difflib import get_close_matches
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from laptop.folders import default_home, find_bundle
from laptop.interrupts import interrupt_behind
from streaming_pipeline.core.errors import PipelineError, UsageError, storage_fault
from streaming_pipeline.core.foreign_text import PAGE, harmless
from streaming_pipeline.core.wording import duration, plural

if TYPE_CHECKING:
    from rich.console import Console

    from streaming_pipeline.core.settings import KafkaSettings

_MOST = 1_000_000_000
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    # `timeout`, systemd and a closing container ask in this way: what Ctrl-C would end in order must not be left behind.
    signal.signal(signal.SIGTERM, _as_ctrl_c)
    try:
        from rich.console import Console

        _check_texts(sys.argv[1:] if arguments is None else arguments)
        options = _parser().parse_args(arguments)
        return options.call(options, Console(soft_wrap=False))
    except BaseException as error:
        if interrupt := interrupt_behind(error):
            _say(f"Stopped. {interrupt}".strip())
            return 130
        return _exit_code(error)


def _exit_code(error: BaseException) -> int:
    """Say what ended a command, in a sentence; what is no user's or machine's mistake is raised on."""
    match error:
        case BrokenPipeError():
            # Whoever read our output has seen enough; Python must not try to flush it once more.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 0
        case PipelineError():
            _say(str(error))
            return 2 if isinstance(error, UsageError) else 1
        case MemoryError() | ImportError() | SystemError():  # C code may end in the latter where memory ends
            limit = _memory_limit()
            if limit is None and not isinstance(error, MemoryError):
                raise error
            let = f": `ulimit -v` gives each process {limit:,} kB, let it have more" if limit else ""
            _say(f"There is not enough memory for this{let}.")
            return 1
        case Exception() if said := storage_fault(error):
            _say(f"A disk or folder cannot be used: {said}.")
            return 1
    raise error


def _memory_limit() -> int | None:
    """The kilobytes that `ulimit -v` lets a process have; below some of them libraries cannot be loaded. None without a limit."""
    import resource

    soft, _ = resource.getrlimit(resource.RLIMIT_AS)
    return None if soft == resource.RLIM_INFINITY else soft // 1024


def _as_ctrl_c(*_: object) -> None:
    """End as by Ctrl-C, also where that is ignored, as in the background of a script."""
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        raise KeyboardInterrupt
    signal.raise_signal(signal.SIGINT)


def _say(text: str) -> None:
    print(harmless(text, PAGE, is_lines=True), file=sys.stderr)


def _check_texts(arguments: Sequence[str]) -> None:
    """Refuse an argument or a current folder of bytes that are no text: Spark, its SQL and MLflow could not be handed it."""
    try:
        here = os.getcwd()
    except OSError as error:
        raise UsageError(f"The current folder cannot be used ({error.strerror}): go to another one.") from None
    for what, text in (*(("Argument", text) for text in arguments), ("The current folder", here)):
        try:
            text.encode()
        except UnicodeEncodeError:
            raise UsageError(f"{what} {text!r} has bytes that are not UTF-8: write it differently, or rename the file or folder.") from None


def _check_numbers(options: argparse.Namespace, **lowest: float) -> None:
    """Refuse an option below the number that is named for it, beyond what Python's times and sequences hold, or NaN."""
    for name, least in lowest.items():
        given = getattr(options, name)
        if given is not None and not least <= given <= _MOST:
            raise UsageError(f"--{name} is {given}, and must be from {least} to {_MOST}.")


def _demo(options: argparse.Namespace, console: Console) -> int:
    from laptop.report.demo import run_demo

    _check_numbers(options, count=1, seed=0)
    home = options.home / "demo" if options.home == default_home() else options.home
    return 0 if run_demo(home, count=options.count, seed=options.seed, console=console) else 1


def _run(options: argparse.Namespace, console: Console) -> int:
    parameters, variables = _pairs("--param", options.param), _pairs("--var", options.var)
    if not options.continuous:
        return _run_job(options, console, options.job, parameters, variables)
    from laptop.continuous import run_continuously
    from laptop.run import MAIN_JOB

    if options.job != MAIN_JOB:
        raise UsageError(f"--continuous runs {MAIN_JOB}: leave out {options.job}, and run it by itself when you need it.")
    choices = {"target": options.target, "connect": options.connect}
    spark = run_continuously(options.home, parameters=parameters, variables=variables, console=console, **choices)
    with suppress(Exception):
        spark.stop()
    return 0


def _run_job(
    options: argparse.Namespace, console: Console, job: str, parameters: Mapping[str, str], variables: Mapping[str, str] | None = None
) -> int:
    from laptop.run import run_on_laptop

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
    console.print(f"{run.state} in {duration(run.seconds)}: {run.run_dir / 'index.html'}", soft_wrap=True, highlight=False)
    return 0 if run.state == "SUCCESS" else 1


def _quarantine(options: argparse.Namespace, console: Console) -> int:
    from streaming_pipeline.silver.replay import Selection

    begin, end = _period(options)
    choice = Selection.from_texts(options.reason, begin, end)
    if options.record and options.action != "show":
        raise UsageError(f"{options.record} goes with quarantine show: list and replay take a --reason and a time.")
    if options.action == "replay":
        if options.format != "table":
            raise UsageError("--format goes with quarantine list and show, not with replay.")
        choices = {"reason": choice.reason, "from_time": begin, "until_time": end, "dry_run": str(options.dry_run).lower()}
        return _run_on_tables(options, console, "replay_quarantine", choices)
    if options.dry_run:
        raise UsageError(f"--dry-run goes with quarantine replay: {options.action} changes nothing.")
    from laptop.quarantine import list_reasons, show_record

    if options.action == "list":
        list_reasons(options.home, options.schema, choice, options.format, console)
    else:
        show_record(options.home, options.schema, options.record, choice, options.format, console)
    return 0


def _backfill(options: argparse.Namespace, console: Console) -> int:
    choices = {"from_time": options.begin.isoformat(), "dry_run": str(options.dry_run).lower()}
    return _run_on_tables(options, console, "backfill_bronze", choices)


def _baseline(options: argparse.Namespace, console: Console) -> int:
    from streaming_pipeline.monitoring.baseline import BaselineRequest

    if options.action == "list":
        if options.begin or options.end or options.name or options.windows:
            raise UsageError("--from, --until, --name and --windows go with baseline set: a list has every baseline.")
        return _list(options, console, "baselines", "SELECT * FROM ({baselines})", "No baseline was made yet.")
    begin, end = _period(options)
    _check_numbers(options, windows=1)
    if options.windows and (begin or end):
        raise UsageError("--windows chooses the newest clean windows: it does not go with --from and --until.")
    choice = BaselineRequest.from_texts(options.name, begin, end)
    parameters = {"name": choice.name, "from_time": begin, "until_time": end}
    if options.windows:
        parameters["baseline_windows"] = str(options.windows)
    return _run_on_tables(options, console, "set_baseline", parameters)


def _alerts(options: argparse.Namespace, console: Console) -> int:
    text = (
        "SELECT created_at, severity, anomaly_type, message, state, status, channel, recipients, reason, rule FROM ({alerts}) "
        "WHERE state = 'goes on' OR status IN ('PENDING', 'DEAD') ORDER BY created_at DESC"
    )
    nothing = "No alert is open: nothing reported is still going on, and no alert waits for delivery."
    return _list(options, console, "alert_outbox", text, nothing)


def _model(options: argparse.Namespace, console: Console) -> int:
    from laptop.models import model_settings, show_versions
    from streaming_pipeline.gold.registry import PREVIOUS, set_champion

    if (options.action == "promote") != (options.version is not None):
        raise UsageError(
            "model promote needs the number of a version; model list and model rollback take none. See model list for the versions."
        )
    settings = model_settings(options.home, options.schema)
    if options.action != "list":
        note = set_champion(settings, options.version or PREVIOUS).note
        print(f"{note}. The champion scores new events from now on; run `streaming-pipeline rescore` for earlier ones.")
    show_versions(settings, console)
    return 0


def _rescore(options: argparse.Namespace, console: Console) -> int:
    from streaming_pipeline.gold.rescore import Period

    begin, end = _period(options)
    Period.from_texts(begin, end, options.version)
    parameters = {"from_time": begin, "until_time": end, "version": options.version}
    return _run_on_tables(options, console, "rescore_gold", parameters)


def _silence(options: argparse.Namespace, console: Console) -> int:
    from laptop.run import config_settings
    from streaming_pipeline.alerts.rules import load_rules
    from streaming_pipeline.alerts.silence import parse_for

    if options.rule == "list":
        if options.duration:
            raise UsageError("--for goes with the name of a rule: a list changes nothing.")
        text = "SELECT * FROM ({silences}) WHERE until > current_timestamp() ORDER BY until"
        return _list(options, console, "alert_silences", text, "No rule is silent.")
    if not options.duration:
        raise UsageError(f"silence {options.rule}: say for how long, such as --for 4h.")
    parse_for(options.duration)
    load_rules(config_settings(options.home, find_bundle()).alert_rules_path).check_name(options.rule)
    return _run_job(options, console, "silence_alerts", {"schema": options.schema, "rule": options.rule, "duration": options.duration})


def _resend(options: argparse.Namespace, console: Console) -> int:
    return _run_on_tables(options, console, "resend_alerts", {})


def _run_on_tables(options: argparse.Namespace, console: Console, job: str, parameters: Mapping[str, str]) -> int:
    """Run a job that works on tables which are there: a misspelt home or schema is named, and not made."""
    from laptop.sql import check_has_tables

    check_has_tables(options.home, options.schema)
    return _run_job(options, console, job, {"schema": options.schema, **parameters})


def _list(options: argparse.Namespace, console: Console, table: str, text: str, nothing: str) -> int:
    """Print the rows of a query over a table, or why there are none. `{name}` in the text stands for the shared query of that name."""
    from laptop.not_yet import has_table, why_missing
    from laptop.sql import check_has_tables, render, run_query
    from streaming_pipeline.queries import query

    check_has_tables(options.home, options.schema)
    columns, rows = [], []
    if has_table(options.home, options.schema, table):
        shared = re.sub(r"{(\w+)}", lambda name: query(name[1]), text)
        columns, rows = run_query(options.home, shared, options.schema)
    else:
        nothing = why_missing(table)
    if rows or options.format != "table":
        render(columns, rows, options.format, console)
    else:
        console.print(nothing, soft_wrap=True, highlight=False)
    return 0


def _backtest(options: argparse.Namespace, console: Console) -> int:
    from streaming_pipeline.backtest import backtest
    from streaming_pipeline.backtest.csv_series import read_series

    names = backtest.chosen_detectors(options.detector)
    backtest.check_places(options.file, options.output, options.plot)
    series = read_series(options.file, options.timestamp, options.value, options.label)
    train = backtest.training_rows(len(series.seconds), options.train_fraction, options.train_rows)
    series.check_begins(options.file, train)
    scores = backtest.backtest(series, train, names)
    backtest.write_scores(scores, options.output)
    for note in backtest.notes(series, train):
        console.print(note, soft_wrap=True, highlight=False)
    judged = f"{plural(len(series.seconds) - train, 'row')} judged, {train:,} learnt from"
    console.print(f"{judged}: {options.output}", soft_wrap=True, highlight=False)
    backtest.print_summary(scores, series.labels, train, console)
    backtest.print_incidents(scores, console)
    if options.plot:
        backtest.plot(series, scores, train, options.value, options.plot)
        console.print(f"Picture: {options.plot}", soft_wrap=True, highlight=False)
    return 0


def _broker(options: argparse.Namespace, console: Console) -> int:
    from laptop.services.broker import Broker

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
    from laptop.report.demo import GROUND_TRUTH, produce_with_progress
    from streaming_pipeline.core.contract import load_contract
    from streaming_pipeline.events import synthetic
    from streaming_pipeline.events.producer import LineRecords, lines_of, produce

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
    lasts = None if options.duration is None else timedelta(seconds=options.duration)
    lines = None
    if options.file:
        id_field = load_contract(_contract_path(options)).id_field
        lines = lines_of(_open(options.file), options.file, " Those before it were sent.")
    report = None
    try:
        with _topic(options) as kafka:
            if lines:
                records = LineRecords(lines, id_field)
                report = produce(kafka, records, rate=options.rate)
                if records.not_json:
                    _say(f"Lines that are not JSON: {records.not_json:,}; they were sent as they are.")
            elif live:
                events = synthetic.stream(seed=options.seed, duration=lasts)
                report = produce(kafka, islice(events, options.count), rate=options.rate)
            else:
                days = timedelta(days=14) if lasts is None else lasts
                faults = None if options.faults in (None, "all") else [] if options.faults == "none" else options.faults.split(",")
                count = 300_000 if options.count is None else options.count
                events = synthetic.generate(count, start=options.start, duration=days, seed=options.seed, faults=faults)
                report = produce_with_progress(kafka, events, console)
                synthetic.write_ground_truth(options.home / GROUND_TRUTH, events.truth)
                print(f"The faults among them are listed in {options.home / GROUND_TRUTH}")
            print(f"{plural(report.delivered, 'record')} delivered to {kafka.topic} in {duration(report.seconds)}.")
    except KeyboardInterrupt as interrupt:
        # One that came while records were sent says how many were delivered.
        raise KeyboardInterrupt(
            str(interrupt) or f"{plural(report.delivered if report else 0, 'record was', 'records were')} delivered."
        ) from None
    return 0


def _contract(options: argparse.Namespace, console: Console) -> int:
    from streaming_pipeline.core.contract import load_contract

    if options.contract:
        path = options.contract
        if not Path(path).is_file():
            raise UsageError(f"--contract {path} is no file: name the file of a contract.")
    else:
        path = _contract_path(options)
    contract = load_contract(path)
    lines = _open(options.file)

    from laptop.contract_check import check_file, report
    from laptop.services.spark import start_session
    from streaming_pipeline.core.rules import check_patterns

    with console.status("Judging the lines") if console.is_terminal else nullcontext():
        spark = start_session(options.home)
        check_patterns(spark, contract, path)
        checked = check_file(spark, contract, lines, options.file)
    for line in report(checked, contract):
        print(line)
    return 1 if checked.rejected else 0


def _consume(options: argparse.Namespace, console: Console) -> int:
    from streaming_pipeline.events.consumer import consume

    _check_numbers(options, limit=0)
    with _topic(options, only_look=True) as kafka:
        count = 0
        for record in consume(kafka, limit=options.limit or None, from_beginning=not options.newest, follow=options.follow):
            try:
                at = datetime.fromtimestamp(record.timestamp_ms / 1000).astimezone().isoformat(timespec="milliseconds")
            except (ValueError, OverflowError, OSError):  # a producer that takes Kafka's milliseconds for something else
                at = f"{record.timestamp_ms} ms"
            value = "(no value)" if record.value is None else record.value.decode("utf-8", errors="replace")
            print(f"{record.partition}/{record.offset}  {at}  {harmless(value, PAGE)}", flush=options.follow)
            count += 1
        _say(f"{plural(count, 'record')}.")
    return 0


def _sql(options: argparse.Namespace, console: Console) -> int:
    from laptop.sql import render, run_query

    if options.query is None:
        from laptop.sql_prompt import answer_questions

        return answer_questions(options.home, options.schema, options.format, console)
    columns, rows = run_query(options.home, options.query, options.schema)
    render(columns, rows, options.format, console)
    return 0


def _report(options: argparse.Namespace, console: Console) -> int:
    from laptop.models import laptop_settings
    from laptop.report.report import write_report
    from laptop.run import say_config
    from laptop.services.spark import start_session
    from laptop.sql import check_has_tables

    settings = laptop_settings(options.home, options.schema)
    check_has_tables(options.home, options.schema)
    say_config(settings, find_bundle())
    with console.status("Reading the tables") if console.is_terminal else nullcontext():
        page = write_report(start_session(options.home), settings, options.home)
    console.print(f"The report: {page}", soft_wrap=True, highlight=False)
    return 0


def _doctor(options: argparse.Namespace, console: Console) -> int:
    from rich.markup import escape

    from laptop.doctor import examine

    wrong = 0
    for finding in examine(options.home, find_bundle()):
        mark = "[green]ok[/green]     " if finding.is_well else "[red]wrong[/red]  "
        console.print(
            f"{mark}  [bold]{finding.part}[/bold]  {escape(harmless(finding.text, PAGE, is_lines=True))}", soft_wrap=True, highlight=False
        )
        wrong += not finding.is_well
    parts = plural(wrong, "part is", "parts are")
    console.print(f"{parts} wrong: fix that first." if wrong else "All is well: a run would work here.")
    return 1 if wrong else 0


@contextmanager
def _topic(options: argparse.Namespace, only_look: bool = False) -> Iterator[KafkaSettings]:
    """The topic of `.env`, else of the local broker, as a context that yields `KafkaSettings`; `only_look` makes no broker."""
    from laptop.env import read_secrets
    from laptop.run import kafka_secrets
    from streaming_pipeline.core.settings import KafkaSettings

    with kafka_secrets(options.home, read_secrets(find_bundle() / ".env"), only_look) as secrets:
        yield KafkaSettings.from_secrets(secrets)


def _contract_path(options: argparse.Namespace) -> str:
    """The contract of the home, else the shipped one; says so if it is the home's."""
    from laptop.run import config_settings, say_config

    root = find_bundle()
    settings = config_settings(options.home, root)
    say_config(settings, root)
    return settings.contract_path


def _open(file: str) -> BinaryIO:
    """The file that `--file` names; - for standard input."""
    try:
        return sys.stdin.buffer if file == "-" else Path(file).open("rb")
    except OSError as error:
        raise UsageError(f"--file {file} cannot be read: {error.strerror}.") from None


def _period(options: argparse.Namespace) -> tuple[str, str]:
    """`--from` and `--until` as a job takes them."""
    return tuple(time.isoformat() if time else "" for time in (options.begin, options.end))


def _pairs(option: str, texts: Sequence[str]) -> Mapping[str, str]:
    """`["k=v"]` → `{"k": "v"}`."""
    for text in texts:
        if "=" not in text or text.startswith("="):
            raise UsageError(f"{option} {text}: write it as name=value.")
    return dict(text.split("=", 1) for text in texts)


class _Parser(argparse.ArgumentParser):
    """Refuses an unknown option with the usage of its own command, not of all commands, and names the option that comes nearest."""

    def parse_known_args(self, args=None, namespace=None):
        options, unknown = super().parse_known_args(args, namespace)
        if unknown:
            near = get_close_matches(unknown[0].partition("=")[0], self._option_string_actions, 1)
            self.error(f"unrecognized arguments: {' '.join(unknown)}" + (f"; did you mean {near[0]}?" if near else ""))
        return options, unknown


def _parser() -> argparse.ArgumentParser:
    import importlib.metadata

    parser = _Parser(prog="streaming-pipeline", description="Kafka events become monitored, scored Delta tables.")
    parser.add_argument("--version", action="version", version=f"%(prog)s {importlib.metadata.version('streaming-pipeline')}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    home, told = str(default_home()), "folder of tables, broker, models and runs (default: .local, beside databricks.yml)"

    def command(name: str, call: Callable, text: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=text, description=text)
        added.set_defaults(call=call)
        added.add_argument("--home", type=_home, default=home, help=told)
        return added

    demo = command(
        "demo",
        _demo,
        "Start a broker, produce made-up events with known faults and run the main job, in .local/demo or --home, which is emptied first.",
    )
    demo.add_argument("--count", type=int, default=300_000, help="events to make (default: 300000)")
    demo.add_argument("--seed", type=int, default=7, help="the same seed makes the same choices; the days end now (default: 7)")

    run = command("run", _run, "Run a job of the bundle once on this machine, or the main job continuously.")
    run.add_argument("job", nargs="?", default="full_streaming_pipeline", help="default: full_streaming_pipeline")
    run.add_argument("--param", action="append", default=[], metavar="NAME=VALUE", help="set a job parameter (may be repeated)")
    run.add_argument("--var", action="append", default=[], metavar="NAME=VALUE", help="set a bundle variable (may be repeated)")
    run.add_argument("--target", default="dev", help="target of the bundle (default: dev)")
    run.add_argument("--connect", action="store_true", help="on a local Spark Connect server, by the rules of serverless")
    run.add_argument(
        "--continuous",
        action="store_true",
        help="the main job again and again in one warm session, with a line for each run: records, latency from Kafka to gold, and records "
        "that wait on the topic; once a minute when nothing is new. Ctrl-C lets the run in progress finish, a second one stops at once. "
        "After a failed run the next one starts within a minute; only a failure of the first run ends the command",
    )

    quarantine = command(
        "quarantine", _quarantine, "Rejected records: list them by reason, show one, or replay them after the contract was fixed."
    )
    quarantine.add_argument("action", choices=("list", "show", "replay"))
    quarantine.add_argument("record", nargs="?", default="", metavar="PARTITION/OFFSET", help="show: this record (default: the newest)")
    quarantine.add_argument("--reason", default="", help="of this reason alone: wrong_type:value, or wrong_type for every field")
    quarantine.add_argument("--format", choices=("table", "csv", "json"), default="table", help="format of the list or record")
    quarantine.add_argument("--from", dest="begin", type=_time, metavar="TIME", help="rejected at or after this time (UTC)")
    quarantine.add_argument("--until", dest="end", type=_time, metavar="TIME", help="rejected before this time (UTC)")
    quarantine.add_argument("--dry-run", action="store_true", help="replay: say what would happen, and write nothing")
    quarantine.add_argument("--schema", default="streaming", help="schema of the tables (default: streaming)")

    backfill = command("backfill", _backfill, "Read the topic again from a given time, and add the records that bronze lacks.")
    backfill.add_argument("--from", dest="begin", type=_time, required=True, metavar="TIME", help="such as 2026-03-01T00:00:00Z (UTC)")
    backfill.add_argument("--dry-run", action="store_true", help="say which offsets would be read, and write nothing")
    backfill.add_argument("--schema", default="streaming", help="schema of the tables (default: streaming)")

    baseline = command(
        "baseline",
        _baseline,
        "Set or list baselines, which drift is measured against: of a period, or of the newest clean windows.",
    )
    baseline.add_argument("action", choices=("set", "list"))
    baseline.add_argument("--from", dest="begin", type=_time, metavar="TIME", help="begin of the period (UTC)")
    baseline.add_argument("--until", dest="end", type=_time, metavar="TIME", help="its end (UTC)")
    baseline.add_argument("--windows", type=int, metavar="N", help="without a period: so many of the newest clean windows (default: 72)")
    baseline.add_argument("--name", default="", help="what to call it (default: chosen)")
    baseline.add_argument("--format", choices=("table", "csv", "json"), default="table", help="format of the list")
    baseline.add_argument("--schema", default="streaming", help="schema of the tables (default: streaming)")

    model = command("model", _model, "List the versions of the anomaly model, or choose the one that scores.")
    model.add_argument("action", choices=("list", "promote", "rollback"))
    model.add_argument("version", nargs="?", metavar="VERSION", help="promote: the number of the version that is to score")
    model.add_argument("--schema", default="streaming", help="schema of the tables (default: streaming)")

    rescore = command("rescore", _rescore, "Score the events of a period again; the old scores stay in the table's history.")
    rescore.add_argument("--from", dest="begin", type=_time, required=True, metavar="TIME", help="event time, such as 2026-03-01 (UTC)")
    rescore.add_argument("--to", "--until", dest="end", type=_time, required=True, metavar="TIME", help="its end, not included")
    rescore.add_argument("--version", default="", metavar="VERSION", help="version of the model (default: the champion)")
    rescore.add_argument("--schema", default="streaming", help="schema of the tables (default: streaming)")

    silence = command("silence", _silence, "Silence a rule of config/alert_rules.yml for a while, or list the rules that are silent.")
    silence.add_argument("rule", metavar="RULE", help="the rule's name, such as drift; or list")
    silence.add_argument("--for", dest="duration", metavar="TIME", help="such as 30m, 4h or 7d; 0m ends a silence")
    silence.add_argument("--format", choices=("table", "csv", "json"), default="table", help="format of the list")
    silence.add_argument("--schema", default="streaming", help="schema of the tables (default: streaming)")

    alerts = command("alerts", _alerts, "List the open alerts: what is going on, what waits for delivery, and what could not be delivered.")
    alerts.add_argument("action", choices=("list",))
    alerts.add_argument("--format", choices=("table", "csv", "json"), default="table")
    alerts.add_argument("--schema", default="streaming", help="schema of the tables (default: streaming)")

    resend = command("resend", _resend, "Let the next run of the main job try again to deliver the alerts that are DEAD.")
    resend.add_argument("--schema", default="streaming", help="schema of the tables (default: streaming)")

    backtest = command("backtest", _backtest, "Would the detectors have caught it? Score each row of a CSV file by the rows before it.")
    backtest.add_argument("file", type=Path, metavar="FILE.csv", help="with a header, oldest row first")
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

    produce = command("produce", _produce, "Send events to the topic: made-up ones, or JSON lines from a file or pipe.")
    produce.add_argument("--count", type=int, help="how many (default: 300000; with --rate: without end)")
    produce.add_argument("--rate", type=float, help="live events, this many a second, stamped with now")
    produce.add_argument(
        "--duration",
        type=_seconds,
        metavar="TIME",
        help="time that the events cover (default: 14d), or how long to go on; seconds, or such as 90s, 30m, 2h",
    )
    produce.add_argument("--seed", type=int, default=7, help="the same seed and start make the same events (default: 7)")
    produce.add_argument("--start", type=_time, help="time of the first event, such as 2026-03-01T00:00:00Z")
    produce.add_argument("--faults", help="all, none, or names separated by commas (default: all; live events have none)")
    produce.add_argument("--file", metavar="FILE", help="JSON lines to send as they are; - for standard input")

    contract = command("contract", _contract, "Would a contract accept these events? Check a file's lines before anything is produced.")
    contract.add_argument("action", choices=("check",))
    contract.add_argument("--file", required=True, metavar="FILE", help="JSON lines; - for standard input")
    contract.add_argument("--contract", metavar="FILE.yml", help="a contract (default: that of the home, else the shipped one)")

    consume = command("consume", _consume, "Print records of the topic.")
    consume.add_argument("--limit", type=int, default=10, help="at most this many records; 0 for all (default: 10)")
    consume.add_argument("--newest", action="store_true", help="the newest instead of the first")
    consume.add_argument("--follow", action="store_true", help="go on waiting for new records")

    sql = command("sql", _sql, "Query the local tables.")
    sql.add_argument(
        "query",
        nargs="?",
        metavar="QUERY",
        help='such as "SELECT * FROM monitor_logs ORDER BY run_time DESC"; without one a prompt asks for queries, or they are read from a '
        "pipe, each up to its semicolon",
    )
    sql.add_argument("--format", choices=("table", "csv", "json"), default="table")
    sql.add_argument("--schema", default="streaming", help="where bare table names are looked up (default: streaming)")

    command("doctor", _doctor, "Check what would keep a run from working here: Java, jars, disk, configuration, Kafka, mail.")

    report = command("report", _report, "Write a report of the local tables: one page for a browser.")
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
        os.scandir(home).close()  # another user's may be closed to others
    except FileNotFoundError:
        pass
    except OSError as error:
        raise UsageError(f"--home {home} cannot be used ({error.strerror}): name another folder.") from None
    return home


def _seconds(text: str) -> float:
    """Seconds, of a number of them or one with its unit: 90, 90s, 30m, 2h, 14d."""
    number, unit = (text[:-1], text[-1]) if text[-1:] in _UNITS else (text, "s")
    try:
        return float(number) * _UNITS[unit]
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a time such as 90s, 30m or 2h") from None


def _time(text: str) -> datetime:
    try:
        time = datetime.fromisoformat(text)
        time.replace(tzinfo=time.tzinfo or UTC).astimezone(UTC)  # it must be one in UTC too
        return time
    except (ValueError, OverflowError):
        raise argparse.ArgumentTypeError(f"{text!r} is not a time such as 2026-03-01T00:00:00Z") from None


if __name__ == "__main__":
    sys.exit(main())
