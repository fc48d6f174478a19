"""Imports point one way, and the tables say what they are."""

import ast
import re
from pathlib import Path

import pytest
from bronze_rows import shipped_contract

from streaming_pipeline.contract import RESERVED
from streaming_pipeline.tables import all_tables

SOURCE = Path(__file__).parents[1] / "src" / "streaming_pipeline"
MODULES = sorted(SOURCE.rglob("*.py"))
# What stands below the stages; none of it may know a stage.
BELOW = {
    "errors",
    "foreign_text",
    "wording",
    "at_once",
    "csv_series",
    "settings",
    "config_files",
    "json_files",
    "contract",
    "patterns",
    "rules",
    "coordinates",
    "prices",
    "tables",
    "kafka",
    "pem",
    "streams",
    "run_log",
    "losses",
    "synthetic",
    "spoilt_payloads",
    "producer",
    "consumer",
    "queries",
    "detectors",
}
STAGES = {"backtest", "bronze", "silver", "gold", "monitoring", "model", "alerts", "maintenance", "replay", "backfill", "rescore"}


def imports(file: Path) -> set[str]:
    """The parts of our package that a module imports, at any depth, as `local` or `tables`."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        found |= {name.split(".")[1] for name in names if name.startswith("streaming_pipeline.")}
    return found


@pytest.mark.parametrize("file", MODULES, ids=lambda file: str(file.relative_to(SOURCE)))
def test_imports_point_one_way(file):
    part = file.relative_to(SOURCE).parts[0].removesuffix(".py")
    assert part in BELOW | STAGES | {"local", "cli", "__init__"}
    found = imports(file)
    if part in BELOW:
        assert found <= BELOW
    elif part in STAGES:
        assert found <= BELOW | STAGES
    elif part == "local":
        assert "cli" not in found


def test_no_payload_is_read_by_sparks_functions_for_variants():
    """They descend by recursion. One record nested a thousand levels deep would end the process, whenever the stack happens to be full."""
    calls = re.compile(r"\bF\.\w*(?:variant|parse_json)\w*\(|` variant\"")
    assert not [str(file) for file in MODULES if calls.search(file.read_text(encoding="utf-8"))]


def test_every_table_states_its_grain_and_every_column_what_it_holds():
    tables = all_tables(shipped_contract())
    assert len({table.name for table in tables}) == len(tables)
    for table in tables:
        assert table.grain
        assert all(comment for name, _, comment in table.columns)
        assert set(table.statistics_on) <= set(table.column_names)


def test_no_contract_field_can_hide_a_column_of_ours():
    contract = shipped_contract()
    with_fields = {"bronze_events", "silver_events", "quarantined_events", "gold_anomaly_predictions"}
    ours = {name for table in all_tables(contract) if table.name in with_fields for name in table.column_names}
    assert ours - set(contract.field_names) <= RESERVED
