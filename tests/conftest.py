"""One Spark session and one broker for the tests of a worker, both started when a test first asks for them; everything lies in tmp."""

import shutil
import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from bench import TINY_TABLES

from streaming_pipeline.core.settings import KafkaSettings, Settings

ROOT = Path(__file__).parents[1]
pytest_plugins = ("alert_cases", "runner_cases")  # whose fixtures several files take


@pytest.fixture(scope="session")
def home(tmp_path_factory) -> Path:
    """The home folder of this test run."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="session")
def spark(home):
    """The local Spark session, as the runner starts it."""
    from laptop.services.spark import start_session

    # What a laptop sets is tested by the jobs that tests start as processes of their own. Java's second compiler may fill a large cache:
    # behind the first minutes a stage takes a quarter less time by it.
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("JDK_JAVA_OPTIONS", "-XX:ReservedCodeCacheSize=480m")
        # With less memory, what hundreds of tests leave in Spark's caches would keep a core at work to collect it.
        session = start_session(home, event_log=home / "spark-events", memory="4g", confs=TINY_TABLES)
    yield session
    session.stop()


@pytest.fixture(scope="session")
def broker(home):
    """A running local broker."""
    from laptop.services.broker import Broker

    broker = Broker(home)
    broker.start(owned=True)
    yield broker
    broker.stop()


@pytest.fixture(scope="session")
def mailbox(broker, home):
    """A mail server's mailbox, and the SMTP_ settings that reach it."""
    from laptop.services.mailbox import running_mailbox

    with running_mailbox(broker.certificates, home / "mail") as (box, secrets):
        yield box, secrets


@pytest.fixture
def topic(broker) -> str:
    """The name of a new topic with three partitions."""
    name = f"events-{uuid.uuid4().hex[:8]}"
    broker.create_topic(name, partitions=3)
    return name


@pytest.fixture
def kafka_mtls(broker, topic) -> KafkaSettings:
    """The new topic over the listener that wants a client certificate."""
    return broker.kafka_settings("SSL", topic=topic)


@pytest.fixture
def kafka_sasl(broker, topic) -> KafkaSettings:
    """The new topic over the listener that wants an API key."""
    return broker.kafka_settings("SASL_SSL", topic=topic)


@pytest.fixture
def copied_bundle(tmp_path) -> Path:
    """The bundle without tests and tools, to be broken."""
    root = tmp_path / "bundle"
    for name in ("resources", "notebooks", "config"):
        shutil.copytree(ROOT / name, root / name)
    shutil.copy(ROOT / "databricks.yml", root)
    return root


@pytest.fixture
def offline_settings(home, tmp_path) -> Iterator[Settings]:
    """Settings with a schema, checkpoints and runs of their own, and no Kafka."""
    schema = f"t_{uuid.uuid4().hex[:8]}"
    yield Settings(
        catalog="spark_catalog",
        schema=schema,
        config_dir=str(ROOT / "config"),
        checkpoint_dir=str(tmp_path / "checkpoints"),
        runs_dir=str(tmp_path / "runs"),
        run_id="test",
    )
    # Each process that a later test starts in this home would look at every table that lies there.
    shutil.rmtree(home / "warehouse" / f"{schema}.db", ignore_errors=True)


@pytest.fixture
def settings(offline_settings, broker, topic) -> Settings:
    """The same, reading the new topic over mTLS."""
    return replace(offline_settings, kafka_topic=topic, secrets=broker.secrets("SSL"))
