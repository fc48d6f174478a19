"""Tests that start neither a JVM nor a broker; one that does belongs elsewhere, and is told so."""

import subprocess

import pytest


@pytest.fixture(autouse=True)
def no_java(monkeypatch):
    """Refuse to start Java, and a process that would."""
    start = subprocess.Popen.__init__

    def checked(self, args, *rest, **more):
        words = [args] if isinstance(args, str) else [str(word) for word in args]
        assert not any(word.endswith(("/java", "spark-submit")) for word in words[:1]), "this test starts Java: move it to tests/spark"
        start(self, args, *rest, **more)

    monkeypatch.setattr(subprocess.Popen, "__init__", checked)
