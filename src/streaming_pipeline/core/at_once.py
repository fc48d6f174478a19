"""Questions that need not wait for each other."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any


def at_once(*questions: Callable[[], Any]) -> list[Any]:
    """The answers, in order; raises what the first of them that failed has raised, when all have ended.

    Of a small query most of the time is Spark's planning and Delta's reading of its log, each on one core.
    """
    if len(questions) < 2:
        return [question() for question in questions]
    with ThreadPoolExecutor(len(questions)) as pool:
        asked = [pool.submit(question) for question in questions]
    return [answer.result() for answer in asked]
