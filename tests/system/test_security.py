"""The broker itself refuses whom it must, and what a notebook shows of its connection holds no secret."""

import ast
import io
import socket
import sqlite3
import ssl
import struct
import subprocess
import sys
from datetime import UTC, datetime

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import trustme
from rich.console import Console
from secret_search import Secrets

from laptop.bundle.load import Bundle
from laptop.jobs.reporter import Reporter
from laptop.jobs.runner import run_job
from laptop.services.certificates import Certificates
from streaming_pipeline.core.settings import PLAIN_KEYS

API_VERSIONS = (18, 0, b"")
SASL_FAILED = 58


def ask(connection, key, version, body):
    """A request of Kafka's protocol and the broker's answer to it, without any client library; nothing where it hangs up."""
    message = struct.pack(">hhihs", key, version, 7, 1, b"t") + body
    connection.sendall(struct.pack(">i", len(message)) + message)
    size = struct.unpack(">i", received(connection, 4))[0]
    return received(connection, size)[4:]


def received(connection, size):
    found = b""
    while len(found) < size:
        more = connection.recv(size - len(found))
        if not more:
            raise ConnectionResetError("the broker hung up")
        found += more
    return found


def connect(broker, listener, certificate=None):
    """A connection by TLS; whatever certificate there is to show is shown."""
    context = ssl.create_default_context(cafile=Certificates(broker.folder / "certificates").ca)
    if certificate:
        context.load_cert_chain(*certificate)
    plain = socket.create_connection(("127.0.0.1", broker.status().ports[listener]), timeout=10)
    return context.wrap_socket(plain, server_hostname="127.0.0.1")


def issued(authority, folder, **validity):
    """A client's certificate and key of this authority, as files."""
    leaf = authority.issue_cert("client.local", **validity)
    leaf.cert_chain_pems[0].write_to_path(folder / "client.pem")
    leaf.private_key_pem.write_to_path(folder / "client.key")
    return folder / "client.pem", folder / "client.key"


@pytest.fixture
def certificates(broker, tmp_path):
    """Certificates of clients, good and bad."""
    files = Certificates(broker.folder / "certificates")
    authority = trustme.CA.from_pem(files.ca.read_bytes(), files.ca_key.read_bytes())
    long_ago = {"not_before": datetime(2020, 1, 1, tzinfo=UTC), "not_after": datetime(2021, 1, 1, tzinfo=UTC)}
    for name in ("new", "foreign", "expired"):
        (tmp_path / name).mkdir()
    return {
        "ours": (files.client_certificate, files.client_key),
        "a new one": issued(authority, tmp_path / "new"),
        "none": None,
        "of a foreign authority": issued(trustme.CA(), tmp_path / "foreign"),
        "expired": issued(authority, tmp_path / "expired", **long_ago),
    }


@pytest.mark.parametrize("listener", ["SSL", "CONTROLLER"])
def test_the_broker_answers_nobody_without_a_good_certificate(broker, certificates, listener):
    for shown in ("ours", "a new one"):
        with connect(broker, listener, certificates[shown]) as connection:
            assert ask(connection, *API_VERSIONS)[:2] == b"\0\0"
    for shown in ("none", "of a foreign authority", "expired"):
        with pytest.raises((ssl.SSLError, ConnectionError)) as refusal, connect(broker, listener, certificates[shown]) as connection:
            ask(connection, *API_VERSIONS)
        # It is the broker's own alert where there was time to read it, and no doubt of ours about the broker.
        assert "CERTIFICATE_VERIFY_FAILED" not in str(refusal.value)


def test_the_broker_takes_one_password_and_answers_nothing_before_it(broker):
    login = broker.secrets("SASL_SSL")
    user, password = login["KAFKA_API_KEY"].encode(), login["KAFKA_API_SECRET"].encode()

    def error_for(name, secret):
        with connect(broker, "SASL_SSL") as connection:
            assert ask(connection, 17, 1, struct.pack(">h", 5) + b"PLAIN")[:2] == b"\0\0"
            token = b"\0" + name + b"\0" + secret
            return struct.unpack(">h", ask(connection, 36, 0, struct.pack(">i", len(token)) + token)[:2])[0]

    assert error_for(user, password) == 0
    for wrong in ((user, password + b"x"), (user, password[:-1]), (user, password.swapcase()), (b"nobody", password)):
        assert error_for(*wrong) == SASL_FAILED

    all_topics = (3, 1, struct.pack(">i", -1))
    with pytest.raises((ssl.SSLError, ConnectionError)), connect(broker, "SASL_SSL") as connection:
        ask(connection, *all_topics)


@pytest.mark.parametrize("listener", ["SSL", "SASL_SSL", "CONTROLLER"])
def test_no_listener_speaks_without_tls(broker, listener):
    with socket.create_connection(("127.0.0.1", broker.status().ports[listener]), timeout=10) as plain:
        plain.sendall(struct.pack(">ihhihs", 11, 18, 0, 7, 1, b"t"))
        try:
            said = plain.recv(100)
        except ConnectionResetError:
            said = b""
    assert said == b"" or said[:1] == b"\x15"  # nothing, or an alert of TLS


