"""`<home>/config` is the configuration of that home for every command, and each says so."""

import shutil
from pathlib import Path

import pytest

from laptop.cli import main
from laptop.doctor import examine
from laptop.models import laptop_settings
from laptop.run import config_settings
from streaming_pipeline.core.errors import UsageError

ROOT = Path(__file__).parents[2]
SENSORS = ROOT / "examples" / "sensors" / "event_contract.yml"
RULES = "rules:\n  - name: mine\n    finding: drift\n"


@pytest.fixture
def own_home(tmp_path) -> Path:
    """A home whose configuration is a contract and nothing else."""
    (tmp_path / "home" / "config").mkdir(parents=True)
    shutil.copy(SENSORS, tmp_path / "home" / "config")
    return tmp_path / "home"


def test_what_the_homes_configuration_lacks_is_the_shipped_one(own_home):
    settings = config_settings(own_home, ROOT)
    assert settings.contract_path == f"{own_home}/config/event_contract.yml"
    assert settings.alert_rules_path == f"{ROOT}/config/alert_rules.yml"
    assert settings.prices_path == f"{ROOT}/config/prices.yml"
    assert laptop_settings(own_home, "streaming").contract_path == settings.contract_path
    shutil.rmtree(own_home / "config")
    assert config_settings(own_home, ROOT).config_dir == f"{ROOT}/config"


@pytest.mark.parametrize(
    ("arguments", "refused"),
    [
        # Each is refused for a reason that only this home's configuration has, before anything is started.
        (
            ["run", "--param", "features=value"],
            "'features' names 'value', which is no number of the event contract; use humidity_percent",
        ),
        (["run", "--continuous", "--param", "features=value"], "use humidity_percent"),
        (["run", "train_anomaly_detector", "--param", "features=value"], "use humidity_percent"),
        (["produce", "--file", "no-such-file.jsonl"], "--file no-such-file.jsonl cannot be read"),
    ],
)
def test_a_command_goes_by_the_homes_contract_and_says_so(own_home, capsys, arguments, refused):
    assert main([*arguments, "--home", str(own_home)]) == 2
    said = capsys.readouterr()
    assert refused in said.err and said.out == ""
    assert said.err.splitlines()[0] == f"Configuration of {own_home}/config: event_contract.yml"


def test_a_configuration_that_is_named_wins_over_the_homes_and_is_said_too(own_home, capsys):
    other = own_home.parent / "other"
    shutil.copytree(ROOT / "config", other)
    assert main(["run", "--home", str(own_home), "--param", f"config_dir={other}", "--param", "features=x"]) == 2
    said = capsys.readouterr().err
    assert f"Configuration of {other}: event_contract.yml, alert_rules.yml, prices.yml\n" in said and "use timestamp_unix, value" in said


def test_nothing_is_said_of_the_shipped_configuration(tmp_path, capsys):
    assert main(["run", "--home", str(tmp_path), "--param", "features=x"]) == 2
    assert "Configuration" not in capsys.readouterr().err


def test_alert_rules_that_cannot_be_read_are_refused_before_spark_starts(own_home, capsys):
    (own_home / "config" / "alert_rules.yml").write_text("rules: 5\n")
    assert main(["run", "--home", str(own_home)]) == 2
    said = capsys.readouterr().err
    assert "alert_rules.yml" in said and "rules" in said and not (own_home / "logs").exists()


def test_the_homes_alert_rules_are_those_that_can_be_silenced(own_home, capsys):
    (own_home / "config" / "alert_rules.yml").write_text(RULES)
    assert main(["silence", "drift", "--for", "1h", "--home", str(own_home)]) == 2
    assert "Rules: mine." in capsys.readouterr().err


def test_the_doctor_looks_at_the_homes_configuration_and_names_its_files(own_home):
    (own_home / "config" / "prices.yml").write_text("currency: EUR\n")
    found = {finding.part: finding for finding in examine(own_home, ROOT)}
    assert found["event_contract.yml"].text == (
        f"reading_id, site, measured_at, temperature_celsius, humidity_percent, is_calibrated ({own_home}/config/event_contract.yml)"
    )
    assert not found["prices.yml"].is_well and f"{own_home}/config/prices.yml" in found["prices.yml"].text
    assert found["alert_rules.yml"].is_well and "(" not in found["alert_rules.yml"].text


@pytest.mark.parametrize("name", ["event_contract.yaml", "contract.yml"])
def test_a_file_that_nobody_would_read_is_refused(own_home, name):
    (own_home / "config" / "event_contract.yml").rename(own_home / "config" / name)
    with pytest.raises(UsageError, match=f"{name} is none of event_contract.yml, alert_rules.yml, prices.yml: rename it"):
        config_settings(own_home, ROOT)


def test_a_configuration_that_cannot_be_read_is_not_passed_over(tmp_path):
    (tmp_path / "config").write_text("not a folder")
    with pytest.raises(UsageError, match="the configuration of this home, cannot be read"):
        config_settings(tmp_path, ROOT)
    (tmp_path / "config").unlink()
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "event_contract.yml").symlink_to(tmp_path / "gone.yml")
    assert config_settings(tmp_path, ROOT).contract_path == f"{tmp_path}/config/event_contract.yml"


def test_the_demo_deletes_no_configuration(own_home, capsys):
    (own_home / ".streaming-pipeline-demo").touch()
    assert main(["demo", "--home", str(own_home)]) == 2
    assert "config would be deleted" in capsys.readouterr().err and (own_home / "config" / "event_contract.yml").exists()
