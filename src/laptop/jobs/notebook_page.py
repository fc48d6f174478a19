"""How a notebook's output looks: tables of data frames, and the page that keeps a run of a notebook, which needs no network."""

import contextlib
import functools
import json
import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from html import escape
from typing import Any

import nbformat
import numpy as np
import pandas as pd
import pyarrow as pa
from nbconvert.exporters.html import HTMLExporter
from nbconvert.exporters.templateexporter import TemplateExporter
from nbconvert.filters.highlight import Highlight2HTML
from pygments.formatters import HtmlFormatter
from pyspark.sql import DataFrame

from laptop.jobs.notebook_source import Cell
from laptop.jobs.run_page import INDEX
from laptop.jobs.style import PAGE_CSS
from streaming_pipeline.core.errors import UsageError
from streaming_pipeline.core.foreign_text import harmless
from streaming_pipeline.core.wording import plural

MAX_ROWS = 1000
"""A table shows this many rows, as in a workspace."""

_MAX_CELL_TEXT = 2000
_MAX_PRINTED = 1_000_000
_SHORT = 40
"""Texts of so many characters stay in one line."""


# ----------------------------------------------------------------------------------------------------------------- tables


def spark_table(frame: DataFrame) -> str:
    """The first rows of a Spark DataFrame, classic or Connect, as HTML. Raises `UsageError` for a streaming one."""
    if frame.isStreaming:
        raise UsageError("display of a streaming DataFrame is not offered on a laptop: write it with availableNow and display the table.")
    types_ = [field.dataType.simpleString() for field in frame.schema.fields]
    # Arrow rather than collect(): it brings timestamps with their zone, and the same under Spark Connect.
    table = frame.toDF(*(f"c{number}" for number in range(len(types_)))).limit(MAX_ROWS + 1).toArrow()
    columns = [_values(column) for column in table.columns]
    return _html_table(list(zip(frame.columns, types_, strict=True)), list(zip(*columns, strict=True)))


def _values(column: pa.ChunkedArray) -> list[Any]:
    try:
        return column.to_pylist()
    except UnicodeDecodeError:  # Spark strings may hold bytes that are no UTF-8
        return column.cast(pa.binary()).to_pylist()
    except (OverflowError, ValueError, pa.ArrowInvalid):  # and times may lie outside of the years that Python can name
        return [_value(one) for one in column]


def _value(one: pa.Scalar) -> Any:
    try:
        return one.as_py()
    except (OverflowError, ValueError, pa.ArrowInvalid):
        if not pa.types.is_timestamp(one.type):
            return repr(one)
        return str(np.datetime64(one.value, one.type.unit)).replace("T", " ")  # Arrow's own texts are wrong by 65,536 years


def pandas_table(frame: pd.DataFrame) -> str:
    """The first rows of a pandas DataFrame as HTML, without its index, as a workspace shows it."""
    head = frame.head(MAX_ROWS + 1)
    columns = [(str(name), str(dtype)) for name, dtype in zip(frame.columns, frame.dtypes, strict=True)]
    return _html_table(columns, [tuple(row) for row in head.astype(object).where(head.notna(), None).itertuples(index=False, name=None)])


def _html_table(columns: Sequence[tuple[str, str]], rows: Sequence[tuple[Any, ...]]) -> str:
    """At most `MAX_ROWS` rows as an HTML table, with types in the head and the number of rows below."""
    numeric = [re.match(r"((tiny|small|big)?int|float|double|decimal)\d*(\(|$)", kind.lower()) is not None for _, kind in columns]
    head = "".join(
        f'<th scope="col"{_css("number" * number)}>{escape(harmless(name))}<span>{escape(harmless(_short_type(kind)))}</span></th>'
        for (name, kind), number in zip(columns, numeric, strict=True)
    )
    body = "".join(
        "<tr>" + "".join(_cell_html(value, number) for value, number in zip(row, numeric, strict=True)) + "</tr>" for row in rows[:MAX_ROWS]
    )
    count = f"the first {MAX_ROWS:,} rows of more" if len(rows) > MAX_ROWS else plural(len(rows), "row")
    return f'<div class="table"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div><p class="count">{count}</p>'


def _short_type(kind: str) -> str:
    kind = f"{kind}, UTC" if kind == "timestamp" else kind
    return kind if len(kind) <= 40 else kind[:39] + "…"


