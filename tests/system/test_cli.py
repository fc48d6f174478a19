"""The command line: what wrong use is answered with. None of it starts Java."""

import errno
import os
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

import pytest

from laptop.cli import _parser, main

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["run", "no_such_job"], "no_such_job"),
        (["run", "--param", "colour=blue"], "colour"),
        (["run", "--param", "catalog=nope"], "'catalog' is 'nope': a laptop has spark_catalog"),
        (["run", "--var", "catalog=nope"], "'catalog' is 'nope': a laptop has spark_catalog"),
        (["run", "--param", "colour"], "--param colour"),
        (["run", "--param", "features=value,nope"], "'features' names 'nope', which is no number of the event contract; use "),
        (["run", "train_anomaly_detector", "--var", "features=nope"], "'features' names 'nope'"),
        (["run", "--param", "config_dir=tests"], f"{ROOT}/tests/event_contract.yml: the event contract cannot be read"),
        (["run", "--target", "nowhere"], "nowhere"),
        (["run", "--target", "nowhere", "--continuous"], "nowhere"),
        (["run", "train_anomaly_detector", "--continuous"], "--continuous runs full_streaming_pipeline: leave out train_anomaly_detector"),
        (["run", "--var", "no_such_variable=1"], "no_such_variable"),
        (["sql", "SELECT 1"], "no tables yet"),
        (["sql", "SELECT '\udc80'"], "Argument \"SELECT '\\udc80'\" has bytes that are not UTF-8"),
        (["run", "--home", "/tmp/\udc80"], "Argument '/tmp/\\udc80' has bytes that are not UTF-8"),
        (["run", "--param", f"schema={'x' * 300}"], "'schema'"),
        (["run", "--param", f"model_name={'x' * 300}"], "'model_name'"),
        (["report", "--schema", "x" * 300], "'schema'"),
        (["rescore", "--from", "0001-01-01T00:00:00Z", "--to", "2026-01-01T00:00:00Z", "--version", "no"], "'version'"),
        (["produce", "--file", "no-such-file.jsonl"], "no-such-file.jsonl"),
    ],
)
def test_wrong_use_is_one_sentence_and_exit_code_2(tmp_path, capsys, arguments, named):
    code = main([*arguments, "--home", str(tmp_path / "home")])
    said = capsys.readouterr().err
    assert code == 2
    assert named in said and "Traceback" not in said and said.count("\n") <= 2


