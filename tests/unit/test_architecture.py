"""Imports point one way, and the tables say what they are."""

import ast
import re
from pathlib import Path

from bronze_rows import shipped_contract

from streaming_pipeline.core.contract import RESERVED
from streaming_pipeline.core.tables import all_tables

SOURCE = Path(__file__).parents[2] / "src"
MODULES = sorted(SOURCE.rglob("*.py"))
UTILITIES = {f"streaming_pipeline.core.{name}" for name in ("errors", "config_files", "foreign_text", "wording")}


def module(file: Path) -> str:
    """`streaming_pipeline.core.tables` for its file."""
    return ".".join(file.relative_to(SOURCE).with_suffix("").parts).removesuffix(".__init__")


def folder(name: str) -> str:
    """A module's folder, as `streaming_pipeline.core`; a module that lies in none is its own."""
    return ".".join(name.split(".")[:2])


def imports(file: Path) -> set[str]:
    """The modules of ours that a module imports, at its head or within a function."""
    known = {module(other) for other in MODULES}
    found = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {name if (name := f"{node.module}.{alias.name}") in known else node.module for alias in node.names}
    return found & known


IMPORTS = {module(file): imports(file) for file in MODULES}


def circle(graph: dict[str, set[str]]) -> list[str]:
    """The nodes of a graph that lie on a circle or behind one."""
    left = {node: needed - {node} for node, needed in graph.items()}
    while ready := {node for node, needed in left.items() if not needed & set(left)}:
        left = {node: needed for node, needed in left.items() if node not in ready}
    return sorted(left)


def test_a_circle_is_found():
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": set()}) == ["a", "b", "c"]


def test_core_imports_no_other_folder():
    for name, needed in IMPORTS.items():
        if folder(name) == "streaming_pipeline.core":
            assert {folder(other) for other in needed} <= {"streaming_pipeline.core"}, name


def test_neither_modules_nor_folders_form_a_circle():
    folders: dict[str, set[str]] = {}
    for name, needed in IMPORTS.items():
        folders.setdefault(folder(name), set()).update(folder(other) for other in needed)
    assert circle(IMPORTS) == []
    assert circle(folders) == []


def test_what_a_cluster_gets_knows_nothing_of_a_laptop():
    assert not [
        name for name, needed in IMPORTS.items() if name.startswith("streaming_pipeline") and any(n.startswith("laptop") for n in needed)
    ]


def test_the_runner_of_bundles_knows_nothing_of_this_pipeline():
    for name, needed in IMPORTS.items():
        if folder(name) in ("laptop.bundle", "laptop.jobs"):
            own = {"laptop", "laptop.bundle", "laptop.jobs", "laptop.interrupts"}
            assert {other for other in needed if folder(other) not in own} <= UTILITIES, name


def test_no_two_classes_have_one_name():
    names = [name for file in MODULES for name in re.findall(r"^class (\w+)", file.read_text(encoding="utf-8"), re.MULTILINE)]
    assert sorted(names) == sorted(set(names))


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
