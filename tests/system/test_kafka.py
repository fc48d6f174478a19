"""Both ways to connect work, a wrong setting is named within seconds, and no key or password shows anywhere."""

import socket
import sys
import time
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
import trustme
from confluent_kafka import Producer
from cryptography.hazmat.primitives import serialization

from laptop.services.certificates import Certificates
from streaming_pipeline.core.errors import PipelineError
from streaming_pipeline.kafka.connection import check_connection, client_config, pem, spark_options, topic_offsets


def produce(settings, count, **more):
    producer = Producer(client_config(settings) | more)
    if more:
        producer.init_transactions()
        producer.begin_transaction()
    for number in range(count):
        producer.produce(settings.topic, f"event {number}".encode(), partition=0)
    producer.flush()
    return producer


def client_certificate(authority, folder, **validity) -> dict[str, str]:
    """A client's certificate of this authority, as settings."""
    leaf = authority.issue_cert("client.local", **validity)
    leaf.cert_chain_pems[0].write_to_path(folder / "client.pem")
    leaf.private_key_pem.write_to_path(folder / "client.key")
    return {"ssl_certificate_location": str(folder / "client.pem"), "ssl_key_location": str(folder / "client.key")}


def refusal(settings, timeout_seconds=10.0):
    """What is said of these settings; it must not take longer than the time limit and a little."""
    started = time.monotonic()
    with pytest.raises(PipelineError) as caught:
        check_connection(settings, timeout_seconds)
    assert time.monotonic() - started < timeout_seconds + 3
    said = str(caught.value)
    assert "\n" not in said
    assert not settings.api_secret or settings.api_secret not in said
    return said


@pytest.mark.parametrize("listener", ["kafka_mtls", "kafka_sasl"])
def test_clients_and_spark_read_over_both_listeners(listener, request, spark, capfd):
    settings = request.getfixturevalue(listener)
    produce(settings, 3)
    info = check_connection(settings)
    assert (info.topic, info.partitions, len(info.topic_id)) == (settings.topic, (0, 1, 2), 22)
    assert spark.read.format("kafka").options(**spark_options(settings)).load().count() == 3

    stream = spark.readStream.format("kafka").options(**spark_options(settings)).load()
    stream.explain(True)
    shown = "".join(capfd.readouterr())
    assert settings.topic in shown
    secret = settings.api_secret or Path(settings.ssl_key_location).read_text().splitlines()[1]
    assert secret not in shown


def test_offsets_are_those_of_committed_records(kafka_mtls):
    produce(kafka_mtls, 2)
    offsets = topic_offsets(kafka_mtls)
    assert offsets.info == check_connection(kafka_mtls)
    assert offsets.beginnings == {0: 0, 1: 0, 2: 0}
    assert offsets.ends == {0: 2, 1: 0, 2: 0}
    transaction = produce(kafka_mtls, 5, **{"transactional.id": kafka_mtls.topic})
    assert topic_offsets(kafka_mtls).ends[0] == 2
    transaction.commit_transaction()
    assert topic_offsets(kafka_mtls).ends[0] == 8  # with the marker that ends the transaction


def test_a_topic_made_again_is_another_one(kafka_mtls, broker):
    first = check_connection(kafka_mtls)
    broker.delete_topic(kafka_mtls.topic)
    broker.create_topic(kafka_mtls.topic, partitions=1)
    again = check_connection(kafka_mtls)
    assert (again.topic_id == first.topic_id, again.partitions) == (False, (0,))


def test_a_missing_topic_is_named_with_those_there_are(kafka_mtls):
    said = refusal(replace(kafka_mtls, topic="no-such-topic"))
    assert said.startswith("KAFKA_TOPIC=no-such-topic: the broker has no such topic (there are ")


def test_wrong_addresses_are_named(kafka_mtls, capfd):
    port = kafka_mtls.bootstrap_servers.rpartition(":")[2]
    assert "not known" in refusal(replace(kafka_mtls, bootstrap_servers="no-such-host.invalid:9093"))
    assert "Connection refused" in refusal(replace(kafka_mtls, bootstrap_servers="127.0.0.1:1"))
    assert "for another host" in refusal(replace(kafka_mtls, bootstrap_servers=f"127.1:{port}"))
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        black_hole = replace(kafka_mtls, bootstrap_servers=f"127.0.0.1:{silent.getsockname()[1]}")
        said = refusal(black_hole, timeout_seconds=1)
    assert said.startswith("KAFKA_BOOTSTRAP_SERVERS=127.0.0.1:") and "no answer within 1 s" in said
    one_of_two = replace(kafka_mtls, bootstrap_servers=f"127.0.0.1:1,{kafka_mtls.bootstrap_servers}")
    assert check_connection(one_of_two).topic == kafka_mtls.topic
    assert capfd.readouterr() == ("", "")