@pytest.mark.parametrize(
    ("command", "option", "values"),
    [
        ("produce", "--duration", ("nan", "inf", "1e300", "-5")),
        ("produce", "--rate", ("nan", "inf", "0", "-1")),
        ("produce", "--count", ("-3", "0", str(10**30))),
        ("produce", "--seed", ("-1",)),
        ("consume", "--limit", ("-1", str(10**30))),
        ("demo", "--count", ("-3",)),
        ("demo", "--home", ("", " ", "x" * 300, __file__, f"{__file__}/x")),
    ],
)
def test_an_option_that_cannot_be_is_named_before_anything_is_made(tmp_path, capsys, command, option, values):
    for value in values:
        assert main([command, "--home", str(tmp_path / "home"), option, value]) == 2
        said = capsys.readouterr().err
        assert said.startswith(option) and said.count("\n") == 1
        assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("time", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00"])
@pytest.mark.parametrize("command", ["backfill --from", "quarantine list --until", "baseline set --from", "produce --start"])
def test_a_time_that_utc_does_not_have_is_no_time(tmp_path, capsys, command, time):
    with pytest.raises(SystemExit, match="2"):
        main([*command.split(), time, "--home", str(tmp_path / "home")])
    assert f"'{time}' is not a time" in capsys.readouterr().err


def test_a_current_folder_that_cannot_be_used_is_named(tmp_path, capsys, monkeypatch):
    odd = tmp_path / "\udc80"
    odd.mkdir()
    monkeypatch.chdir(odd)
    assert main(["doctor"]) == 2
    odd.rmdir()
    assert main(["doctor"]) == 2
    assert [line[:20] for line in capsys.readouterr().err.splitlines()] == ["The current folder '", "The current folder c"]


def refused(capsys, *arguments):
    """What argparse says of these arguments."""
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert end.value.code == 2
    return capsys.readouterr().err


def test_a_misspelt_option_shows_its_commands_usage_and_the_nearest_option(capsys):
    said = refused(capsys, "quarantine", "list", "--resaon", "wrong_type")
    assert said.startswith("usage: streaming-pipeline quarantine") and "did you mean --reason?" in said
    said = refused(capsys, "produce", "--xyz=1")
    assert said.startswith("usage: streaming-pipeline produce") and "--xyz=1" in said and "did you mean" not in said
    assert refused(capsys, "run", "a", "b").startswith("usage: streaming-pipeline run")


def test_the_version_is_that_of_the_package(capsys):
    with pytest.raises(SystemExit) as end:
        main(["--version"])
    assert (end.value.code, capsys.readouterr().out) == (0, f"streaming-pipeline {version('streaming-pipeline')}\n")


@pytest.mark.parametrize(("text", "seconds"), [("90", 90), ("1.5", 1.5), ("90s", 90), ("30m", 1_800), ("2h", 7_200), ("14d", 1_209_600)])
def test_a_duration_is_seconds_or_has_its_unit(text, seconds):
    assert _parser().parse_args(["produce", "--duration", text]).duration == seconds


def test_a_duration_of_no_unit_is_refused(capsys):
    assert "'2x' is not a time such as 90s, 30m or 2h" in refused(capsys, "produce", "--duration", "2x")


@pytest.mark.parametrize(
    "command",
    [
        "consume",
        "sql",
        "report",
        "doctor",
        "broker status",
        "broker stop",
        "model list",
        "quarantine list",
        "quarantine show 0/1",
        "quarantine replay --dry-run",
        "backfill --from 2026-03-01 --dry-run",
        "baseline list",
        "baseline set",
        "rescore --from 2026-03-01 --to 2026-03-02",
        "silence list",
        "alerts list",
        "resend",
    ],
)
def test_a_command_that_makes_no_home_leaves_none_behind(tmp_path, capsys, monkeypatch, command):
    monkeypatch.delenv("KAFKA_BOOTSTRAP_SERVERS", raising=False)
    main([*command.split(), "--home", str(tmp_path / "typo")])
    said = capsys.readouterr()
    assert list(tmp_path.iterdir()) == []
    assert "Traceback" not in said.err and (said.out or str(tmp_path / "typo") in said.err)


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("quarantine list --dry-run", "--dry-run goes with quarantine replay"),
        ("quarantine replay --format json", "--format goes with quarantine list and show"),
        ("quarantine list 0/1", "0/1 goes with quarantine show"),
        ("baseline list --name x", "go with baseline set"),
        ("baseline set --windows 3 --from 2026-03-01 --until 2026-03-02", "does not go with --from and --until"),
        ("baseline set --windows 0", "--windows is 0, and must be from 1"),
        ("baseline set --from 2026-03-01", "Give both 'from_time' (--from)"),
        ("silence list --for 4h", "--for goes with the name of a rule"),
        ("silence drift", "say for how long, such as --for 4h"),
    ],
)
def test_options_that_do_not_go_together_are_named(tmp_path, capsys, command, said):
    assert main([*command.split(), "--home", str(tmp_path / "home")]) == 2
    assert said in capsys.readouterr().err


def test_produce_that_is_interrupted_before_it_sends_says_so(tmp_path, capsys, monkeypatch):
    def press(*_, **__):
        raise KeyboardInterrupt

    for key, value in {"BOOTSTRAP_SERVERS": "127.0.0.1:1", "SECURITY_PROTOCOL": "SASL_SSL", "API_KEY": "k", "API_SECRET": "s"}.items():
        monkeypatch.setenv(f"KAFKA_{key}", value)
    monkeypatch.setattr("streaming_pipeline.events.synthetic.generate", press)
    assert main(["produce", "--home", str(tmp_path)]) == 130
    assert capsys.readouterr().err == "Stopped. 0 records were delivered.\n"


