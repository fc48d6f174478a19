"""Both ways to connect work, a wrong setting is named within seconds, and no key or password shows anywhere."""

from dataclasses import replace

from streaming_pipeline.core.settings import KafkaSettings
from streaming_pipeline.kafka.connection import check_connection, spark_options, topic_offsets

SASL = KafkaSettings("broker:9092", "SASL_SSL", "events", api_key="key", api_secret='a"b\\c')


def test_the_login_is_quoted_and_databricks_has_its_own_class(monkeypatch):
    monkeypatch.delenv("DATABRICKS_RUNTIME_VERSION", raising=False)
    login = ' required username="key" password="a\\"b\\\\c";'
    assert spark_options(SASL)["kafka.sasl.jaas.config"] == "org.apache.kafka.common.security.plain.PlainLoginModule" + login
    assert "kafka.ssl.truststore.certificates" not in spark_options(SASL)
    monkeypatch.setenv("DATABRICKS_RUNTIME_VERSION", "18.0")
    assert spark_options(SASL)["kafka.sasl.jaas.config"].startswith("kafkashaded.org.apache.kafka.common.security.plain.PlainLoginModule ")


def test_further_options_come_last():
    own = {"groupIdPrefix": "team-", "kafka.isolation.level": "read_uncommitted", "kafkaConsumer.pollTimeoutMs": "120000"}
    assert spark_options(replace(SASL, options=own)).items() >= own.items()


def test_with_a_service_credential_no_other_login_is_set_and_the_broker_is_not_asked():
    settings = replace(SASL, options={"databricks.serviceCredential": "streams"})
    login = {name: text for name, text in spark_options(SASL).items() if name.startswith(("kafka.security", "kafka.sasl", "kafka.ssl"))}
    assert set(login) == {"kafka.security.protocol", "kafka.sasl.mechanism", "kafka.sasl.jaas.config"}
    assert spark_options(settings) | login == spark_options(SASL) | {"databricks.serviceCredential": "streams"}
    assert not spark_options(settings).keys() & login.keys()
    assert (check_connection(settings).topic_id, check_connection(settings).partitions) == (f"unknown-{settings.topic}", ())
    assert topic_offsets(settings).beginnings == topic_offsets(settings).ends == {}
