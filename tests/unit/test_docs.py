"""The pages of docs/ say what the code and the bundle say. (That their queries run is in test_pipeline.py.)"""

import re
import shlex
import tomllib
from pathlib import Path

import generate
import pytest
from bronze_rows import shipped_contract

from laptop.bundle.load import load_bundle
from laptop.cli import _parser
from streaming_pipeline.alerts.findings import KINDS
from streaming_pipeline.core.contract import load_contract
from streaming_pipeline.core.tables import all_tables
from streaming_pipeline.queries import query
from streaming_pipeline.tasks import TASKS

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = [*sorted(ROOT.glob("*.md")), *sorted(DOCS.glob("*.md"))]


def page(name: str) -> str:
    return (DOCS / name).read_text(encoding="utf-8")


def headings(text: str) -> list[str]:
    return re.findall(r"^#+ (.+)$", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL), re.MULTILINE)


def anchors(text: str) -> set[str]:
    """The headings as GitHub links to them."""
    return {re.sub(r"[^\w\- ]", "", heading).lower().replace(" ", "-") for heading in headings(text)}


def test_what_follows_from_code_and_configuration_is_as_it_is_made():
    made = generate.pages()
    assert {path.name for path in made if path.suffix == ".md"} == {"architecture.md", "cost.md", "parameters.md", "tables.md"}
    assert {path.stem for path in made if path.suffix == ".py"} == set(TASKS)
    for path, text in made.items():
        assert path.read_text(encoding="utf-8") == text, f"{path.name} is behind: run `uv run python docs/generate.py`"


def test_the_docs_say_what_each_parameter_of_each_job_means():
    rows = re.findall(r"^\| (?:`(\w+)` \| )?`(\w+)` \| .*? \| (.*?) \|$", page("parameters.md"), re.MULTILINE)
    assert all(meaning for _, _, meaning in rows)
    named = {name for _, name, _ in rows}
    assert named == {parameter["name"] for job in load_bundle(ROOT).jobs.values() for parameter in job["parameters"]}


def test_the_graph_in_the_docs_is_the_jobs():
    job = load_bundle(ROOT).job("full_streaming_pipeline")
    drawn = re.findall(r"^ +t_(\w+) (?:-->|-\.->)(?:\|(\w+)\|)? t_(\w+)$", page("architecture.md"), re.MULTILINE)
    depends = [
        (before["task_key"], before.get("outcome", ""), task["task_key"]) for task in job["tasks"] for before in task.get("depends_on", [])
    ]
    assert sorted(drawn) == sorted(depends) and len(drawn) > 10


def test_the_dictionary_has_every_column():
    text = page("tables.md")
    for table in all_tables(shipped_contract()):
        section = text.split(f"\n## {table.name}\n")[1].split("\n## ")[0]
        assert re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE) == table.column_names
        assert f"One row per {table.grain}." in section


def test_the_architecture_names_every_table_and_every_part_of_the_library():
    written, library = page("architecture.md").split("## Which task writes which table")[1].split("## Where things are")
    assert re.findall(r"^\| `(\w+)` \|", written, re.MULTILINE) == [table.name for table in all_tables(shipped_contract())]
    for package in ("streaming_pipeline", "laptop"):
        rows = library.split(f"| in `src/{package}/` |")[1].split("\n\n")[0]
        named = set(re.findall(r"`(\w+)`", rows))
        source = ROOT / "src" / package
        parts = {path.stem for path in source.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()} - {"__init__"}
        assert parts <= named, package


@pytest.mark.parametrize("told", [*KINDS, "DEAD", "Unhealthy", "Unknown"])
def test_the_runbook_says_for_each_finding_and_state_what_to_look_at(told):
    text = page("runbook.md")
    assert told in headings(text) and f"](#{told.lower()})" in text
    assert "```sql\nSELECT" in text.split(f"\n## {told}\n")[1].split("\n## ")[0]


def test_the_readme_is_read_in_a_few_minutes():
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 130 and max(map(len, lines)) <= 120


@pytest.mark.parametrize("page_name", ["laptop.md", "adapt.md"])
def test_the_commands_of_the_pages_are_commands(page_name):
    lines = re.findall(r"^ *uv run streaming-pipeline ([^#\n]+)", page(page_name), re.MULTILINE)
    assert len(lines) >= 5
    for line in lines:
        _parser().parse_args(shlex.split(line))


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_a_link_leads_somewhere(path):
    text = path.read_text(encoding="utf-8")
    for target in re.findall(r"\]\((?!https?:)([^)\s]+)\)", text):
        file, _, anchor = target.partition("#")
        other = (path.parent / file) if file else path
        assert other.exists(), target
        assert not anchor or anchor in anchors(other.read_text(encoding="utf-8")), target


def test_the_pages_show_shared_queries_as_they_are():
    for name in ("run_cost", "billed_cost"):
        assert f"{query(name)}\n```" in page("cost.md")
    for name in ("alerts", "drift", "monitor_logs", "spikes_and_silences", "strange_events"):
        assert f"```sql\n{query(name)}\n```" in page("runbook.md")


def test_the_second_example_is_a_contract():
    assert load_contract(ROOT / "examples" / "sensors" / "event_contract.yml").id_field == "reading_id"


def test_the_version_is_that_of_the_changelog():
    newest = headings((ROOT / "CHANGELOG.md").read_text(encoding="utf-8"))[1]
    for file in (ROOT / "pyproject.toml", ROOT / "src" / "laptop" / "pyproject.toml"):
        assert tomllib.loads(file.read_text(encoding="utf-8"))["project"]["version"] == newest
