"""Writes the parts of these pages, and of the notebooks, that follow from code and configuration: `uv run python docs/generate.py`.

Such a part stands between `<!-- generated: name -->` and `<!-- end -->`; all else is written by hand.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from laptop.bundle.load import load_bundle
from streaming_pipeline.core.contract import load_contract
from streaming_pipeline.core.prices import Prices, load_prices
from streaming_pipeline.core.tables import Table, all_tables
from streaming_pipeline.tasks import SETTINGS, TASKS, Task

DOCS = Path(__file__).resolve().parent
ROOT = DOCS.parent
_PART = re.compile(r"(<!-- generated: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)

START_MINUTES = 5
"""A job cluster costs while it starts."""
RUN_MINUTES = (2, 5, 15, 30, 50)
HOURS_A_MONTH = 720
FORGOTTEN_HOURS = 62
"""Friday 18:00 to Monday 8:00."""


def markdown_table(header: list[str], rows: list[list[str]]) -> str:
    """A table as Markdown writes it."""
    lines = [header, ["---"] * len(header), *rows]
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines)


def dictionary(tables: list[Table]) -> str:
    """Every table with its grain, its layout and its columns."""
    index = markdown_table(["table", "one row per"], [[f"[{table.name}](#{table.name})", table.grain] for table in tables])
    return index + "".join(f"\n## {table.name}\n\n{_layout(table)}\n\n{_columns(table)}" for table in tables)


def _layout(table: Table) -> str:
    said = [f"One row per {table.grain}."]
    if table.partition_by:
        said.append(f"Partitioned by `{table.partition_by}`.")
    if table.statistics_on:
        said.append(f"File statistics on {', '.join(f'`{name}`' for name in table.statistics_on)}.")
    if table.history_days:
        said.append(f"Can be read as it was for {table.history_days} days.")
    return " ".join(said)


def _columns(table: Table) -> str:
    return markdown_table(["column", "type", "what it holds"], [[f"`{name}`", f"`{kind}`", text] for name, kind, text in table.columns])


def task_graph(job: dict[str, Any]) -> str:
    """The job's tasks and what each waits for, as a Mermaid flowchart; dotted where a task runs however the other ended."""
    lines = ["flowchart TD"]
    for task in job["tasks"]:
        kind = next(kind for kind in ("notebook_task", "condition_task", "run_job_task") if kind in task)
        left, right = {"notebook_task": "[]", "condition_task": "{}", "run_job_task": ("[[", "]]")}[kind]
        rule = f"<br/>run_if {task['run_if']}" if "run_if" in task else ""
        lines.append(f'    t_{task["task_key"]}{left}"{task["task_key"]}{rule}"{right}')
    for task in job["tasks"]:
        arrow = "-.->" if task.get("run_if") == "ALL_DONE" else "-->"
        for before in task.get("depends_on", []):
            label = f"|{before['outcome']}|" if "outcome" in before else ""
            lines.append(f"    t_{before['task_key']} {arrow}{label} t_{task['task_key']}")
    return "```mermaid\n" + "\n".join(lines) + "\n```\n"


def parameters(jobs: Sequence[dict[str, Any]]) -> str:
    """The settings that the tasks of these jobs take: the main job's, and those of the training that it may start."""
    taken = {one.name for job in jobs for task in tasks_of(job) for one in task.parameters}
    rows = [[f"`{one.name}`", _code(one.text), one.meaning] for name, one in SETTINGS.items() if name in taken]
    return markdown_table(["parameter", "default", "meaning"], rows)


def own_parameters(jobs: dict[str, dict[str, Any]]) -> str:
    """What the other jobs take besides."""
    rows = []
    for key, job in sorted(jobs.items()):
        of_the_job = {parameter["name"] for parameter in job["parameters"]}
        own = [one for task in tasks_of(job) for one in task.own if one.name in of_the_job]
        rows += [[f"`{key}`", f"`{one.name}`", _code(one.text), one.meaning] for one in own]
    return markdown_table(["job", "parameter", "default", "meaning"], rows)


def tasks_of(job: dict[str, Any]) -> list[Task]:
    """The tasks of a job that have a notebook."""
    return [TASKS[Path(task["notebook_task"]["notebook_path"]).stem] for task in job["tasks"] if "notebook_task" in task]


