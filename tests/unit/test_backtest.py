"""The detectors over a file: strictly causal, right on series whose faults are known, and clear about files that cannot be used."""

import io
import re
from datetime import UTC, datetime, timedelta

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from rich.console import Console
from sklearn.metrics import average_precision_score, f1_score, precision_score, recall_score, roc_auc_score

from laptop.cli import main
from streaming_pipeline.backtest import backtest
from streaming_pipeline.backtest.csv_series import Series, read_series
from streaming_pipeline.core.errors import PipelineError, UsageError
from streaming_pipeline.detectors import DETECTORS, discord, ensemble, forecast, shift, textbook
from streaming_pipeline.detectors.surprise import surprise

savefig = Figure.savefig
DAY = 288  # rows of five minutes


def series(values, interval=300.0, labels=None):
    values = np.asarray(values, dtype=float).reshape(len(values), -1)
    seconds = np.arange(len(values)) * interval
    return Series(seconds.astype(int).astype(str), seconds, values, labels, 0)


def of_kind(kind, rng, rows):
    """A clean series of one column."""
    time = np.arange(rows)
    wave = np.sin(2 * np.pi * time / DAY + rng.uniform(0, 6))
    if kind == "daily":
        return 50 + 20 * wave + rng.normal(0, 2, rows)
    if kind == "flat":
        return 50 + rng.normal(0, 2, rows)
    if kind == "skewed":
        return np.exp(rng.normal(0, 0.5, rows)) * (1 + 0.5 * wave)
    if kind == "counts":
        return rng.poisson(20 + 15 * wave).astype(float)
    steps = rng.normal(0, 1, rows)
    for row in range(1, rows):
        steps[row] += 0.97 * steps[row - 1]
    return steps


def rig(rng, rows=1_100, columns=6):
    """A rig of several sensors that move together and warm up, and the rows in which one or two of them are off."""
    common = np.zeros((rows, 2))
    for row in range(1, rows):
        common[row] = 0.9 * common[row - 1] + rng.normal(0, 0.4, 2)
    values = common @ rng.normal(0, 1, (2, columns)) + rng.normal(0, 0.6, (rows, columns))
    values += np.linspace(0, 0.5, rows)[:, None] * rng.normal(0, 1, columns)
    is_fault = np.zeros(rows, dtype=bool)
    is_fault[650:1_000] = True
    for column in rng.choice(columns, rng.integers(1, 3), replace=False):
        values[is_fault, column] += rng.uniform(2, 4) * values[:400, column].std()
    return values * rng.uniform(0.1, 100, columns), is_fault


