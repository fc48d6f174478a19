"""The jars are fetched once and whole, from the repository the user names; a real Ivy asks a real (small) Maven repository."""

import os
import subprocess
import sys
import threading
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pyspark
import pytest

from laptop.services import jars
from streaming_pipeline.core.errors import PipelineError

FETCH = """
from laptop.services import jars
jars.BROKER_COORDINATES = ("org.example:one:1.0",)
print(*(jar.name for jar in jars.broker_jars()))
"""
POM = "<project><groupId>org.example</groupId><artifactId>{}</artifactId><version>1.0</version>{}</project>"
NEEDS_TWO = """<dependencies><dependency><groupId>org.example</groupId><artifactId>two</artifactId><version>1.0</version>
</dependency></dependencies>"""


@pytest.fixture
def repository():
    """A Maven repository of two jars, the first of which needs the second; the second comes when `may_go_on` is set."""
    files = {
        "/org/example/one/1.0/one-1.0.pom": POM.format("one", NEEDS_TWO).encode(),
        "/org/example/one/1.0/one-1.0.jar": b"one" * 1000,
        "/org/example/two/1.0/two-1.0.pom": POM.format("two", "").encode(),
        "/org/example/two/1.0/two-1.0.jar": b"two" * 1000,
    }

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            body = files.get(self.path)
            self.send_response(200 if body else 404)
            self.send_header("Content-Length", str(len(body or b"")))
            self.end_headers()
            if self.command == "GET" and body:
                half = len(body) // 2
                self.wfile.write(body[:half])
                if self.path.endswith("two-1.0.jar"):
                    self.server.downloads += 1
                    self.server.half_way.set()
                    self.server.may_go_on.wait(60)
                self.wfile.write(body[half:])

        do_HEAD = do_GET

        def log_message(self, *arguments):
            pass

        def handle(self):
            with suppress(ConnectionError):  # a killed client is what one of the tests is about
                super().handle()

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.files, server.downloads = files, 0
    server.half_way, server.may_go_on = threading.Event(), threading.Event()
    server.may_go_on.set()
    server.url = f"http://127.0.0.1:{server.server_port}/"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.may_go_on.set()
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def fetch(repository, tmp_path):
    """Fetch in another process, whose cache and repository are these."""
    environment = os.environ | {"STREAMING_PIPELINE_CACHE": str(tmp_path / "cache"), "DEFAULT_ARTIFACT_REPOSITORY": repository.url}
    return lambda: subprocess.Popen(
        [sys.executable, "-c", FETCH], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


@pytest.fixture
def small(repository, tmp_path, monkeypatch):
    """The same for this process."""
    monkeypatch.setattr(jars, "BROKER_COORDINATES", ("org.example:one:1.0",))
    monkeypatch.setenv("STREAMING_PIPELINE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("DEFAULT_ARTIFACT_REPOSITORY", repository.url)
    return repository


def test_a_fetch_killed_half_way_is_not_used_and_two_processes_fetch_once(repository, fetch, tmp_path):
    repository.may_go_on.clear()
    killed = fetch()
    assert repository.half_way.wait(60)
    killed.kill()
    assert killed.communicate()[0] == ""
    assert list((tmp_path / "cache" / "jars").glob(".broker-*"))
    repository.may_go_on.set()

    repository.downloads = 0
    both = [fetch(), fetch()]
    assert [process.communicate()[0].split() for process in both] == [["one-1.0.jar", "two-1.0.jar"]] * 2
    assert repository.downloads == 1
    assert not list((tmp_path / "cache" / "jars").glob(".broker-*"))


def test_what_was_fetched_is_used_without_asking_again_until_it_is_damaged(small):
    lines = []
    found = jars.broker_jars(lines.append)
    assert [jar.read_bytes() for jar in found] == [b"one" * 1000, b"two" * 1000]
    assert jars.broker_jars(lines.append) == found
    assert len(lines) == 1 and "org.example:one:1.0" in lines[0]

    found[1].write_bytes(b"cut off")
    assert jars.broker_jars(lines.append) == found
    assert found[1].read_bytes() == b"two" * 1000
    assert small.downloads == 2


def test_the_users_own_ivy_settings_are_used(small, tmp_path, monkeypatch):
    settings = tmp_path / "ivysettings.xml"
    settings.write_text(jars._ivy_settings(small.url))
    monkeypatch.setenv("STREAMING_PIPELINE_IVY_SETTINGS", str(settings))
    monkeypatch.setenv("DEFAULT_ARTIFACT_REPOSITORY", "http://127.0.0.1:1/")
    assert len(jars.broker_jars()) == 2

    monkeypatch.setenv("STREAMING_PIPELINE_CACHE", str(tmp_path / "another"))
    monkeypatch.setenv("STREAMING_PIPELINE_IVY_SETTINGS", str(tmp_path / "none.xml"))
    with pytest.raises(PipelineError, match=r"STREAMING_PIPELINE_IVY_SETTINGS names .*none\.xml"):
        jars.broker_jars()


@pytest.mark.parametrize("fault", ["out of reach", "lacks one"])
def test_a_repository_that_does_not_give_the_jars_is_said_in_a_sentence(small, monkeypatch, fault):
    if fault == "out of reach":
        monkeypatch.setenv("DEFAULT_ARTIFACT_REPOSITORY", "http://someone:geheim@127.0.0.1:1/")
    else:
        del small.files["/org/example/two/1.0/two-1.0.jar"], small.files["/org/example/two/1.0/two-1.0.pom"]
    with pytest.raises(PipelineError) as caught:
        jars.broker_jars()
    said = str(caught.value)
    assert "org.example:one:1.0 could not be fetched" in said and "DEFAULT_ARTIFACT_REPOSITORY" in said
    assert "geheim" not in said and "\n" not in said


def test_the_spark_jars_bring_nothing_that_pyspark_has():
    shipped = {jar.name.rpartition("-")[0] for jar in (Path(pyspark.__file__).parent / "jars").glob("*.jar")}
    brought = {jar.name.rpartition("-")[0] for jar in jars.spark_jars()}
    assert {"delta-spark_4.1_2.13", "spark-sql-kafka-0-10_2.13", "kafka-clients"} <= brought
    assert not brought & shipped


def test_jars_of_another_spark_are_refused(monkeypatch):
    monkeypatch.setattr(pyspark, "__version__", "4.0.0")
    with pytest.raises(PipelineError, match=r"pyspark 4\.0\.0 is installed, but the jars are for 4\.1\.1"):
        jars.spark_jars()
