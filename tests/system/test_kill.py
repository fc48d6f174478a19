"""The shortest version of benchmarks/kill.py: a kill by SIGKILL, and every record of the topic is in its one place."""

import random

import kill
from bench import topic_records
from whole_job import Pipeline

from laptop.services.spark import register_tables
from streaming_pipeline.events.producer import produce
from streaming_pipeline.events.synthetic import generate


def test_after_a_kill_nothing_is_lost_and_nothing_is_there_twice(spark, home, broker, mailbox, tmp_path):
    made, rng = Pipeline(spark, home, broker, mailbox[1], tmp_path), random.Random(5)
    sent = list(generate(1_000, seed=0, faults=kill.FAULTS))
    produce(made.kafka, sent)
    assert kill.kill_once(home, kill.MAIN, "silver_write", rng.random(), made.parameters, made.secrets)
    produce(made.kafka, [*generate(1_000, seed=1, faults=kill.FAULTS), *rng.sample(sent, 20)])
    register_tables(spark, home)
    assert made.run().state == "SUCCESS", made.console.file.getvalue()
    topic = topic_records(made.kafka)
    assert len(topic) > 2_000
    wrong = kill.verdict(spark, made.settings, topic)
    assert not any(wrong.values()), wrong
