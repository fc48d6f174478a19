"""The dashboard, the SQL alerts and the other places that show queries: well-formed, and of one set of queries.

That each query answers on the tables of a whole run is in test_pipeline.py.
"""

from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from dashboard import alerts, dashboard, datasets, queries_of, widgets

from streaming_pipeline.queries import query

ROOT = Path(__file__).resolve().parents[2]
QUERIES = {path.stem for path in (ROOT / "src/streaming_pipeline/queries").glob("*.sql")}
# A widget of another version is not drawn.
VERSIONS = {"bar": 3, "counter": 2, "filter-date-range-picker": 2, "heatmap": 3, "line": 3, "table": 2}
COLUMNS = 12


def fields_in(encodings: Any) -> Iterator[tuple[str, str]]:
    """(query, field) of every field that a widget draws."""
    if isinstance(encodings, dict):
        if "fieldName" in encodings:
            yield encodings.get("queryName", "main_query"), encodings["fieldName"]
        encodings = list(encodings.values())
    if isinstance(encodings, list):
        for part in encodings:
            yield from fields_in(part)


def test_each_dataset_is_a_query_of_the_one_set_word_for_word_and_is_drawn():
    assert datasets() == {name: query(name) for name in datasets()}
    assert {used["datasetName"] for widget in widgets() for used in queries_of(widget).values()} == set(datasets())


def test_names_are_there_once():
    for names in (
        [dataset["name"] for dataset in dashboard()["datasets"]],
        [page["name"] for page in dashboard()["pages"]],
        [page["displayName"] for page in dashboard()["pages"]],
        [widget["name"] for widget in widgets()],
    ):
        assert len(set(names)) == len(names)


def test_widgets_lie_in_the_grid_and_not_on_each_other():
    for page in dashboard()["pages"]:
        assert page["layoutVersion"] == "GRID_V1", "the grid of twelve columns"
        spots = [(item["widget"]["name"], item["position"]) for item in page["layout"]]
        for name, spot in spots:
            assert spot["x"] >= 0 and spot["y"] >= 0 and spot["width"] > 0 and spot["height"] > 0, name
            assert spot["x"] + spot["width"] <= COLUMNS, name
        for (one, a), (other, b) in combinations(spots, 2):
            beside = a["x"] + a["width"] <= b["x"] or b["x"] + b["width"] <= a["x"]
            below = a["y"] + a["height"] <= b["y"] or b["y"] + b["height"] <= a["y"]
            assert beside or below, f"{page['name']}: {one} lies on {other}"


def test_a_widget_draws_what_its_query_asks_for_and_says_what_it_is():
    for widget in widgets():
        if "multilineTextboxSpec" in widget:
            continue
        spec = widget["spec"]
        assert spec["version"] == VERSIONS[spec["widgetType"]], widget["name"]
        assert spec["frame"]["showTitle"] and spec["frame"]["title"], widget["name"]
        asked = {(name, field["name"]) for name, used in queries_of(widget).items() for field in used["fields"]}
        assert set(fields_in(spec["encodings"])) == asked, widget["name"]


@pytest.mark.parametrize("name", ["stale", "missing_records", "dead_alerts"])
def test_a_sql_alert_asks_a_query_of_the_one_set(name):
    alert = alerts()[name]
    assert alert["query_text"] == query(name)
    assert alert["evaluation"]["notification"]["subscriptions"] == [{"user_email": "user@example.com"}]


def test_the_readme_and_the_notebook_to_explore_show_queries_of_the_one_set():
    readme, notebook = ((ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "notebooks/explore/explore_results.py"))
    for name in ("monitor_logs", "benchmark_logs", "cluster_logs", "top_anomalies"):
        assert query(name) in readme, name
    in_sql_cells = {line.removeprefix("# MAGIC ") for line in notebook.splitlines() if line.startswith("# MAGIC SELECT")}
    assert in_sql_cells <= {query(name) for name in QUERIES}
