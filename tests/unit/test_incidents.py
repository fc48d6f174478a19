"""One thing that happened is one incident, and the pipeline and the data have a verdict each."""

from datetime import UTC, datetime, timedelta

import pytest

from streaming_pipeline.alerts.incidents import data_verdict, incidents, pipeline_verdict, worst_of_data
from streaming_pipeline.detectors import DETECTORS
from streaming_pipeline.monitoring.arrivals import Anomaly
from streaming_pipeline.monitoring.drift import Drift
from streaming_pipeline.monitoring.incidents import incidents as of_findings
from streaming_pipeline.monitoring.incidents import together
from streaming_pipeline.monitoring.monitor import MonitorLog

NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)


def spike(detector, start, end, slice_name="*"):
    return Anomaly(detector, "spike", "arrivals", slice_name, start, end, 100.0, 10.0, 9.0, 6.0)


def drift(window, column, metric="psi", comparison="baseline", is_drift=True):
    return Drift(window, "*", column, comparison, metric, 1.0, 0.0, 0.1, 500, 500, is_drift=is_drift)


@pytest.mark.parametrize(
    "spans, numbers",
    [
        ([], []),
        ([(10, 20)], [0]),
        ([(30, 40), (10, 20), (15, 30)], [0, 0, 0]),
        ([(30, 40), (10, 20)], [1, 0]),
        ([(10, 50), (20, 30), (40, 45), (51, 60)], [0, 0, 0, 1]),
    ],
)
def test_spans_that_overlap_or_touch_belong_together(spans, numbers):
    assert together(spans) == numbers


def test_rows_that_somebody_wrote_by_hand_leave_the_others_to_be_counted():
    row = {"anomaly_type": "spike", "severity": "critical", "fingerprint": "a", "created_at": NOON, "found_at": NOON, "event_time": NOON}
    row |= {"is_recovery": False, "is_ongoing": True, "state": "goes on"}
    bad = [row | {"created_at": None, "found_at": None}, row | {"severity": "urgent"}, row | {"severity": None}]
    assert incidents([*bad, row | {"fingerprint": "b"}]) == [row | {"fingerprint": "b"}]


def test_a_spike_that_every_detector_and_slice_reports_is_one_incident():
    once = [spike(name, 100 + n, 110, slice_name) for n, name in enumerate(DETECTORS) for slice_name in ("*", "click")]
    assert len(once) >= 8 and of_findings(once, []) == {"spike": 1}
    assert of_findings([*once, spike("zscore", 300, 310)], []) == {"spike": 2}


def test_a_column_that_drifts_in_many_windows_and_metrics_is_one_incident():
    rows = [drift(window, "value", metric) for window in range(24) for metric in ("psi", "ks")]
    rows += [drift(30, "value", comparison="previous"), drift(3, "other", is_drift=False), drift(5, "channel", "schema_added", "contract")]
    assert of_findings([], rows) == {"drift": 1, "schema_change": 1}


def alert(kind, minutes, *, severity="warning", subject="value", state="", is_ongoing=False, is_recovery=False, **more):
    """A row of the query `alerts`, found so many minutes after noon."""
    at = NOON + timedelta(minutes=minutes)
    row = {"anomaly_type": kind, "severity": severity, "fingerprint": f"{kind}/{subject}", "state": state, "is_ongoing": is_ongoing}
    return {**row, "is_recovery": is_recovery, "found_at": at, "created_at": at, "event_time": at, "message": f"{kind} {minutes}", **more}


def test_what_goes_on_is_one_incident_until_its_end():
    begun = alert("drift", 0, state="goes on", is_ongoing=True)
    again = alert("drift", 60, severity="critical", state="goes on", is_ongoing=True)
    [one] = incidents([again, begun])
    assert (one["severity"], one["event_time"], one["message"]) == ("critical", NOON, "drift 60")
    end = alert("drift", 120, severity="info", is_recovery=True, is_ongoing=False)
    assert len(incidents([begun, again, end])) == 1
    assert len(incidents([begun, again, end, alert("drift", 180, state="goes on", is_ongoing=True)])) == 2


def test_an_alert_of_both_channels_is_one_incident_and_two_spikes_are_two():
    both = [alert("spike", 0, channel=channel) for channel in ("email", "webhook")]
    assert len(incidents(both)) == 1
    assert len(incidents([*both, alert("spike", 60), alert("spike", 60, subject="other")])) == 3


def test_the_pipeline_may_be_healthy_while_much_happened_in_the_data():
    found = incidents([
        alert("drift", 0, severity="critical", state="goes on", is_ongoing=True),
        alert("missing_pattern", 0, severity="critical", state="over when found"),
        alert("spike", 0),
    ])  # fmt: skip
    assert pipeline_verdict("Healthy", found) == "Healthy"
    assert data_verdict("Healthy", found) == "3 incidents (2 critical, 1 warning), 1 still going on"
    assert worst_of_data(found) == "critical"


def test_a_failed_run_is_the_pipelines_and_not_the_datas():
    found = incidents([alert("job_failed", 0, severity="critical", state="goes on", is_ongoing=True, found_at=None)])
    assert pipeline_verdict("Healthy", found) == "Healthy, 1 incident still going on (job failed)"
    assert (data_verdict("Healthy", found), worst_of_data(found)) == ("no incidents", "")


@pytest.mark.parametrize("kind", ["records_unaccounted", "records_lost", "records_rejected", "records_repeated", "stale"])
def test_what_makes_a_run_unhealthy_is_counted_in_one_verdict(kind):
    found = incidents([alert(kind, 0, severity="critical", state="goes on", is_ongoing=True)])
    assert pipeline_verdict("Unhealthy", found).startswith("Unhealthy, 1 incident still going on (")
    assert data_verdict("Unhealthy", found) == "no incidents"


def test_without_a_monitoring_run_there_is_no_verdict():
    assert (pipeline_verdict(None, []), data_verdict(None, [])) == ("not monitored yet", "not judged yet")


def log(**columns):
    held = dict.fromkeys(MonitorLog.__dataclass_fields__)
    lists = {name: {} for name in ("unknown_fields", "findings", "incidents")}
    return MonitorLog(**{**held, **lists, "status": "Healthy", "latest_event_time": NOON, "conflicting_events": 0, **columns})


def test_the_note_of_monitoring_names_both_verdicts_and_counts_incidents():
    rows, happened = {"spike": 12, "drift": 234, "outlier": 3_649}, {"spike": 1, "drift": 1, "outlier": 1_245}
    one = log(findings=rows, incidents=happened, unknown_fields={"channel": 1})
    assert one.note == (
        "Pipeline: Healthy. Data: 2 incidents (1 drift, 1 spike), 1,245 outliers; fields that the contract lacks: channel (1 record)"
    )
    worse = log(status="Unhealthy", status_reason="1 record is not accounted for", incidents={"degradation": 1}, conflicting_events=1)
    assert worse.note == (
        "Pipeline: Unhealthy (1 record is not accounted for), 1 figure is worse than usual. "
        "Data: no incidents, 1 record has the id of an event and other content"
    )
    assert log(status="Unknown", latest_event_time=None).note == "Pipeline: Unknown. Data: not judged yet"
