"""Figures of the pipeline against earlier looks."""

import numpy as np
import pandas as pd
import pytest

from streaming_pipeline.monitoring.degradation import ENOUGH_LOOKS, MOST_LOOKS, Figures, judge_figures

NAMES = ("silver_yield_pct", "late_pct", "lateness_p95_seconds", "silver_records_per_second", "flag_rate_pct", "outlier_pct")
USUAL = dict(zip(NAMES, (99.5, 0.5, 20.0, 40_000.0, 1.0, 0.4), strict=True))
BAD = dict(zip(NAMES, (90.0, 4.0, 400.0, 9_000.0, 5.0, 3.0), strict=True))
GOOD = dict(zip(NAMES, (100.0, 0.0, 1.0, 90_000.0, 0.1, 0.0), strict=True))


def figures(values, records=2_000):
    return Figures(values, dict.fromkeys(values, records))


def looks(count, records=2_000, seed=0):
    """Figures of looks in which nothing but chance changes."""
    rng = np.random.default_rng(seed)
    shares = {name: 100 * rng.binomial(records, value / 100, count) / records for name, value in USUAL.items() if name.endswith("pct")}
    others = {name: value * rng.lognormal(0, 0.15, count) for name, value in USUAL.items() if not name.endswith("pct")}
    return [figures(values, records) for values in pd.DataFrame({**shares, **others}).to_dict("records")]


@pytest.mark.parametrize("name", USUAL)
def test_a_figure_that_is_worse_is_found_and_one_that_is_better_is_none(name):
    history = looks(30)
    [worse] = judge_figures(figures({**USUAL, name: BAD[name]}), history)
    assert (worse.name, worse.observed) == (name, BAD[name])
    assert worse.usual == pytest.approx(np.median([one.values[name] for one in history]))
    assert judge_figures(figures({**USUAL, name: GOOD[name]}), history) == []


def test_without_enough_looks_or_records_nothing_is_said():
    assert judge_figures(figures(BAD), looks(ENOUGH_LOOKS - 1)) == []
    assert len(judge_figures(figures(BAD), looks(ENOUGH_LOOKS))) == len(BAD)
    assert judge_figures(figures(BAD, 50), looks(30)) == []
    assert judge_figures(figures({}), looks(30)) == []
    assert judge_figures(figures(BAD), [figures({})] * 30) == []


def test_a_rate_is_held_against_looks_at_about_as_many_records():
    slow = {"silver_records_per_second": 900.0}
    history = looks(30, 100_000)
    assert judge_figures(figures(slow, 1_000), history) == []
    assert len(judge_figures(figures(slow, 90_000), history)) == 1


def test_what_stays_so_becomes_usual():
    history, said = looks(MOST_LOOKS), []
    for _ in range(MOST_LOOKS):
        said.append(bool(judge_figures(figures(BAD), history)))
        history = [figures(BAD), *history]
    assert said[0] and said[10] and not said[-1]


@pytest.mark.parametrize("records", [100, 2_000, 100_000])
def test_chance_alone_is_no_degradation(records):
    said = 0
    for seed in range(20):
        history = looks(MOST_LOOKS, records, seed)
        said += sum(len(judge_figures(one, history)) for one in looks(25, records, 1_000 + seed))
    assert said <= 1  # of 3,000 figures