def test_a_folder_that_is_no_demo_is_not_emptied(tmp_path, capsys):
    (tmp_path / "precious.txt").write_text("mine")
    assert main(["demo", "--home", str(tmp_path)]) == 2
    assert (tmp_path / "precious.txt").read_text() == "mine"
    assert str(tmp_path) in capsys.readouterr().err


@pytest.mark.parametrize("command", ["run", "produce", "consume"])
def test_a_topic_that_cannot_be_is_named_before_the_broker_is_asked(tmp_path, capsys, monkeypatch, command):
    monkeypatch.setenv("KAFKA_TOPIC", "a b")
    assert main([command, "--home", str(tmp_path / "home")]) == 2
    assert "KAFKA_TOPIC 'a b'" in capsys.readouterr().err
    assert not (tmp_path / "home" / "broker").exists()


def test_outside_of_a_bundle_it_says_so(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["run"]) == 2
    assert "databricks.yml" in capsys.readouterr().err


def test_a_broker_that_never_ran_is_stopped(tmp_path, capsys):
    assert main(["broker", "status", "--home", str(tmp_path)]) == 1
    assert capsys.readouterr().out == "stopped\n"
    assert main(["broker", "stop", "--home", str(tmp_path)]) == 0


@pytest.mark.parametrize("command", [["sql", "SELECT 1"], ["model", "list"], ["report"], ["broker", "stop"]])
def test_a_home_that_another_user_keeps_closed_is_named(capsys, command):
    with tempfile.TemporaryDirectory() as home:
        Path(home).chmod(0o700 if os.geteuid() == 0 else 0)
        before = os.geteuid()
        if before == 0:
            os.seteuid(65534)  # whom others' folders are closed to, unlike root
        try:
            assert main([*command, "--home", home]) == 2
        finally:
            os.seteuid(before)
            Path(home).chmod(0o700)
    assert capsys.readouterr().err == f"--home {home} cannot be used (Permission denied): name another folder.\n"


@pytest.mark.parametrize("command", [["sql"], ["quarantine", "list"], ["alerts", "list"], ["backfill", "--from", "2026-03-01"]])
def test_a_schema_that_is_no_name_is_named(tmp_path, capsys, command):
    (tmp_path / "warehouse").mkdir()
    for schema in ("/x", "**"):
        assert main([*command, "--home", str(tmp_path), "--schema", schema]) == 2
        said = capsys.readouterr().err
        assert "schema" in said and repr(schema) in said and said.count("\n") == 1


def test_without_home_the_one_beside_the_bundle_is_meant_also_from_a_subfolder(tmp_path, monkeypatch):
    below = tmp_path / "bundle" / "docs"
    below.mkdir(parents=True)
    (tmp_path / "bundle" / "databricks.yml").write_text("")
    homes = []
    for folder in (below, below.parent, tmp_path):
        monkeypatch.chdir(folder)
        homes.append(_parser().parse_args(["report"]).home)
    assert homes == [tmp_path / "bundle" / ".local", Path(".local"), Path(".local")]


def test_a_full_disk_is_named(monkeypatch, capsys):
    def write(*_):
        raise OSError(errno.ENOSPC, "No space left on device", "lines.jsonl")

    monkeypatch.setattr("laptop.cli._contract", write)
    assert main(["contract", "check", "--file", "lines.jsonl"]) == 1
    assert capsys.readouterr().err == "A disk or folder cannot be used: [Errno 28] No space left on device: 'lines.jsonl'.\n"


def test_a_store_of_models_that_cannot_be_used_is_named(tmp_path, capsys):
    (tmp_path / "mlflow").mkdir()
    (tmp_path / "mlflow" / "mlflow.db").write_text("no database, " * 100)
    assert main(["model", "list", "--home", str(tmp_path)]) == 1
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith(f"The models' store {tmp_path}/mlflow/mlflow.db cannot be used (") and "file is not a database" in said


def test_too_little_memory_is_one_sentence(tmp_path):
    command = f"ulimit -v 150000; exec {sys.executable} -m laptop.cli doctor --home {tmp_path}"
    ended = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr == "There is not enough memory for this: `ulimit -v` gives each process 150,000 kB, let it have more.\n"
