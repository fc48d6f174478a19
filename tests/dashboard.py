"""The dashboard's file and the SQL alerts, taken apart for tests."""

import json
from functools import cache
from pathlib import Path
from typing import Any

from pyspark.sql import SparkSession

from laptop.bundle.load import load_bundle

ROOT = Path(__file__).resolve().parents[1]


@cache
def dashboard() -> dict[str, Any]:
    """The dashboard, from the file that the bundle names."""
    return json.loads(Path(load_bundle(ROOT).resources["dashboards"]["overview"]["file_path"]).read_text(encoding="utf-8"))


def datasets() -> dict[str, str]:
    """Name → SQL of each dataset."""
    return {dataset["name"]: "".join(dataset["queryLines"]).strip() for dataset in dashboard()["datasets"]}


def widgets() -> list[dict[str, Any]]:
    """The widgets of all pages."""
    return [item["widget"] for page in dashboard()["pages"] for item in page["layout"]]


def queries_of(widget: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """A widget's queries by their names."""
    return {query["name"]: query["query"] for query in widget.get("queries", [])}


def asked(query: dict[str, Any]) -> str:
    """The SQL by which a widget asks its dataset."""
    fields = ", ".join(f"{field['expression']} AS `{field['name']}`" for field in query["fields"])
    return f"SELECT {fields} FROM ({datasets()[query['datasetName']]})" + ("" if query["disaggregated"] else " GROUP BY ALL")


def tells(spark: SparkSession, alert: dict[str, Any]) -> bool:
    """Whether a SQL alert tells something of the tables of the schema in use: the first row decides."""
    evaluation = alert["evaluation"]
    value = spark.sql(alert["query_text"]).first()[evaluation["source"]["name"]]
    assert evaluation["comparison_operator"] == "GREATER_THAN"
    return value > evaluation["threshold"]["value"]["double_value"]


def alerts() -> dict[str, dict[str, Any]]:
    """The SQL alerts of target dev, their queries naming tables alone."""
    bundle = load_bundle(ROOT)
    prefix = f"`main`.`{bundle.resources['schemas']['pipeline']['name']}`."
    return {key: {**alert, "query_text": alert["query_text"].replace(prefix, "")} for key, alert in bundle.resources["alerts"].items()}