def _cell_html(value: Any, number: bool) -> str:
    if value is None:
        return f'<td{_css("number" * number)}><span class="null">null</span></td>'
    text = _text(value)
    shown = harmless(text, _MAX_CELL_TEXT + 1) + (f" ({len(text):,} characters)" if len(text) > _MAX_CELL_TEXT else "")
    return f"<td{_css('number' if number else 'long' * (len(text) > _SHORT))}>{escape(shown)}</td>"


def _css(name: str) -> str:
    return f' class="{name}"' if name else ""


def _text(value: Any) -> str:
    """A value of a table as people read it: times in UTC, bytes as text or hexadecimal, nested values as JSON."""
    match value:
        case bool():
            return str(value).lower()
        case datetime():
            text = (value.astimezone(UTC).replace(tzinfo=None) if value.tzinfo else value).isoformat(sep=" ")
            return text[:-3] if text.endswith("000") and "." in text else text
        case bytes():
            with contextlib.suppress(UnicodeDecodeError):
                if (text := value.decode()).isprintable():
                    return text
            return "0x" + value.hex()
        case dict():
            return json.dumps({str(key): _json_value(item) for key, item in value.items()}, ensure_ascii=False)
        case list():
            return json.dumps(_json_value(value), ensure_ascii=False)
        case _:
            return str(value)


def _json_value(value: Any) -> Any:
    match value:
        case None | bool() | int() | float() | str():
            return value
        case dict():
            return {str(key): _json_value(item) for key, item in value.items()}
        case list() if value and all(isinstance(item, tuple) for item in value):  # Arrow's way to give a map
            return {_text(key): _json_value(item) for key, item in value}
        case list():
            return [_json_value(item) for item in value]
        case _:
            return _text(value)


# ------------------------------------------------------------------------------------------------------------------- page


def cell_node(cell: Cell, not_run: bool = False) -> nbformat.NotebookNode:
    """The cell as nbformat has it, for the page."""
    metadata = {"title": cell.title, "state": "not-run" if not_run else ""}
    if cell.kind == "md":
        return nbformat.v4.new_markdown_cell(cell.source, metadata=metadata)
    if cell.kind == "sql":
        metadata["magics_language"] = "sql"
    return nbformat.v4.new_code_cell(f"%run {cell.source}" if cell.kind == "run" else cell.source, metadata=metadata)


def _redact_output(output: nbformat.NotebookNode, redact: Callable[[str], str]) -> None:
    """Redact what one output says; pixels stay as they are."""
    if "text" in output:
        output.text = _printed(redact(output.text))
    if "traceback" in output:
        output.evalue, output.traceback = redact(output.evalue), [_printed(redact(line)) for line in output.traceback]
    for mime, content in output.get("data", {}).items():
        if isinstance(content, str) and mime not in ("image/png", "image/jpeg"):
            output.data[mime] = _printed(redact(content)) if mime == "text/plain" else redact(content)


def _printed(text: str) -> str:
    return harmless(text, _MAX_PRINTED, is_lines=True)


class _PageExporter(HTMLExporter):
    def from_notebook_node(self, nb: nbformat.NotebookNode, resources: Any = None, **kw: Any) -> tuple[str, Any]:
        """As its own class does, but for parsing the finished page once more to add alt texts: seconds for a large table."""
        self.register_filter("highlight_code", Highlight2HTML(pygments_lexer="ipython3", parent=self))
        return TemplateExporter.from_notebook_node(self, nb, resources, **kw)


def notebook_page(name: str, facts: dict[str, Any], nodes: Sequence[nbformat.NotebookNode], redact: Callable[[str], str]) -> str:
    """The page of a notebook that ran: `facts` are its state, started and seconds; the nodes' outputs are redacted on the way."""
    for node in nodes:
        for output in node.get("outputs", []):
            _redact_output(output, redact)
    metadata = {"title": name, "facts": facts, "index": INDEX}
    notebook = nbformat.v4.new_notebook(cells=nodes, metadata=metadata)
    return _exporter().from_notebook_node(notebook)[0]


@functools.cache
def _exporter() -> _PageExporter:
    """One for all pages: each would compile its templates anew, which takes longer than to fill them."""
    exporter = _PageExporter(
        template_name="basic", raw_template=_TEMPLATE, exclude_input_prompt=True, exclude_output_prompt=True, exclude_anchor_links=True
    )
    exporter.environment.globals["page_css"] = PAGE_CSS + _NOTEBOOK_CSS
    return exporter


