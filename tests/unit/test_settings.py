"""Settings: what is accepted, what is refused, and that a refusal names the setting and shows no secret."""

import pytest

from laptop.env import read_secrets
from laptop.jobs.dbutils import DBUtils
from streaming_pipeline.core.errors import UsageError
from streaming_pipeline.core.settings import KafkaSettings, Settings, parse_time
from streaming_pipeline.core.settings import read_secrets as secrets_of_scope

MTLS = {
    "KAFKA_BOOTSTRAP_SERVERS": "a:9093, b:9093",
    "KAFKA_SSL_CA_LOCATION": "ca.pem",
    "KAFKA_SSL_CERTIFICATE_LOCATION": "client.pem",
    "KAFKA_SSL_KEY_LOCATION": "key.pem",
}
CONFLUENT = {"KAFKA_BOOTSTRAP_SERVERS": "x.confluent.cloud:9092", "KAFKA_API_KEY": "KEY", "KAFKA_API_SECRET": "s3cr3t"}


def test_a_secret_that_was_put_from_a_file_has_no_newline_at_its_end():
    dbutils = DBUtils(secrets={"SMTP_PASSWORD": " a b \r\n", "SMTP_HOST": "mail\n", "OTHER": "x"})
    assert secrets_of_scope(dbutils, "any", "SMTP_") == {"SMTP_PASSWORD": " a b ", "SMTP_HOST": "mail"}


def test_both_shapes_of_connection_are_understood():
    mtls, cloud = KafkaSettings.from_secrets(MTLS), KafkaSettings.from_secrets(CONFLUENT)
    assert (mtls.security_protocol, mtls.bootstrap_servers, mtls.topic) == ("SSL", "a:9093,b:9093", "stream-input")
    assert (cloud.security_protocol, cloud.api_key, cloud.api_secret) == ("SASL_SSL", "KEY", "s3cr3t")


def test_the_topic_of_the_parameter_wins():
    assert KafkaSettings.from_secrets({**MTLS, "KAFKA_TOPIC": "a"}).topic == "a"
    assert KafkaSettings.from_secrets({**MTLS, "KAFKA_TOPIC": "a"}, topic="b").topic == "b"


@pytest.mark.parametrize(
    ("secrets", "named"),
    [
        ({}, "KAFKA_BOOTSTRAP_SERVERS"),
        ({**MTLS, "KAFKA_BOOTSTRAP_SERVERS": "host"}, "KAFKA_BOOTSTRAP_SERVERS"),
        ({**MTLS, "KAFKA_BOOTSTRAP_SERVERS": "host:99999"}, "KAFKA_BOOTSTRAP_SERVERS"),
        ({**MTLS, "KAFKA_SECURITY_PROTOCOL": "PLAINTEXT"}, "KAFKA_SECURITY_PROTOCOL"),
        ({**MTLS, "KAFKA_SSL_KEY_LOCATION": ""}, "KAFKA_SSL_KEY_LOCATION"),
        ({**CONFLUENT, "KAFKA_API_SECRET": ""}, "KAFKA_API_SECRET"),
        ({**MTLS, "KAFKA_TOPIC": "no spaces"}, "KAFKA_TOPIC"),
        ({**MTLS, "KAFKA_TOPIC": ".."}, "KAFKA_TOPIC"),
    ],
)
def test_a_connection_that_cannot_work_is_refused_by_name(secrets, named):
    with pytest.raises(UsageError, match=named) as refusal:
        KafkaSettings.from_secrets(secrets)
    assert "s3cr3t" not in str(refusal.value)


@pytest.mark.parametrize(
    ("parameter", "text"),
    [
        ("catalog", "x`; DROP TABLE y"),
        ("schema", "a.b"),
        ("model_name", "with space"),
        ("max_offsets_per_trigger", "many"),
        ("max_offsets_per_trigger", "0"),
        ("max_offsets_per_trigger", str(2**63)),
        ("late_after_seconds", str(2**63)),
        ("dedupe_window_days", "-1"),
        ("contamination", "0.9"),
        ("contamination", "nan"),
        ("features", "value,value"),
        ("rejected_limit_pct", "-1"),
        ("rejected_limit_pct", "nan"),
        ("repeated_limit_pct", "101"),
        ("kafka_topic", "a b"),
        ("run_id", "../.."),
        ("run_id", "a/b"),
        ("run_id", "."),
        ("run_id", "a..b"),
        ("run_id", "x" * 300),
        ("kafka_options", f'{{"a": {"[" * 100_000}{"]" * 100_000}}}'),
        ("kafka_options", f'{{"a": {"1" * 5000}}}'),
        ("kafka_options", "{'a': 1}"),
        ("kafka_options", "[1]"),
        ("kafka_options", '{"subscribePattern": ".*"}'),
        ("kafka_options", '{"startingTimestamp": "0"}'),
        ("kafka_options", '{"startingoffsetsbytimestamp": "{}"}'),
        ("kafka_options", '{"ENDINGOFFSETS": "latest"}'),
        ("kafka_options", '{"maxoffsetspertrigger": "1"}'),
        ("kafka_options", '{"kafka.bootstrap.servers": "other:9093"}'),
        ("kafka_options", '{"kafka.sasl.jaas.config": "..."}'),
        ("kafka_options", '{"kafka.isolation.level": "read_uncommitted"}'),
        ("checkpoint_dir", "dbfs:/Volumes/main/streaming/checkpoints"),
        ("runs_dir", "s3://bucket/runs"),
        ("colour", "blue"),
    ],
)
def test_a_parameter_that_cannot_be_used_is_refused_by_name(parameter, text):
    with pytest.raises(UsageError, match=parameter):
        Settings.from_parameters({"catalog": "main", parameter: text})


