"""`streaming-pipeline doctor`: what is well is said to be, what is not is named, and no secret is shown."""

import pytest
from secret_search import Secrets

from laptop import cli
from laptop.doctor import examine


def test_a_machine_that_can_run_everything_is_told_so(copied_bundle, home, broker, mailbox, monkeypatch):
    for key, value in {**broker.secrets("SASL_SSL"), **mailbox[1]}.items():
        monkeypatch.setenv(key, value)
    broker.create_topic("stream-input")
    found = {finding.part: finding for finding in examine(home, copied_bundle)}
    assert all(finding.is_well for finding in found.values()), found
    assert "topic stream-input, 3 partitions" in found["Kafka"].text
    assert mailbox[1]["SMTP_HOST"] in found["mail"].text and mailbox[1]["SMTP_TO"] in found["mail"].text


def test_whatever_is_wrong_is_named_and_the_rest_is_looked_at_all_the_same(copied_bundle, home, broker, mailbox, monkeypatch, tmp_path):
    (copied_bundle / "config" / "event_contract.yml").write_text("fields: 3\n")
    (copied_bundle / "config" / "alert_rules.yml").unlink()
    (copied_bundle / "config" / "prices.yml").write_text("currency: EUR\nspot_factor: 2\nmachines: {}\n")
    secrets = {**broker.secrets("SASL_SSL", "no-such-topic"), **mailbox[1], "SMTP_SSL_CA_LOCATION": str(tmp_path / "none.pem")}
    secrets["ALERT_WEBHOOK_URL"] = "http://chat.example.com/a-secret-path"
    for key, value in secrets.items():
        monkeypatch.setenv(key, value)
    found = {finding.part: finding for finding in examine(home, copied_bundle)}
    wrong = {"event_contract.yml", "alert_rules.yml", "prices.yml", "Kafka", "mail", "webhook"}
    assert {part for part, finding in found.items() if not finding.is_well} == wrong
    for part, words in {
        "prices.yml": "spot_factor",
        "alert_rules.yml": "alert_rules.yml",
        "Kafka": "no-such-topic",
        "mail": "SMTP_SSL_CA_LOCATION",
        "webhook": "ALERT_WEBHOOK_URL",
    }.items():
        assert words in found[part].text
    said = {part: finding.text for part, finding in found.items()}
    assert "a-secret-path" not in str(said) and not Secrets.of(secrets).in_texts(said)


def test_the_command_ends_with_1_where_something_is_wrong(copied_bundle, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(copied_bundle)
    assert cli.main(["doctor", "--home", str(tmp_path / "home")]) == 0
    (copied_bundle / ".env").write_text("SMTP_HOST=mail.example.com\n")
    assert cli.main(["doctor", "--home", str(tmp_path / "home")]) == 1
    assert "SMTP_FROM is not set" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["broker", "warehouse", "mlflow"])
def test_a_file_in_the_place_of_a_folder_is_named(copied_bundle, tmp_path, name):
    (tmp_path / name).write_text("a file")
    found = {remark.part: remark for remark in examine(tmp_path, copied_bundle)}
    assert not found["home folder"].is_well and f"{tmp_path / name} is no folder" in found["home folder"].text


def test_secrets_that_others_can_read_are_named(copied_bundle, tmp_path):
    env, key = copied_bundle / ".env", tmp_path / "client key.pem"
    key.touch(mode=0o640)
    env.write_text(f'KAFKA_SSL_KEY_LOCATION="{key}"\n')
    env.chmod(0o604)
    said = lambda: next(finding for finding in examine(tmp_path / "home", copied_bundle) if finding.part == ".env")  # noqa: E731
    assert not said().is_well and f"chmod 600 {env} '{key}'" in said().text
    env.chmod(0o600)
    assert not said().is_well and str(env) not in said().text
    key.chmod(0o600)
    assert said().is_well
