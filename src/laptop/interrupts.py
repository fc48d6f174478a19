"""Ctrl-C, and a time limit that works like it, while Python waits for Spark's JVM: the work ends, and nobody reads a traceback for it."""

import contextlib
import logging
import signal
import threading
import time
import traceback
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


def interrupt_behind(error: BaseException) -> KeyboardInterrupt | None:
    """The interrupt that `error` is, or during which it arose: PySpark calls the JVM while it leaves an interrupted call, and the first
    call over a new connection may fail, as the JVM has yet to notice that the old one was left.
    """
    behind: BaseException | None = error
    while behind and not isinstance(behind, KeyboardInterrupt):
        behind = behind.__context__
    return behind


def silence_py4j() -> None:
    """Let py4j log no traceback of its gateway for an interrupt: its call would also set up the root logger to that end."""
    root = logging.getLogger()
    for logger in (root, logging.getLogger("py4j.clientserver")):
        logger.addFilter(_is_no_interrupt)
    if not root.handlers and logging.lastResort:  # what shows warnings as long as nobody has set up logging
        root.addHandler(logging.lastResort)


def _is_no_interrupt(record: logging.LogRecord) -> bool:
    error = record.exc_info[1] if record.exc_info else None
    return not (error and interrupt_behind(error))


@contextlib.contextmanager
def interrupt_afterwards() -> Iterator[None]:
    """Let Ctrl-C wait for the end of the block: in the middle of Spark's start it would leave a JVM behind, and pages of traceback.

    The handler from before it is in force again then, not PySpark's own, which calls the JVM over the very connection that is waiting.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came = []
    previous = signal.signal(signal.SIGINT, lambda *_: came.append(True))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)
    if came:
        raise KeyboardInterrupt


def end_work(spark: "SparkSession", interrupt: KeyboardInterrupt) -> None:
    """End what Spark is doing for whoever was interrupted.

    A query that was still being planned has no job yet to be ended, and would run on without anyone waiting for it: so, if the
    interrupt came while Python waited for the JVM, ask again until there was something to end, or nothing for some seconds.
    """
    frames = traceback.walk_tb(interrupt.__traceback__)
    waited = any(frame.f_globals.get("__name__", "").startswith("py4j.") for frame, _ in frames)
    deadline = time.monotonic() + (5 if waited else 0)
    while True:
        with contextlib.suppress(Exception):  # as the first call over a new connection may fail
            if spark.interruptAll():
                return
        if time.monotonic() >= deadline:
            return
        time.sleep(0.1)
