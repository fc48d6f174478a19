"""A Java is found where there is one, and else fetched: whole, once, and only when it is missing."""

import os
import ssl
import subprocess
import sys
import tarfile
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest
import trustme
from cjdk._cache import _key_for_url
from cjdk._conf import _canonicalize_arch, _canonicalize_os

from laptop.services import java
from streaming_pipeline.core.errors import PipelineError

FIND = "import laptop.services.java as java; java.USUAL_PLACES = (); print(java.java_home())"


def fake_java(home, version):
    """A `java` that only says its version."""
    command = home / "bin" / "java"
    command.parent.mkdir(parents=True)
    command.write_text(f"#!/bin/sh\necho '    java.home = {home}\n    java.specification.version = {version}' >&2\n")
    command.chmod(0o755)
    return home


def test_java_home_wins_over_the_path_and_the_usual_places(tmp_path, monkeypatch):
    monkeypatch.setenv("JAVA_HOME", str(fake_java(tmp_path / "mine", 21)))
    assert java.java_home() == tmp_path / "mine"


def test_a_java_that_spark_cannot_use_is_passed_over(tmp_path, monkeypatch):
    monkeypatch.setenv("JAVA_HOME", str(fake_java(tmp_path / "old", 11)))
    monkeypatch.setenv("PATH", str(fake_java(tmp_path / "new", 25) / "bin"))
    monkeypatch.setattr(java, "USUAL_PLACES", (f"{tmp_path}/lib/*",))
    fake_java(tmp_path / "lib" / "java-17", 17)
    assert java.java_home() == tmp_path / "lib" / "java-17"


def test_a_java_that_lacks_memory_is_not_taken_for_none(tmp_path, monkeypatch):
    command = fake_java(tmp_path / "mine", 17) / "bin" / "java"
    command.write_text("#!/bin/sh\necho 'Could not reserve enough space for 6291456KB object heap'\nexit 1\n")  # as under `ulimit -v`
    monkeypatch.setenv("JAVA_HOME", str(tmp_path / "mine"))
    with pytest.raises(PipelineError, match=r"mine/bin/java cannot start \(Could not reserve .* heap\): let it have more memory"):
        java.java_home()


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    """This machine's own Java, as far as it is needed to run, packed as a vendor packs it."""
    home = java.java_home()
    left_out = {"ct.sym", "src.zip", "classes.jsa", "classes_nocoops.jsa"}
    path = tmp_path_factory.mktemp("archive") / "jdk.tar.gz"
    with tarfile.open(path, "w:gz", compresslevel=0, dereference=True) as packed:
        for file in [home / "bin" / "java", *home.glob("conf/**/*"), *home.glob("lib/**/*")]:
            if file.is_file() and file.name not in left_out:
                packed.add(file, f"jdk-17/{file.relative_to(home)}")
    return path


