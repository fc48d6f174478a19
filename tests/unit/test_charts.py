"""The report's pictures: what is written and drawn in them."""

from datetime import datetime, timedelta

import pytest

from laptop.report import charts

BEGAN = datetime(2026, 3, 1)
HOURS = [BEGAN + timedelta(hours=n) for n in range(10)]
WINDOWS = [{"window_start": at, "records": 5, "p05": 1.0, "p50": 2.0, "p95": 3.0} for at in HOURS]


@pytest.mark.parametrize(
    "draw",
    [lambda judged_from: charts.arrivals(WINDOWS, [], judged_from), lambda judged_from: charts.values(WINDOWS, [], "value", judged_from)],
)
def test_the_time_in_which_the_baseline_was_learnt_is_shaded_and_named(draw):
    def shaded(judged_from):
        figure = draw(judged_from)
        assert ("baseline being learnt" in charts.svg(figure, "x")) == (judged_from not in (None, BEGAN))
        spans = [patch for patch in figure.axes[0].patches if patch.get_label() == "baseline being learnt"]
        return [(patch.get_x(), patch.get_width()) for patch in spans]

    day = charts.mdates.date2num(BEGAN)
    [(begin, width)] = shaded(HOURS[6])
    assert (begin, width) == pytest.approx((day, 6 / 24))
    [(_, width)] = shaded(HOURS[9] + timedelta(days=9))  # nothing is judged yet
    assert 8 / 24 <= width + 1e-6 <= 9.1 / 24
    assert shaded(BEGAN) == shaded(None) == []


def test_the_drift_map_calls_columns_as_it_is_told():
    cell = {"window_start": BEGAN, "window_end": HOURS[1], "is_drift": True, "times_threshold": 1.5}
    cells = [cell | {"column_name": name} for name in ("value", "anomaly_score")]
    picture = charts.svg(charts.heat_map(cells, {"anomaly_score": "anomaly_score (the model's)"}), "drift")
    assert ">value<" in picture and ">anomaly_score (the model's)<" in picture