@pytest.mark.parametrize("columns", [1, 3])
def test_no_score_depends_on_a_later_row(columns):
    rng = np.random.default_rng(3)
    values = np.column_stack([of_kind(kind, rng, 900) for kind in ("daily", "skewed", "walk")[:columns]])
    values[700:720] += 30
    whole = backtest.backtest(series(values), 250)
    for rows in (251, 300, 399, 640, 705, 899):
        cut = backtest.backtest(series(values[:rows]), 250)
        pd.testing.assert_frame_equal(cut, whole[:rows], check_exact=False, rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", ["saw", "square", "small integers", "counter"])
def test_what_is_written_of_a_series_that_repeats_itself_depends_on_no_later_row(kind, tmp_path):
    number = np.arange(720)
    small = np.random.default_rng(3).integers(0, 4, 720)
    values = {"saw": number % 24 * 0.1, "square": number // 25 % 2, "small integers": small, "counter": number}[kind]

    def written(rows):
        backtest.write_scores(backtest.backtest(series(values[:rows]), 300, ()), tmp_path / "out.csv")
        return (tmp_path / "out.csv").read_bytes().splitlines()

    whole = written(720)
    for rows in (301, 302, 517, 640, 707):
        assert written(rows) == whole[: rows + 1]


def test_deviations_of_a_series_that_stays_the_same_are_as_surprising_as_they_are_rare():
    rng = np.random.default_rng(1)
    found = np.concatenate([surprise(rng.exponential(1, 5_000), 500)[500:] for _ in range(10)])
    for power, least, most in ((1, 0.09, 0.11), (2, 0.008, 0.0125), (3, 0.0004, 0.002)):
        assert least < (found >= power).mean() < most


def test_what_stands_far_out_is_more_surprising_the_further_out():
    deviations = np.concatenate([np.random.default_rng(2).exponential(1, 1_000), [12, 20, 30, np.nan]])
    assert np.all(np.diff(surprise(deviations, 100)[1_000:1_003]) >= 0)
    assert surprise(deviations, 100)[1_000] > 3
    assert surprise(deviations, 100)[-1] == 0


def test_one_absurd_value_does_not_hide_what_comes_later():
    rng = np.random.default_rng(1)
    values = rng.normal(10, 1, 400)
    values[300:340] += 8
    values[200] = 1e9
    _, flags = backtest.strengths(series(values), 60, ())["ensemble"]
    assert flags[300:305].any()


def test_the_textbook_detectors_take_centre_and_scale_from_the_rows_before():
    rng = np.random.default_rng(4)
    values = rng.normal(100, 5, 400)
    values[200] = 150
    found = textbook.distances(values, 400, list(DETECTORS))
    past = values[:200]
    low, middle, high = np.quantile(past, [0.25, 0.5, 0.75])
    mad = np.median(np.abs(past - middle)) / 0.6745
    expected = {
        "zscore": abs(150 - past.mean()) / past.std() / DETECTORS["zscore"].THRESHOLD,
        "robust_zscore": abs(150 - middle) / mad / DETECTORS["robust_zscore"].THRESHOLD,
        "iqr": abs(150 - (low + high) / 2) / (high - low) / DETECTORS["iqr"].THRESHOLD,
    }
    for name, distance in expected.items():
        assert found[name][200] == pytest.approx(distance, rel=1e-9 if name == "zscore" else 0.1)
        assert np.isnan(found[name][:200]).all()


def test_a_forecast_knows_the_time_of_day_and_of_the_week():
    rng = np.random.default_rng(5)
    time = np.arange(21 * 48)
    is_weekend = time // 48 % 7 >= 5
    values = np.where(is_weekend, 100, 500 + 300 * np.sin(2 * np.pi * time / 48)) + rng.normal(0, 5, len(time))
    by_week = np.abs(forecast.residuals(time * 1800.0, values, 1800.0))
    by_level = np.abs(forecast.residuals(time * 1800.0, values, 86_400.0))
    third_week = slice(14 * 48, None)
    assert np.median(by_week[third_week]) < 2
    # A quiet Wednesday noon is nothing to who knows no week, since values that low are usual.
    values[16 * 48 + 20] = 100
    off = np.abs(forecast.residuals(time * 1800.0, values, 1800.0))[16 * 48 + 20]
    assert off > 10 * np.quantile(by_week[third_week], 0.95) > 0 and by_level.max() < off


def test_the_nearest_shape_is_the_nearest_of_all_that_were_looked_through():
    rng = np.random.default_rng(6)
    values = rng.normal(0, 1, 300)
    found, length = discord.nearest_shape(values), discord.LENGTH
    runs = np.array([values[begin : begin + length] - values[begin : begin + length].mean() for begin in range(300 - length + 1)])
    end = 200  # of 2 * LENGTH rows, each begins a block of its own
    distances = np.sqrt(((runs[end - length + 1] - runs[: end - 2 * length + 2]) ** 2).mean(axis=1))
    assert distances.min() - 1e-9 <= found[end] <= np.sort(distances)[2 * length] + 1e-9
    again = np.concatenate([values[:100], values[40:80]])
    assert discord.nearest_shape(again)[139] == pytest.approx(0, abs=1e-6)
    assert np.nanmin(discord.nearest_value(np.arange(300.0))) >= 1


@pytest.mark.parametrize("kind", ["daily", "flat", "skewed", "counts", "walk"])
def test_one_column_few_alarms_and_one_of_them_where_something_is_wrong(kind):
    caught = false_alarms = 0
    for seed in range(4):
        rng = np.random.default_rng(seed)
        values = of_kind(kind, rng, 3_000)
        begin = int(rng.integers(1_200, 2_600))
        values[begin : begin + 60] += rng.choice([-1, 1]) * 5 * values[:450].std()
        flags = backtest.backtest(series(values), 450, ())["ensemble_flag"].to_numpy()
        caught += flags[begin : begin + 80].any()
        false_alarms += flags.sum() - flags[begin : begin + 80].sum()
        assert flags[begin : begin + 80].sum() <= 2
    assert caught >= 3
    assert false_alarms <= 4 * 4


@pytest.mark.parametrize("fault", ["stands_still", "shakes"])
def test_a_sensor_that_stands_still_or_shakes_is_found(fault):
    rng = np.random.default_rng(8)
    values = of_kind("daily", rng, 3_000)
    values[2_000:2_100] = values[2_000] if fault == "stands_still" else values[2_000:2_100] + rng.normal(0, 25, 100)
    flags = backtest.backtest(series(values), 450, ())["ensemble_flag"].to_numpy()
    assert flags[2_000:2_110].any()


def test_several_columns_flags_stay_up_while_the_fault_lasts():
    totals = np.zeros(4)
    for seed in range(10):
        values, is_fault = rig(np.random.default_rng(seed))
        flags = shift.faults(values, 400)[1][400:]
        truth = is_fault[400:]
        totals += [(flags & truth).sum(), (flags & ~truth).sum(), (~flags & truth).sum(), (~flags & ~truth).sum()]
    hits, false, missed, right = totals
    assert 2 * hits / (2 * hits + false + missed) > 0.85
    assert false / (false + right) < 0.15


def test_after_an_alarm_there_is_silence_for_a_while_but_for_what_is_far_stronger():
    strength = np.zeros(1_000)
    strength[[150, 500, 501, 510, 600]] = 2
    assert np.flatnonzero(ensemble.alarms(strength, 200)).tolist() == [500, 600]
    strength[[505, 506, 507]] = 3, 6, 7
    assert np.flatnonzero(ensemble.alarms(strength, 200)).tolist() == [500, 506, 600]


@pytest.mark.parametrize("columns", [1, 2])
@pytest.mark.parametrize("train", [1, 2, 19, 20, 39, 61, 299])
def test_any_number_of_training_rows_is_honoured(train, columns):
    values = np.random.default_rng(9).normal(0, 1, (300, columns))
    scores = backtest.backtest(series(values), train)
    numbers = scores.drop(columns="timestamp")
    assert len(scores) == 300 and np.isfinite(numbers.to_numpy()).all()
    assert (numbers[:train].to_numpy() == 0).all()
    assert numbers.filter(like="_score").to_numpy().min() >= 0 and numbers.filter(like="_score").to_numpy().max() <= 1
    assert set(np.unique(numbers.filter(like="_flag"))) <= {0, 1}


@pytest.mark.parametrize("columns", [1, 2])
def test_a_constant_series_has_no_alarm_and_one_that_stops_to_be_has(columns):
    values = np.full((600, columns), 7.0)
    quiet = backtest.backtest(series(values), 100)
    assert quiet.filter(like="_flag").to_numpy().sum() == 0
    assert "never change" in " ".join(backtest.notes(series(values), 100))
    values[400:] = 8
    assert backtest.backtest(series(values), 100)["ensemble_flag"][400:420].any()


def test_metrics_are_those_of_scikit_learn_and_count_no_training_row():
    rng = np.random.default_rng(10)
    labels, score, flag = rng.integers(0, 2, 500), rng.random(500), rng.integers(0, 2, 500)
    found = backtest.metrics(pd.DataFrame({"one_score": score, "one_flag": flag}), labels, 100).iloc[0]
    truth, told = labels[100:], flag[100:]
    assert found["flags"] == told.sum()
    assert found["precision"] == pytest.approx(precision_score(truth, told))
    assert found["recall"] == pytest.approx(recall_score(truth, told))
    assert found["f1"] == pytest.approx(f1_score(truth, told))
    assert found["auroc"] == pytest.approx(roc_auc_score(truth, score[100:]))
    assert found["average_precision"] == pytest.approx(average_precision_score(truth, score[100:]))
    nothing = backtest.metrics(pd.DataFrame({"one_score": score, "one_flag": 0 * flag}), 0 * labels, 100).iloc[0]
    assert np.isnan([nothing["precision"], nothing["recall"], nothing["auroc"]]).all()


def csv(path, rows=300, separator=",", **columns):
    times = [datetime(2026, 1, 1, tzinfo=UTC) + timedelta(minutes=5 * n) for n in range(rows)]
    frame = pd.DataFrame({"time": [f"{time:%Y-%m-%d %H:%M:%S}" for time in times], **columns})
    frame.to_csv(path, index=False, sep=separator)
    return frame


def test_the_command_writes_one_row_for_each_of_the_file_and_says_how_good_it_is(tmp_path, capsys):
    rng = np.random.default_rng(11)
    values = rng.normal(10, 1, 300)
    values[200:215] += 12
    frame = csv(
        tmp_path / "in.csv", separator=";", value=values, other=rng.normal(0, 1, 300), fault=(np.arange(300) // 15 == 200 // 15) * 1
    )
    places = ["--output", str(tmp_path / "out.csv"), "--plot", str(tmp_path / "out.png")]
    line = ["backtest", str(tmp_path / "in.csv"), "--timestamp", "time", "--value", "value", "--label", "fault", *places]
    assert main([*line, "--detector", "iqr", "--detector", "iforest", "--train-rows", "77"]) == 0
    said = capsys.readouterr().out
    assert "223 rows judged, 77 learnt from" in said and "ensemble" in said and "zscore" not in said
    scores = pd.read_csv(tmp_path / "out.csv")
    expected = ["timestamp", *(f"{name}_{part}" for name in ("iqr", "iforest", "ensemble") for part in ("score", "flag"))]
    assert scores.columns.tolist() == expected
    assert scores["timestamp"].tolist() == frame["time"].tolist()
    assert scores["ensemble_flag"][200:215].any() and scores["iqr_flag"][200:215].any()
    assert (tmp_path / "out.png").read_bytes().startswith(b"\x89PNG")
    assert main([*line[:6], "--value", "other", *places, "--train-fraction", "0.5"]) == 0
    assert (pd.read_csv(tmp_path / "out.csv").drop(columns="timestamp")[:150] == 0).all(axis=None)


def test_gaps_empty_cells_and_unix_times_are_read(tmp_path):
    seconds = 1_700_000_000 + np.concatenate([np.arange(100) * 60, 90_000 + np.arange(100) * 60])
    values = np.random.default_rng(12).normal(0, 1, 200)
    texts = [f"{value:.4f}" for value in values]
    texts[0] = texts[50] = ""
    pd.DataFrame({"t": seconds, "v": texts}).to_csv(tmp_path / "in.csv", index=False)
    read = read_series(tmp_path / "in.csv", "t", ["v"], None)
    assert read.missing == 2 and read.seconds.tolist() == seconds.tolist() and read.interval(100) == 60
    assert read.values[50, 0] == read.values[49, 0]
    pd.DataFrame({"t": seconds * 1000, "v": texts}).to_csv(tmp_path / "in.csv", index=False)
    assert read_series(tmp_path / "in.csv", "t", ["v"], None).seconds.tolist() == seconds.tolist()
    assert len(backtest.backtest(read, 30)) == 200


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "cannot be read as CSV"),
        ("\n \n", "cannot be read as CSV: it is empty"),
        ("time,value\n", "no rows"),
        ("\ntime,value\n\n2026-01-01,1,2\n", "line 4 has 3 fields, the header 2"),
        ('time,note,value\n2026-01-01,"a\nb",1\n2026-01-02,,x\n', "line 4: value is 'x'"),
        ('time,value\n2026-01-01,1\n"2026-01-02,1\n2026-01-03,1\n', "line 3 has 1 field, the header 2"),
        ("time,value,value\n2026-01-01,1,2\n", "has the column 'value' 2 times"),
        ("time;value\n2026-01-01;1,5\n", "line 2: value is '1,5', which is no number: write a point for the decimal comma"),
        ("time,value\n2026-01-01,1e31\n", "line 2: value is 1e31, beyond 1e30"),
        ("time,value\n2026-01-01,1\nnow,2\n", "line 3: time is 'now', which is no time"),
        ("time,value\n20260131,1\n20260230,2\n", "line 3: time is '20260230', which is no time"),
        ("time,value\n" + "".join(f"2026-01-{day:02},{'-' if day < 9 else day}\n" for day in range(1, 31)), "in the 4 training rows"),
        ("time,other\n2026-01-01,1\n", "has no column 'value'; it has time, other"),
        ("time,value\n2026-01-01,1\nyesterday,2\n", "line 3: time is 'yesterday', which is no time"),
        (
            "time,value\n2026-01-03,1\n2026-01-02,2\n2026-01-01,2\n",
            "time goes back from row to row more often than on. Sort the file by it",
        ),
        ("time,value\n2026-01-01,1\n2026-01-02,much\n", "line 3: value is 'much', which is no number"),
        ("time,value\n2026-01-01,1\n2026-01-02,inf\n", "line 3: value is 'inf', which is no number"),
        ("time,value\n2026-01-01,\n2026-01-02,\n", "value has no number in any row"),
        ("time,value,label\n2026-01-01,1,maybe\n", "line 2: label is 'maybe'; a label is 0 or 1"),
    ],
)
def test_a_file_that_cannot_be_used_is_one_sentence(tmp_path, capsys, text, said):
    (tmp_path / "in.csv").write_text(text)
    line = ["backtest", str(tmp_path / "in.csv"), "--timestamp", "time", "--value", "value", "--output", str(tmp_path / "out.csv")]
    assert main([*line, *(["--label", "label"] if "label" in text else [])]) in (1, 2)
    error = capsys.readouterr().err
    assert said in error and "Traceback" not in error
    assert not (tmp_path / "out.csv").exists()