def test_a_limit_is_named_with_its_range():
    with pytest.raises(UsageError, match=r"'max_offsets_per_trigger' is 10{30}: it must be 1 to 9223372036854775807"):
        Settings.from_parameters({"catalog": "main", "max_offsets_per_trigger": str(10**30)})
    assert Settings.from_parameters({"catalog": "main", "max_offsets_per_trigger": str(2**63 - 1)})


@pytest.mark.parametrize("run_id", ["by-hand", "759600058421372", "20261124T105309Z-3af9", "v1.2_a"])
def test_a_run_is_named_as_a_workspace_a_laptop_or_a_person_does_it(run_id):
    assert Settings(catalog="main", run_id=run_id).run_dir == f"/Volumes/main/streaming/runs/{run_id}"


def test_an_empty_parameter_means_its_default():
    settings = Settings.from_parameters({"catalog": "main", "schema": "", "features": " value , timestamp_unix "})
    assert settings == Settings(catalog="main", features=("value", "timestamp_unix"))
    assert settings.checkpoint("silver") == "/Volumes/main/streaming/checkpoints/streaming/silver"
    with pytest.raises(UsageError, match="catalog"):
        Settings.from_parameters({"catalog": ""})


def test_no_secret_stands_in_the_text_of_settings():
    settings = Settings(catalog="main", secrets=CONFLUENT)
    assert "s3cr3t" not in repr(settings) and "s3cr3t" not in repr(settings.kafka)


def test_env_file_is_read_and_the_environment_wins(tmp_path, monkeypatch):
    for key in CONFLUENT:
        monkeypatch.delenv(key, raising=False)
    (tmp_path / ".env").write_text('# ours\nKAFKA_TOPIC="a"\nKAFKA_SSL_CA_LOCATION=certs/ca.pem\nOTHER=1\nKAFKA_API_KEY=\n')
    monkeypatch.setenv("KAFKA_TOPIC", "b")
    assert read_secrets(tmp_path / ".env") == {"KAFKA_TOPIC": "b", "KAFKA_SSL_CA_LOCATION": str(tmp_path / "certs/ca.pem")}


@pytest.mark.parametrize("line", ["KAFKA_BOOTSTRAP_SERVER=a:1", "KAFKA_TOPIC", "what is this", 'KAFKA_TOPIC="half'])
def test_a_bad_line_of_the_env_file_is_refused_with_file_and_line(tmp_path, line):
    (tmp_path / ".env").write_text(f"# first\n{line}\n")
    with pytest.raises(UsageError, match=r"\.env line 2"):
        read_secrets(tmp_path / ".env")


@pytest.mark.parametrize("parameter", ["catalog", "schema", "model_name", "kafka_topic"])
@pytest.mark.parametrize("text", ["x`; DROP TABLE y --", "a`b", "a.b`.c", "a'b", 'a"b', "a\nb", "a/../b", "é"])
def test_a_name_that_is_no_name_goes_into_no_statement(parameter, text):
    with pytest.raises(UsageError) as refusal:
        _ = Settings.from_parameters({"catalog": "main", parameter: text}, MTLS).kafka
    said = str(refusal.value)
    assert parameter in said.lower() and repr(text) in said and "\n" not in said
    assert said.count(": ") == 1 and said.endswith(".")


@pytest.mark.parametrize("text", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00", "tomorrow"])
def test_a_time_that_cannot_be_is_refused_with_its_parameter(text):
    with pytest.raises(UsageError, match=r"Parameter 'from_time' is '.*': it must be a time"):
        parse_time("from_time", text)