@pytest.fixture
def vendor(archive, tmp_path):
    """An index and a download on a server of its own; `cut` makes a download end half-way, `downloads` counts them."""
    certificate = trustme.CA()
    certificate.cert_pem.write_to_path(tmp_path / "vendor-ca.pem")

    class Handler(SimpleHTTPRequestHandler):
        def do_GET(self):
            host = f"localhost:{self.server.server_port}"
            if self.path == "/index.json":
                system, machine = _canonicalize_os(None), _canonicalize_arch(None)
                versions = f'{{"jdk@temurin": {{"1.17.0.1": "tgz+https://{host}/jdk.tar.gz"}}}}'
                body = f'{{"{system}": {{"{machine}": {versions}}}}}'.encode()
            else:
                self.server.downloads += 1
                body = archive.read_bytes()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body[: len(body) // 2] if self.server.cut and self.path != "/index.json" else body)

        def log_message(self, *arguments):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.issue_cert("localhost").configure_cert(context)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    server.cut, server.downloads = False, 0
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def find_hidden(vendor, tmp_path):
    """Look for Java in another process, on a machine without one."""
    (tmp_path / "empty").mkdir()
    environment = {key: value for key, value in os.environ.items() if key != "JAVA_HOME"} | {
        "PATH": str(tmp_path / "empty"),
        "STREAMING_PIPELINE_CACHE": str(tmp_path / "cache"),
        "CJDK_INDEX_URL": f"https://localhost:{vendor.server_port}/index.json",
        "REQUESTS_CA_BUNDLE": str(tmp_path / "vendor-ca.pem"),
    }
    return lambda: subprocess.Popen(
        [sys.executable, "-c", FIND], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def test_without_a_java_one_is_fetched_once_and_a_cut_off_download_is_never_used(vendor, find_hidden, tmp_path):
    vendor.cut = True
    said = find_hidden().communicate()[1]
    assert "PipelineError: No Java 17 or 21 was found, and Temurin 17 could not be fetched" in said

    # What a process leaves that is killed while it fetches.
    key = _key_for_url(f"tgz+https://localhost:{vendor.server_port}/jdk.tar.gz")
    (tmp_path / "cache" / "jdk" / "v0" / "fetching" / "jdks" / key).mkdir(parents=True)

    vendor.cut, vendor.downloads = False, 0
    both = [find_hidden(), find_hidden()]
    homes = {process.communicate()[0].strip() for process in both}
    [home] = homes
    assert home.startswith(str(tmp_path / "cache"))
    assert "17" in subprocess.run([f"{home}/bin/java", "-version"], capture_output=True, text=True, check=True).stderr
    assert vendor.downloads == 1

    vendor.cut = True  # from now on the network is of no use, and not asked
    assert find_hidden().communicate()[0].strip() == home


def test_without_a_network_it_is_said_what_to_do(tmp_path, monkeypatch):
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(java, "USUAL_PLACES", ())
    monkeypatch.setenv("STREAMING_PIPELINE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("CJDK_INDEX_URL", "https://127.0.0.1:1/index.json")
    with pytest.raises(PipelineError, match=r"Install Java 17 or 21 .*connect to the internet once"):
        java.java_home()


def test_a_cache_that_cannot_be_written_is_named(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("STREAMING_PIPELINE_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(PipelineError, match="STREAMING_PIPELINE_CACHE"):
        java.cache_dir()


def test_the_cache_is_where_the_user_keeps_caches(tmp_path, monkeypatch):
    monkeypatch.delenv("STREAMING_PIPELINE_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert java.cache_dir() == tmp_path / "streaming-pipeline"


def start_spark(home, then, **environment):
    """Start a session in another process, and do something with it."""
    needed = "import sys; from pathlib import Path; from laptop.services.spark import start_session as start"
    command = [sys.executable, "-c", f"{needed}; home = Path(sys.argv[1]); {then}", home]
    return subprocess.run(command, env=os.environ | environment, capture_output=True, encoding="utf-8", check=False)


def test_a_spark_that_cannot_start_names_the_log_that_has_the_reason(tmp_path):
    home = tmp_path / "hömé"
    # Java ignores an option of -XX that it does not know, since Spark asks for that.
    said = start_spark(home, "start(home)", LC_ALL="C", SPARK_SUBMIT_OPTS="-Xss1").stderr
    assert said.rstrip().endswith(f" The reason is in {home}/logs/spark.stderr.")


@pytest.mark.skipif(sys.platform != "linux", reason="C.UTF-8 is a locale of Linux")
@pytest.mark.parametrize("locale", ["C", "xx_XX.UTF-8"])
def test_a_home_whose_name_the_locale_cannot_write_is_read_and_written(tmp_path, locale):
    home = tmp_path / "hömé"
    ran = start_spark(home, "start(home).range(3).write.format('delta').save(str(home / 'tablé'))", LC_ALL=locale)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert (home / "tablé" / "_delta_log").is_dir() and (home / "logs" / "spark.log").is_file()
