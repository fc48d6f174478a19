"""The command line: what wrong use is answered with. None of it starts Java."""

from pathlib import Path

import pytest

from streaming_pipeline.cli import main

ROOT = Path(__file__).parents[1]


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
