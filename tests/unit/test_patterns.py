"""Which regular expressions a stream can live with, judged without Java."""

import pytest

from streaming_pipeline.core.contract import LONGEST_MATCHED
from streaming_pipeline.core.patterns import MOST_STEPS, most_steps


@pytest.mark.parametrize(
    "pattern",
    [
        *("^(a+)+$", "(a+){5,}", "((a|aa)+)+", "(x+x+)+y", "(?:a{1,10}){1,30}", "(.*a){20}", "a*a*a*b", r"(a+)+\1", "(a*)*b"),
        *(
            r"(\w+\s?)+",
            r"((?<letters>\p{L}+)-?)+\d",
            "(?i)([a-z]+A)*",
            "(?=(a+a+)+b)a",
            "([[a-z]&&[^b]]+[a-z]?)+",
            "(a?){40}a{40}",
            "(" * 5000,
        ),
    ],
)
def test_a_pattern_that_java_could_try_for_hours_is_refused(pattern):
    assert most_steps(pattern, LONGEST_MATCHED) > MOST_STEPS


@pytest.mark.parametrize(
    "pattern",
    [
        *("[a-z]+-[0-9]+", "[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", r"[^@\s]+@[^@\s]+\.[a-z]{2,}", r"(\d{1,3}\.){3}\d{1,3}", "", ".*"),
        *(r"\d{4}-\d{2}-\d{2}(T\d{2}:\d{2}(:\d{2})?)?", "^[a-z0-9]+(-[a-z0-9]+)*$", "(red|green)(,(red|green))*", r"\w+(\.\w+)*"),
        *(r"https?://[^\s/]+(/[^\s/]*)*", r"(\w++\s?+)+", "(?>a|aa)+", r"\Q(a+)+\E", "[]a]+", "[[a-z]&&[^b)]]+(x)", r"[\])]+"),
    ],
)
def test_what_people_write_for_ids_words_and_addresses_is_taken(pattern):
    assert 0 < most_steps(pattern, LONGEST_MATCHED) <= MOST_STEPS


def test_a_shorter_text_may_have_a_harder_pattern():
    assert most_steps(".*a.*b.*c", 1_000) > MOST_STEPS >= most_steps(".*a.*b.*c", 80)


@pytest.mark.parametrize("pattern", ["(a", "a)", "[a", "[[a]", "(?:", "["])
def test_a_pattern_that_is_none_is_left_to_spark_to_refuse(pattern):
    assert most_steps(pattern, LONGEST_MATCHED) == 0
