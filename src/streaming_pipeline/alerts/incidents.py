"""Alerts → incidents, one for each thing that happened, and the verdicts on the pipeline and on the data. Pure."""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from streaming_pipeline.alerts.findings import KINDS, SEVERITIES
from streaming_pipeline.core.wording import plural

OF_THE_PIPELINE = ("job_failed", "records_unaccounted", "records_lost", "records_rejected", "records_repeated", "stale", "degradation")
"""Kinds that say how the pipeline does, those that make a run Unhealthy among them; all others say what happened in the data."""
GOES_ON = "goes on"
"""A state of the query `alerts`."""


def incidents(alerts: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Rows of the query `alerts` → one row for each incident, as its newest alert reports it, with its highest severity; the newest last.

    Alerts about the same thing (`fingerprint`) belong together from its beginning to its end, on whatever channel and however often they
    came again. What has no end, or was over when it was found, is an incident each time that a monitoring run reports it. Rows without a
    time, or with an unknown severity, are left out: task 05 names them.
    """
    alerts = [alert for alert in alerts if _came(alert) and alert["severity"] in SEVERITIES]
    found: list[dict[str, Any]] = []
    current: dict[str, dict[str, Any]] = {}
    for alert in sorted(alerts, key=lambda alert: (_came(alert), alert["is_recovery"])):
        known = current.get(alert["fingerprint"])
        if alert["is_recovery"]:
            current.pop(alert["fingerprint"], None)
        elif known and (known["is_ongoing"] or _came(known) == _came(alert)):
            known |= {
                **alert,
                "severity": max(known["severity"], alert["severity"], key=SEVERITIES.index),
                "event_time": known["event_time"] or alert["event_time"],
                "is_ongoing": known["is_ongoing"] or alert["is_ongoing"],
                "state": GOES_ON if GOES_ON in (known["state"], alert["state"]) else alert["state"] or known["state"],
            }
        else:
            current[alert["fingerprint"]] = {**alert}
            found.append(current[alert["fingerprint"]])
    return found


def _came(alert: Mapping[str, Any]) -> Any:
    """When a run reported it: each channel has a row of the same time."""
    return alert["found_at"] or alert["created_at"]


def pipeline_verdict(status: str | None, found: Iterable[Mapping[str, Any]]) -> str:
    """How the pipeline does: the newest status of `monitor_logs`, and what of the pipeline's own incidents is still going on."""
    open_ones = [one for one in found if one["anomaly_type"] in OF_THE_PIPELINE and one["state"] == GOES_ON]
    named = ", ".join(dict.fromkeys(KINDS[one["anomaly_type"]].title for one in open_ones))
    return (status or "not monitored yet") + (f", {plural(len(open_ones), 'incident')} still going on ({named})" if open_ones else "")


def data_verdict(status: str | None, found: Iterable[Mapping[str, Any]]) -> str:
    """What happened in the data: `4 incidents (2 critical, 2 warning), 1 still going on`."""
    if status is None:
        return "not judged yet"
    of_data = [one for one in found if one["anomaly_type"] not in OF_THE_PIPELINE]
    counts = Counter(one["severity"] for one in of_data)
    named = ", ".join(f"{counts[severity]:,} {severity}" for severity in reversed(SEVERITIES) if counts[severity])
    going_on = sum(one["state"] == GOES_ON for one in of_data)
    happened = plural(len(of_data), "incident") if of_data else "no incidents"
    parts = (happened, f" ({named})" if named else "", f", {going_on:,} still going on" if going_on else "")
    return "".join(parts)


def worst_of_data(found: Iterable[Mapping[str, Any]]) -> str:
    """The highest severity of what happened in the data; empty if nothing did."""
    severities = (one["severity"] for one in found if one["anomaly_type"] not in OF_THE_PIPELINE)
    return max(severities, key=SEVERITIES.index, default="")