def _code(text: str) -> str:
    return f"`{text}`" if text else ""


def with_parameters(notebook: str, task: Task) -> str:
    """A notebook with the table at its head made anew."""
    rows = "".join(f"# MAGIC | `{one.name}` | {one.meaning} |\n" for one in task.parameters)
    return re.sub(r"(# MAGIC \|---\|---\|\n)(?:# MAGIC \|.*\n)*", lambda found: found[1] + rows, notebook)


def comparison(prices: Prices, node_type: str, workers: int) -> str:
    """What a month costs, by how long a run takes and how the job runs."""
    cluster, serverless = prices.per_hour(node_type, workers), prices.per_hour("serverless", 0)
    machine, unit = prices.machines[node_type], prices.currency

    def money(amount: float) -> str:
        return f"{amount:,.0f}"

    rows = [
        [
            str(minutes),
            money(HOURS_A_MONTH * (START_MINUTES + minutes) / 60 * cluster),
            money(HOURS_A_MONTH * minutes / 60 * serverless),
            money(HOURS_A_MONTH * cluster),
            money(HOURS_A_MONTH * serverless),
        ]
        for minutes in RUN_MINUTES
    ]
    header = ["a run takes, minutes", "hourly, job cluster", "hourly, serverless", "continuous, job cluster", "continuous, serverless"]
    forgotten = prices.per_hour(node_type, 1) * FORGOTTEN_HOURS
    dearer = serverless - cluster
    until = f"while a run takes less than {START_MINUTES * cluster / dearer:.0f} minutes" if dearer > 0 else "however long a run takes"
    return (
        f"One hour of `{node_type}` with {workers} worker{'' if workers == 1 else 's'}: "
        f"{machine.vm:g} + {machine.dbu:g} + {workers} × ({prices.spot_factor:g} × {machine.vm:g} + {machine.dbu:g}) "
        f"= {cluster:.3f} {unit}; of serverless: {serverless:.3f} {unit}. A month, in {unit}:\n\n"
        f"{markdown_table(header, rows)}\n"
        f"On a job cluster hourly runs cost less than a continuous job while a run takes less than {60 - START_MINUTES} minutes. Hourly on "
        f"serverless costs less than on a job cluster {until}.\n\n"
        f"An exploration cluster that runs on from Friday evening to Monday morning ({FORGOTTEN_HOURS} hours): {money(forgotten)} {unit} "
        "at these rates, and more at those of all-purpose compute; one that stops itself after half an hour: "
        f"{forgotten / FORGOTTEN_HOURS / 2:.2f} {unit}.\n"
    )


def parts() -> dict[str, str]:
    """Every part by its name."""
    bundle = load_bundle(ROOT)
    job = bundle.job("full_streaming_pipeline")
    cluster = job["job_clusters"][0]["new_cluster"]
    contract = load_contract(ROOT / "config" / "event_contract.yml")
    prices = load_prices(ROOT / "config" / "prices.yml")
    return {
        "dictionary": dictionary(all_tables(contract)),
        "task_graph": task_graph(job),
        "parameters": parameters([job, bundle.job("train_anomaly_detector")]),
        "own_parameters": own_parameters(bundle.jobs),
        "comparison": comparison(prices, cluster["node_type_id"], cluster["autoscale"]["min_workers"]),
    }


def renewed(text: str, made: dict[str, str]) -> str:
    """A page with its generated parts put in anew."""
    return _PART.sub(lambda found: found[1] + made[found[2]] + found[3], text)


def pages() -> dict[Path, str]:
    """The pages and notebooks that have generated parts, each with its text as it should be."""
    made, found = parts(), {}
    for page in sorted(DOCS.glob("*.md")):
        text = page.read_text(encoding="utf-8")
        if _PART.search(text):
            found[page] = renewed(text, made)
    for name, task in TASKS.items():
        notebook = ROOT / "notebooks" / f"{name}.py"
        found[notebook] = with_parameters(notebook.read_text(encoding="utf-8"), task)
    return found


if __name__ == "__main__":
    for page, text in pages().items():
        page.write_text(text, encoding="utf-8")
        print(page.relative_to(ROOT))