def read(path, text, *values, label=None):
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_series(path, "time", values or ["value"], label)


@pytest.mark.parametrize(
    "text",
    [
        "\n  \ntime,value\n\n2026-01-01,1\n2026-01-02,2\n",
        "sep=;\ntime;value\n2026-01-01;1\n2026-01-02;2\n",
        'time;value;"a, b, c, d"\n2026-01-01;1;\n2026-01-02;2;\n',
        "time,value,\r\n2026-01-01,1,\r\n2026-01-02,2,\r\n",
        'time\tvalue\tnote\n2026-01-01\t1\t"a\n\nb"\n2026-01-02\t2\t"a ""b"""\n',
        "time,value\n20260101,1\n20260102,2\n",
    ],
)
def test_files_as_programs_write_them_are_read(tmp_path, text):
    found = read(tmp_path / "in.csv", text)
    assert found.values.tolist() == [[1], [2]]
    assert np.diff(found.seconds).tolist() == [86_400] and found.seconds[0] == datetime(2026, 1, 1, tzinfo=UTC).timestamp()


def test_a_file_in_another_encoding_is_one_sentence(tmp_path):
    with pytest.raises(PipelineError, match=r"line 3 is no UTF-8: save the file as UTF-8"):
        read(tmp_path / "in.csv", "time,value\n2026-01-01,1\nMärz,2\n".encode("latin-1"))