def test_the_search_for_secrets_finds_them_in_whatever_form_a_run_writes(tmp_path):
    secrets = Secrets({"password": ("a-secret-to-be-found",), "other": ("another-secret-there",)})
    text = "x" * 100_000 + "a-secret-to-be-found" + "x" * 100_000
    (tmp_path / "deep" / "er").mkdir(parents=True)
    (tmp_path / "plain.log").write_bytes(b"\xff\xfe" + text.encode())
    for name, how in (("app.zstd", "zstd"), ("app.zstd.inprogress", "zstd"), ("log.json.gz", "gzip")):
        with pa.CompressedOutputStream(str(tmp_path / "deep" / name), how) as file:
            file.write(text.encode())
    whole = tmp_path / "deep" / "app.zstd"
    whole.with_name("cut.zstd.inprogress").write_bytes(whole.read_bytes()[:-3])
    pq.write_table(pa.table({"n": [1, 2], "raw": [text.encode(), b""]}), tmp_path / "deep" / "er" / "part.parquet", compression="zstd")
    with sqlite3.connect(tmp_path / "store.db") as database:
        database.execute("CREATE TABLE t (text)")
        database.execute("INSERT INTO t VALUES (?)", [text])
    names = {"plain.log", "deep/app.zstd", "deep/app.zstd.inprogress", "deep/log.json.gz", "deep/er/part.parquet", "store.db"}
    assert secrets.in_files(tmp_path) == {name: ["password"] for name in names | {"deep/cut.zstd.inprogress"}}


CARELESS = """\
import logging
from dataclasses import asdict, replace
from streaming_pipeline.kafka.connection import client_config, spark_options
from streaming_pipeline.core.settings import Settings

settings = Settings(catalog="spark_catalog")
secrets = {secret.key: dbutils.secrets.get("any", secret.key) for secret in dbutils.secrets.list("any")}
settings = replace(settings, secrets=secrets)
options = spark_options(settings.kafka)
print(settings, settings.kafka, asdict(settings), secrets, client_config(settings.kafka))
print(options)
for name, value in options.items():
    print(name, value)
display(spark.createDataFrame(sorted(options.items()), "name string, value string"))
display(options)
stream = spark.readStream.format("kafka").options(**options).load()
stream.explain(True)
print(stream._jdf.queryExecution().toString())
"""
WRONG = {"SASL_SSL": ("kafka.sasl.jaas.config", 'password="', 'password="not-'), "SSL": ("kafka.ssl.keystore.key", "MI", "XX")}
FAILING = """\
name, old, new = {wrong!r}
wrong = {{**options, name: options[name].replace(old, new), "fetchOffset.numRetries": "1"}}
try:
    spark.read.format("kafka").options(**wrong).load().count()
except Exception as error:
    print(error)
    logging.getLogger("careless").warning("%s with %s", error, wrong)
    raise ValueError(f"{{options}} did not work, nor did {{wrong}}") from error
"""


@pytest.mark.parametrize("listener", ["SASL_SSL", "SSL"])
def test_a_notebook_that_shows_all_it_has_and_fails_shows_no_secret(broker, home, spark, topic, tmp_path, capfd, listener):
    own = {**broker.secrets(listener, topic), "SMTP_USERNAME": "mailer@example.com", "SMTP_PASSWORD": "mail-p4ssw0rd & <more>"}
    notebook = tmp_path / "careless.py"
    cells = [CARELESS, FAILING.format(wrong=WRONG[listener])]
    notebook.write_text("# Databricks notebook source\n" + "\n# COMMAND ----------\n".join(cells))
    job = {"name": "Careless", "tasks": [{"task_key": "careless", "notebook_task": {"notebook_path": str(notebook)}}]}
    console, run_dir = Console(file=io.StringIO(), width=4000), tmp_path / "runs" / "1"
    run = run_job(
        Bundle(tmp_path, "dev", {"resources": {"jobs": {"main": job}}}),
        "main",
        parameters={},
        spark_for_task=lambda _: spark.newSession(),
        secrets=own,
        plain=PLAIN_KEYS,
        run_dir=run_dir,
        run_id="1",
        reporter=Reporter(console),
    )
    assert run.state == "FAILED"
    page = (run_dir / "careless.html").read_text()
    assert "did not work, nor did" in page and "kafka.bootstrap.servers" in page and own["KAFKA_BOOTSTRAP_SERVERS"] in page
    secrets = Secrets.of(own)
    printed = {"console": console.file.getvalue(), "task": repr(run), "stdout and stderr": "".join(capfd.readouterr())}
    assert secrets.in_texts(printed) == {}
    assert secrets.in_files(run_dir) == {}
    assert secrets.in_files(home / "logs", home / "spark-events") == {}


LISTENING = """
import sys
from pathlib import Path
from laptop.services.spark import start_session
start_session(Path(sys.argv[1]), connect=True).range(1).count()
from pyspark.sql.connect.client.core import DefaultChannelBuilder
port = f"{DefaultChannelBuilder.default_port():04X}"
sockets = [line.split() for name in ("tcp", "tcp6") for line in Path("/proc/net", name).read_text().splitlines()]
print([place for _, place, _, state, *_ in sockets if state == "0A" and place.endswith(f":{port}")])
"""


@pytest.mark.skipif(sys.platform != "linux", reason="who listens where is read from /proc")
def test_spark_connect_listens_to_this_machine_alone(tmp_path):
    found = subprocess.run([sys.executable, "-c", LISTENING, tmp_path], capture_output=True, text=True, check=True).stdout
    [place] = ast.literal_eval(found)
    address = bytes.fromhex(place.partition(":")[0])
    groups = [address[at : at + 4][::-1] for at in range(0, len(address), 4)]  # each four bytes are turned round
    assert groups[-1] == bytes([127, 0, 0, 1]), place
