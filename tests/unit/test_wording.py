"""Counts and durations read as a person would say them."""

import pytest

from streaming_pipeline.core.wording import duration, plural


@pytest.mark.parametrize(
    "number, words, said",
    [
        (0, ("row",), "0 rows"),
        (1, ("row",), "1 row"),
        (3_000, ("row",), "3,000 rows"),
        (1, ("record repeats", "records repeat"), "1 record repeats"),
        (2, ("record repeats", "records repeat"), "2 records repeat"),
    ],
)
def test_one_of_something_is_singular(number, words, said):
    assert plural(number, *words) == said


@pytest.mark.parametrize(
    "seconds, said",
    [
        (0, "0 seconds"),
        (0.04, "0 seconds"),
        (0.44, "0.4 seconds"),
        (1, "1 second"),
        (9.96, "10 seconds"),
        (45, "45 seconds"),
        (59.7, "1 minute"),
        (90, "1 minute 30 seconds"),
        (300, "5 minutes"),
        (3_599.9, "1 hour"),
        (3_600, "1 hour"),
        (3_700, "1 hour 2 minutes"),
        (9_240, "2 hours 34 minutes"),
        (86_400, "1 day"),
        (86_399.9, "1 day"),
        (93_600, "1 day 2 hours"),
        (23_480_194, "272 days"),
        (-12, "-12 seconds"),
    ],
)
def test_a_duration_is_in_units_that_people_use(seconds, said):
    assert duration(seconds) == said


def test_a_limit_and_what_is_just_above_it_read_otherwise():
    assert duration(3_600) != duration(3_660) and duration(86_400) != duration(90_000)