_NOTEBOOK_CSS = (
    HtmlFormatter(style="default").get_style_defs(".highlight")
    + "\n@media (prefers-color-scheme: dark) {\n"
    + HtmlFormatter(style="github-dark").get_style_defs(".highlight")
    + "\n}\n"
    + """
.highlight { background: transparent !important; }
.cell { margin: 0 0 14px; }
.code { background: var(--card); border: 1px solid var(--line); border-radius: 8px; overflow: hidden; }
.code .source { background: var(--code); padding: 10px 64px 10px 14px; position: relative; }
.code .seconds { position: absolute; right: 12px; top: 9px; font-size: .8em; color: var(--faint); }
.code .outputs { padding: 4px 14px 10px; }
.code .outputs > div { margin-top: 8px; }
.failed { border-color: var(--bad); border-left-width: 4px; }
.not-run .source { opacity: .6; }
.cell-title { font-weight: 600; margin: 0 0 4px; }
.output_stderr pre { color: var(--busy); }
.output_error pre { color: var(--bad); }
.output_html { overflow-x: auto; }
.output_png img { max-width: 100%; height: auto; background: #fff; border-radius: 4px; }
.text_cell_render > :first-child { margin-top: .3em; }
.text_cell_render img { max-width: 100%; }
.text_cell_render code { background: var(--code); padding: 1px 4px; border-radius: 4px; }
.text_cell_render .highlight, .text_cell_render > pre { background: var(--code) !important; border-radius: 8px; padding: 10px 14px; }
.text_cell_render pre code { padding: 0; }
.table { overflow: auto; max-height: 480px; border: 1px solid var(--line); border-radius: 6px; width: fit-content; max-width: 100%; }
.table table { border-collapse: separate; border-spacing: 0; font-size: .88em; }
.table th, .table td { padding: 4px 12px; white-space: nowrap; }
.table td.long { white-space: normal; min-width: 20em; max-width: 460px; overflow-wrap: break-word; }
.table th { position: sticky; top: 0; background: var(--code); color: var(--text); white-space: nowrap; }
.table th span { display: block; font-weight: 400; font-size: .85em; color: var(--faint); }
.table tr:last-child td { border-bottom: 0; }
.null { color: var(--faint); font-style: italic; }
.count { margin: 4px 0 0; font-size: .85em; color: var(--faint); }
.ansi-bold { font-weight: bold; }
"""
)

_TEMPLATE = """{%- extends 'basic/index.html.j2' -%}
{%- block header -%}
{%- set facts = nb.metadata.facts -%}
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ nb.metadata.title | escape_html }}</title>
<style>{{ page_css }}</style>
</head>
<body>
<main>
<p class="faint"><a href="{{ nb.metadata.index }}">← all tasks of this run</a></p>
<h1>{{ nb.metadata.title | escape_html }}</h1>
<p class="facts"><span class="state {{ facts.state }}">{{ facts.state }}</span> · {{ facts.started }} ·
{{ "%.1f" | format(facts.seconds) }} s</p>
{% endblock header %}

{% block codecell %}
<section class="cell">
{%- if cell.metadata.title %}<h2 class="cell-title">{{ cell.metadata.title | escape_html }}</h2>{% endif %}
<div class="code {{ cell.metadata.state }}">
<div class="source">
{%- if cell.metadata.seconds is defined and cell.metadata.seconds >= 0.1 -%}
<span class="seconds">{{ "%.1f" | format(cell.metadata.seconds) }} s</span>{% endif -%}
{{ cell.source | highlight_code(metadata=cell.metadata) | clean_html }}</div>
{%- if cell.metadata.state == "not-run" %}<div class="outputs faint">Not run</div>{% endif %}
{%- if cell.outputs %}<div class="outputs">{{ self.outputs() }}</div>{% endif %}
</div>
</section>
{% endblock codecell %}

{% block markdowncell scoped %}
<section class="cell text_cell_render">
{%- if cell.metadata.title %}<h2 class="cell-title">{{ cell.metadata.title | escape_html }}</h2>{% endif %}
{{ cell.source | markdown2html }}
</section>
{% endblock markdowncell %}

{% block stream_stderr -%}
<div class="output_stderr"><pre>{{- output.text | ansi2html -}}</pre></div>
{%- endblock stream_stderr %}

{% block footer %}
</main>
</body>
</html>
{% endblock footer %}
"""