def test_an_authority_that_does_not_vouch_for_the_broker_is_named(kafka_mtls, kafka_sasl, tmp_path):
    trustme.CA().cert_pem.write_to_path(tmp_path / "other.pem")
    for settings in (kafka_mtls, kafka_sasl):
        said = refusal(replace(settings, ssl_ca_location=str(tmp_path / "other.pem")))
        assert said.startswith(f"KAFKA_SSL_CA_LOCATION={tmp_path}/other.pem does not vouch")
    assert refusal(replace(kafka_sasl, ssl_ca_location=None)).startswith("KAFKA_SSL_CA_LOCATION is not set, and what this machine")


def test_mtls_refuses_whoever_has_no_good_certificate(kafka_mtls, kafka_sasl, broker, tmp_path, monkeypatch):
    foreign = replace(kafka_mtls, **client_certificate(trustme.CA(), tmp_path))
    assert refusal(foreign).startswith(f"KAFKA_SSL_CERTIFICATE_LOCATION={tmp_path}/client.pem: the broker refuses")

    files = Certificates(broker.folder / "certificates")
    authority = trustme.CA.from_pem(files.ca.read_bytes(), files.ca_key.read_bytes())
    long_ago = {"not_before": datetime(2020, 1, 1, tzinfo=UTC), "not_after": datetime(2021, 1, 1, tzinfo=UTC)}
    expired = replace(kafka_mtls, **client_certificate(authority, tmp_path, **long_ago))
    assert "the certificate expired on 2021-01-01" in refusal(expired)
    monkeypatch.setattr(pem, "_expired_on", lambda certificates: None)  # as where it cannot be seen beforehand
    assert refusal(expired).startswith(f"KAFKA_SSL_CERTIFICATE_LOCATION={tmp_path}/client.pem: the broker refuses")

    without = replace(kafka_sasl, bootstrap_servers=kafka_mtls.bootstrap_servers)
    assert refusal(without).startswith("KAFKA_SECURITY_PROTOCOL=SASL_SSL: the broker at 127.0.0.1:")


def test_sasl_refuses_a_wrong_key_and_clients_without_one(kafka_mtls, kafka_sasl):
    for wrong in ({"api_secret": "geheim"}, {"api_key": "nobody"}):
        assert refusal(replace(kafka_sasl, **wrong)).startswith("KAFKA_API_KEY or KAFKA_API_SECRET is wrong")
    without = replace(kafka_mtls, bootstrap_servers=kafka_sasl.bootstrap_servers)
    assert refusal(without).startswith("KAFKA_SECURITY_PROTOCOL=SSL: the broker at 127.0.0.1:")


def test_files_that_cannot_be_used_are_named_before_the_broker_is_asked(kafka_mtls, tmp_path):
    not_pem, broken = tmp_path / "text.pem", tmp_path / "broken.pem"
    not_pem.write_text("hello")
    broken.write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    settings = {"ssl_ca_location": "CA", "ssl_certificate_location": "CERTIFICATE", "ssl_key_location": "KEY"}
    for field, name in settings.items():
        missing = replace(kafka_mtls, **{field: str(tmp_path / "none.pem")})
        assert refusal(missing).startswith(f"KAFKA_SSL_{name}_LOCATION={tmp_path}/none.pem cannot be read (No such file")
        for wrong in (not_pem, broken):
            assert refusal(replace(kafka_mtls, **{field: str(wrong)})).startswith(f"KAFKA_SSL_{name}_LOCATION={wrong} holds no ")
    other = client_certificate(trustme.CA(), tmp_path)
    said = refusal(replace(kafka_mtls, ssl_key_location=other["ssl_key_location"]))
    assert said.startswith(f"KAFKA_SSL_KEY_LOCATION={tmp_path}/client.key does not fit KAFKA_SSL_CERTIFICATE_LOCATION=")


def test_keys_are_handed_to_spark_in_the_form_it_reads(kafka_mtls, tmp_path):
    key = serialization.load_pem_private_key(Path(kafka_mtls.ssl_key_location).read_bytes(), None)

    def written(form, encryption):
        (tmp_path / "key.pem").write_bytes(key.private_bytes(serialization.Encoding.PEM, form, encryption))
        return replace(kafka_mtls, ssl_key_location=str(tmp_path / "key.pem"))

    plain = serialization.NoEncryption()
    older = written(serialization.PrivateFormat.TraditionalOpenSSL, plain)
    assert "BEGIN EC PRIVATE KEY" in Path(older.ssl_key_location).read_text()
    handed_on = spark_options(older)["kafka.ssl.keystore.key"]
    assert handed_on == spark_options(kafka_mtls)["kafka.ssl.keystore.key"]
    assert "BEGIN PRIVATE KEY" in handed_on
    assert check_connection(older).topic == kafka_mtls.topic

    for form in (serialization.PrivateFormat.PKCS8, serialization.PrivateFormat.TraditionalOpenSSL):
        encrypted = written(form, serialization.BestAvailableEncryption(b"geheim"))
        with pytest.raises(PipelineError, match=r"KAFKA_SSL_KEY_LOCATION=.* is encrypted: decrypt it"):
            spark_options(encrypted)


def test_without_the_client_library_it_is_said_what_to_install(kafka_sasl, monkeypatch):
    monkeypatch.setitem(sys.modules, "confluent_kafka.admin", None)
    assert "confluent-kafka is missing" in refusal(kafka_sasl)
