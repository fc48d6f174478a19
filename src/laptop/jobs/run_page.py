"""The `index.html` page of a run: its tasks, their states, and links to whatever the run left in its folder."""

from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

from laptop.jobs.records import JobRun
from laptop.jobs.style import PAGE_CSS, page_environment

INDEX = "index.html"
EVENT_LOG = "spark-events"

_TEMPLATE = page_environment().from_string(
    """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ run.name }}: {{ run.state }}</title>
<style>{{ css | safe }}
.card { background: var(--card); border: 1px solid var(--line); border-radius: 8px; padding: 10px 18px; }
.card table { width: 100%; }
.card td:first-child, .card th:first-child { width: 34%; }
.card tr:last-child > * { border-bottom: 0; }
td.error { padding: 4px 0 12px; }
td.error pre { color: var(--bad); border-left: 3px solid var(--bad); padding-left: 12px; }
td.key { overflow-wrap: anywhere; }
.note { font-weight: 400; }
</style>
</head>
<body>
<main>
<h1>{{ run.name }}</h1>
<p class="facts"><span class="state {{ run.state }}">{{ run.state }}</span> · run {{ run.run_id }} ·
<time datetime="{{ run.started.isoformat() }}">{{ run.started.strftime("%Y-%m-%d %H:%M:%S") }} UTC</time> ·
{{ "%.1f" | format(run.seconds) }} s</p>
{% if run.error %}<p class="FAILED">{{ run.error }}</p>{% endif %}
<h2>Tasks</h2>
<div class="card scroll">
<table>
<thead><tr><th scope="col">Task</th><th scope="col">State</th><th scope="col">Started (UTC)</th><th scope="col" class="number">Seconds</th>
<th scope="col" class="number">Attempts</th><th scope="col" class="number">Rows</th></tr></thead>
<tbody>
{% for task, depth in tasks %}
<tr><th scope="row" style="padding-left: {{ depth * 22 }}px">
{% if task.html %}<a href="{{ task.html.name | urlencode }}">{{ task.key }}</a>{% else %}{{ task.key }}{% endif %}
{% if task.outcome %} <span class="faint">→ {{ task.outcome }}</span>{% endif %}
{% if task.note %}<div class="faint note">{{ task.note }}</div>{% endif %}</th>
<td><span class="state {{ task.state }}">{{ task.state }}</span></td>
<td>{{ task.started.strftime("%H:%M:%S") if task.started }}</td>
<td class="number">{{ "%.1f" | format(task.seconds) if task.started }}</td>
<td class="number">{{ task.attempts or "" }}</td>
<td class="number">{{ "{:,}".format(task.rows) if task.rows is not none }}</td></tr>
{% if task.error %}<tr><td colspan="6" class="error"><pre>{{ task.error | lines }}</pre></td></tr>{% endif %}
{% endfor %}
</tbody>
</table>
</div>
{% if files %}
<h2>Files of this run</h2>
<div class="card scroll">
<table>
<thead><tr><th scope="col">File</th><th scope="col" class="number">Size</th></tr></thead>
<tbody>
{% for name, href, size in files %}<tr><td class="key"><a href="{{ href }}">{{ name }}</a></td><td class="number">{{ size }}</td></tr>
{% endfor %}
</tbody>
</table>
</div>
{% endif %}
{% if parameters %}
<h2>Parameters</h2>
<div class="card scroll">
<table>
<thead><tr><th scope="col">Parameter</th><th scope="col">Value</th></tr></thead>
<tbody>
{% for name, value in parameters %}<tr><td>{{ name }}</td><td class="key"><code>{{ value }}</code></td></tr>
{% endfor %}
</tbody>
</table>
</div>
{% endif %}
</main>
</body>
</html>
"""
)


def write_run_page(run: JobRun, run_dir: Path, redact: Callable[[str], str]) -> Path:
    """Write `<run_dir>/index.html` for `run` and return its path; parameter values pass through `redact` first."""
    tasks = list(run.all_tasks())
    own = {INDEX} | {task.html.name for task, _ in tasks if task.html}
    left = [file.relative_to(run_dir) for file in run_dir.rglob("*") if file.is_file() and not file.name.startswith(".")]
    # Spark's event log as a folder: it is still being written, and gets another name when Spark ends.
    others = sorted({Path(EVENT_LOG) if file.parts[0] == EVENT_LOG else file for file in left})
    page = _TEMPLATE.render(
        run=run,
        css=PAGE_CSS,
        tasks=tasks,
        files=[(f.as_posix(), quote(f.as_posix()), _size(run_dir / f)) for f in others if f.as_posix() not in own],
        parameters=[(name, redact(value)) for name, value in sorted(run.parameters.items())],
    )
    path = run_dir / INDEX
    path.write_text(page, encoding="utf-8")
    return path


def _size(file: Path) -> str:
    if file.is_dir():
        return "folder"
    size = file.stat().st_size
    return f"{size:,} bytes" if size < 10_000 else f"{size / 1000:,.0f} kB"