def test_the_first_row_decides_what_numbers_since_1970_count(tmp_path):
    for per_second in (1, 1_000, 1_000_000, 1_000_000_000):
        found = read(tmp_path / "in.csv", f"time,value\n{1_700_000_000 * per_second},1\n{1_700_000_060 * per_second},2\n")
        assert found.seconds.tolist() == [1_700_000_000, 1_700_000_060]
    assert read(tmp_path / "in.csv", "time,value\n100000000000,1\n100000000060,2\n").seconds[0] == 1e11
    assert read(tmp_path / "in.csv", "time,value\n1,1\n200000000000000,2\n").seconds.tolist() == [1, 2e14]


def test_times_that_step_back_or_repeat_are_counted_and_keep_their_order(tmp_path):
    hours = [*range(50), *range(47, 100), 99, *range(98, 150)]
    times = [f"{day:02}/03/2026 {hour:02}:00" for day, hour in (divmod(20 * 24 + number, 24) for number in hours)]
    text = "time,value\n" + "".join(f"{time},{row}\n" for row, time in enumerate(times))
    found = read(tmp_path / "in.csv", text)
    assert (found.seconds - found.seconds[0]).tolist() == [3_600 * hour for hour in hours]
    assert found.values[:, 0].tolist() == list(range(len(hours))) and found.steps_back.tolist() == [50, 104]
    assert (
        f"Time goes back in 2 rows, first from {times[49]} to {times[50]}; the rows are judged in the file's order"
        in backtest.notes(found, 40)[0]
    )
    scores = backtest.backtest(found, 40)
    assert scores["timestamp"].tolist() == times
    backtest.plot(found, scores, 40, ["value"], tmp_path / "out.png")
    assert (tmp_path / "out.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("kind", ["daily", "flat", "skewed"])
@pytest.mark.parametrize("interval", [300, 3_600])
def test_after_a_long_incident_a_spike_of_an_hour_that_is_larger_than_all_before_is_flagged(kind, interval):
    rng, hour = np.random.default_rng(21), 3_600 // interval
    values = of_kind("daily" if kind == "daily" else kind, rng, 3_000)
    incident, spike = slice(1_200, 1_200 + 20 * hour), slice(2_200, 2_200 + hour)
    values[incident] += 20 * values.std()
    values[spike] = values.mean() + 1.2 * (values.max() - values.mean())
    scores = backtest.backtest(series(values, interval), 450, ())
    assert scores["ensemble_flag"][spike].any() and scores["ensemble_score"][spike].max() > 0.6
    begins = backtest.incidents(scores)["begin"].to_numpy()
    assert (begins == 1_200).any()
    # A long one is flagged again where it ends, and nothing else is between the two.
    between = begins[(begins > 1_200) & (begins < 2_200)]
    assert all(1_200 + 20 * hour <= begin < 1_210 + 20 * hour for begin in between)


def test_what_lasts_becomes_the_new_normal():
    rng = np.random.default_rng(22)
    values = of_kind("flat", rng, 4_000)
    values[2_000:] += 60
    flags = backtest.backtest(series(values), 600, ())["ensemble_flag"].to_numpy()
    assert flags[2_000:2_005].any() and flags[2_600:].sum() <= 2


def test_an_incident_lasts_from_its_flag_to_its_last_row_of_a_half_or_more():
    score = [0, 0.6, 0.9, 0.7, 0.2, 0.5, 0.1, 0.8, 0.9, 0.4, 0.0]
    flags = [0, 1, 1, 0, 0, 0, 0, 1, 0, 0, 0]
    found = backtest.incidents(pd.DataFrame({"ensemble_score": score, "ensemble_flag": flags}))
    assert found.to_dict("split")["data"] == [[1, 5, 0.9], [7, 8, 0.9]]
    held = backtest.incidents(pd.DataFrame({"ensemble_score": [0.6, 0.45, 0.45, 0.2], "ensemble_flag": [1, 1, 1, 0]}))
    assert held[["begin", "end"]].to_numpy().tolist() == [[0, 2]]


def test_the_strongest_incidents_are_printed_in_order_of_time():
    said = io.StringIO()
    score = np.tile([0.0, 0.6, 0.0], 30)
    score[1::3] += np.linspace(0, 0.3, 30)
    scores = pd.DataFrame({"timestamp": np.arange(90), "ensemble_score": score, "ensemble_flag": (score > 0).astype(int)})
    backtest.print_incidents(scores, Console(file=said, width=200))
    rows = [[int(number) for number in line.replace("│", " ").split()[:3]] for line in said.getvalue().splitlines() if line.startswith("│")]
    assert "The 20 strongest of 30" in said.getvalue() and rows == [[row, row, 1] for row in range(31, 90, 3)]
    empty = io.StringIO()
    backtest.print_incidents(scores.assign(ensemble_flag=0, ensemble_score=0.0), Console(file=empty))
    assert "flags no incident" in empty.getvalue()


@pytest.mark.parametrize(
    ("first", "second", "days"),
    [
        ("01/02/2026", "01/03/2026", 1),
        ("12/01/2026", "13/01/2026", 1),
        ("31/01/2026 10:00", "01/02/2026 10:00", 1),
        ("1/12/26", "2/1/26", 20),
    ],
)
def test_month_first_unless_only_day_first_makes_times_that_rise(tmp_path, first, second, days):
    assert np.diff(read(tmp_path / "in.csv", f"time,value\n{first},1\n{second},2\n").seconds).tolist() == [days * 86_400]


def test_empty_cells_at_the_beginning_are_the_first_number_and_tiny_ones_0(tmp_path):
    found = read(tmp_path / "in.csv", "time,value\n1,N/A\n2,#N/A\n3,5\n4,-\n5,1e-200\n")
    assert found.values[:, 0].tolist() == [5, 5, 5, 5, 0] and found.missing == 3
    assert "1 cell is empty: it is taken" in backtest.notes(Series(*(*vars(found).values(),)[:4], 1), 3)[0]


def test_a_column_asked_for_twice_is_wrong_use(tmp_path):
    for values, label in ((["value", "value"], None), (["value"], "value"), (["value"], "time"), (["time"], None)):
        with pytest.raises(UsageError, match="is asked for twice"):
            read(tmp_path / "in.csv", "time,value\n1,1\n", *values, label=label)


def test_no_file_is_written_over_another_and_each_has_its_folder_before_any_work(tmp_path, capsys):
    file, linked = tmp_path / "in.csv", tmp_path / "linked.csv"
    csv(file, value=np.arange(300))
    linked.symlink_to(file)
    before = file.read_bytes()
    for output, picture, said in (
        (file, None, "would be written over"),
        (linked, None, "would be written over"),
        (tmp_path / "." / "out.csv", tmp_path / "none" / ".." / "out.csv", "there is no folder"),
        (tmp_path / "out.csv", tmp_path / "out.csv", "--plot .* would be written over --output"),
        (tmp_path / "out.csv", file, "--plot .* would be written over"),
        (tmp_path / "none" / "out.csv", None, "there is no folder"),
        (tmp_path, None, "is a folder"),
        (tmp_path / "out.csv", tmp_path, "--plot .* is a folder"),
    ):
        line = ["backtest", str(file), "--timestamp", "time", "--value", "value", "--output", str(output)]
        assert main([*line, *(["--plot", str(picture)] if picture else [])]) == 2
        assert re.search(said, capsys.readouterr().err)
    assert file.read_bytes() == before and {one.name for one in tmp_path.iterdir()} == {"in.csv", "linked.csv"}


def test_the_picture_has_six_columns_and_the_score_and_takes_any_name_and_time(tmp_path, monkeypatch, capfd):
    drawn = []
    monkeypatch.setattr(Figure, "savefig", lambda self, *_, **__: (drawn.append(self), savefig(self, *_, **__)))
    names = ["$x_", "a$ and $b", "温度", "e" * 500, "f", "g", "h", "i"]
    many = np.random.default_rng(14).normal(0, 1, (60, 8))
    for seconds in (np.arange(60) * 60.0, np.linspace(-1e15, 1e15, 60), np.linspace(-6.2e10, 2.5e11, 60)):
        times = Series(seconds.astype(str), seconds, many, np.arange(60) // 50, 0)
        backtest.plot(times, backtest.backtest(times, 20, ()), 20, names, tmp_path / "out.png")
        *axes, score = drawn[-1].axes
        assert len(axes) == 6 and "left out: 2" in axes[0].get_title()
        assert len(score.lines) == 2 and score.get_ylim() == (0, 1)
    assert score.get_xlabel() == "row"
    assert capfd.readouterr().err == ""


def test_what_cannot_be_judged_is_said():
    several = series(np.random.default_rng(15).normal(0, 1, (100, 2)), labels=np.zeros(100, dtype=int))
    said = " ".join(backtest.notes(several, 20))
    assert "the ensemble of several columns scores no row at all" in said and "are all 0, so there are no measures" in said
    assert backtest.chosen_detectors(["ensemble"]) == () and backtest.chosen_detectors(["iqr", "ensemble", "iqr"]) == ("iqr",)


@pytest.mark.parametrize("columns", [1, 2])
@pytest.mark.filterwarnings("error")
def test_numbers_of_any_size_make_no_warning(columns):
    number = np.arange(200)
    for values in (np.where(number == 150, 1e30, 1e-30), np.where(number % 2, 1e30, -1e30), 1 + number % 2 * 2e-16):
        scores = backtest.backtest(series(np.column_stack([values] * columns)), 60)
        assert np.isfinite(scores.drop(columns="timestamp").to_numpy()).all()


def test_a_detector_that_there_is_not_is_named_before_the_file_is_read(tmp_path, capsys):
    line = ["backtest", str(tmp_path / "in.csv"), "--timestamp", "time", "--value", "value", "--output", str(tmp_path / "out.csv")]
    assert main([*line, "--detector", "lstm"]) == 2
    assert "--detector lstm cannot be: use iforest, zscore" in capsys.readouterr().err


def test_files_that_are_not_there_and_numbers_that_cannot_be(tmp_path):
    with pytest.raises(UsageError, match="There is no file"):
        read_series(tmp_path / "none.csv", "time", ["value"], None)
    for fraction, count in ((0.0, None), (1.0, None), (float("nan"), None), (None, 0), (None, 10), (None, -1)):
        with pytest.raises(UsageError):
            backtest.training_rows(10, fraction, count)
    assert backtest.training_rows(200, 0.29, None) == 58
    assert [backtest.training_rows(1_000, None, None), backtest.training_rows(3, 0.15, None), backtest.training_rows(10, None, 9)] == [
        150,
        1,
        9,
    ]
    with pytest.raises(PipelineError, match="--output"):
        backtest.write_scores(pd.DataFrame(), tmp_path / "none" / "out.csv")


def test_the_summary_names_each_detector():
    said = io.StringIO()
    scores = backtest.backtest(series(np.random.default_rng(13).normal(0, 1, 200)), 50)
    backtest.print_summary(scores, None, 50, Console(file=said, width=100))
    assert all(name in said.getvalue() for name in (*backtest.NAMES, "ensemble"))
