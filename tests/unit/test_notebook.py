"""Notebooks in source format: reading, running, and the page that is kept."""

import os
import re
import sys
from html import unescape
from pathlib import Path

import pytest
from notebook_cases import run, write

from laptop.jobs.dbutils import DBUtils
from laptop.jobs.notebook_source import Cell, check_notebook, parse_notebook
from laptop.jobs.records import NotebookResult
from streaming_pipeline.core.errors import UsageError

# ---- reading


def test_cells_have_kind_source_line_and_title(tmp_path):
    notebook = write(
        tmp_path,
        "demo",
        "# MAGIC %md\n# MAGIC # Title\n# MAGIC\n# MAGIC text",
        "# DBTITLE 1,Load\nx = 1\n\nx + 1",
        "# MAGIC %sql SELECT 1",
        "# MAGIC %run ./_library",
        "# MAGIC %python\n# MAGIC if x:\n# MAGIC     y = 2",
        "",
        "# MAGIC %pip install a\n# MAGIC %pip install b",
    )
    assert parse_notebook(notebook) == [
        Cell("md", "# Title\n\ntext", 3),
        Cell("python", "x = 1\n\nx + 1", 10, title="Load"),
        Cell("sql", "SELECT 1", 16),
        Cell("run", "./_library", 20),
        Cell("python", "if x:\n    y = 2", 25),
        Cell("pip", "%pip install a\n%pip install b", 34),
    ]
    lines = notebook.read_text().splitlines()
    assert lines[10 - 1] == "x = 1"
    assert lines[25 - 1] == "# MAGIC if x:"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("print(1)\n", "its first line must be '# Databricks notebook source'"),
        ("", "its first line must be"),
        ("# Databricks notebook source\n# MAGIC %sh\n# MAGIC ls\n", "line 2: magic '%sh' is not offered on a laptop"),
        ("# Databricks notebook source\n# MAGIC hello\n", "line 2: magic 'hello' is not offered"),
        ("# Databricks notebook source\nx = 1\n# MAGIC %sql\n", "line 3: a cell is either all '# MAGIC' lines or none"),
        ("# Databricks notebook source\n# MAGIC %sql\nx = 1\n", "line 3: a cell is either all"),
        ("# Databricks notebook source\n# MAGIC %pip install a\n# MAGIC import b\n", "line 3: a %pip cell holds %pip lines only"),
        ('# Databricks notebook source\n# MAGIC %run ./x $a="1"\n', "line 2: %run takes one notebook's path"),
    ],
)
def test_what_is_no_notebook_is_refused_with_its_line(tmp_path, text, message):
    path = tmp_path / "demo.py"
    path.write_text(text)
    with pytest.raises(UsageError, match=re.escape(message)) as error:
        parse_notebook(path)
    assert str(path) in str(error.value)


def test_check_follows_run_and_refuses_what_is_missing_or_circular(tmp_path):
    write(tmp_path, "a", "# MAGIC %run ./sub/b")
    with pytest.raises(UsageError, match=r"a\.py, line 2: %run \./sub/b: there is no such notebook"):
        check_notebook(tmp_path / "a")
    write(tmp_path / "sub", "b", "x = 1", '# MAGIC %run "../a"')
    with pytest.raises(UsageError, match=r"circle: a\.py → b\.py → a\.py"):
        check_notebook(tmp_path / "a")
    with pytest.raises(UsageError, match="does not exist"):
        check_notebook(tmp_path / "c")


# ---- the page


def test_page_shows_code_values_prints_markdown_and_errors_in_order(tmp_path):
    result, page = run(
        tmp_path,
        "# MAGIC %md\n# MAGIC # A *heading*\n# MAGIC [a link](https://example.com/)",
        "import sys\nprint('first')\nprint('second', file=sys.stderr)\n'the value'",
        "displayHTML('<p id=own>shown</p>')\ndisplay({'a': 1})",
    )
    assert result == NotebookResult(exit_value=None, error=None)
    assert "<title>demo</title>" in page
    shown = [
        "A <em>heading</em>",
        'href="https://example.com/"',
        "first",
        "second",
        ">'the value'<",
        "<p id=own>shown</p>",
        "{'a': 1}",
    ]
    body = unescape(page[page.index("<body>") :])
    positions = [body.rindex(text) for text in shown]
    assert positions == sorted(positions)
    assert '<span class="kn">import</span>' in body  # highlighted
    assert "SUCCESS" in body


def test_page_needs_no_network_and_tells_no_machine_path(tmp_path):
    result, page = run(tmp_path, "import matplotlib.pyplot as plt\nplt.plot([1, 2])", "def f():\n    return 1 / 0\nf()")
    assert result.error
    assert not re.search(r"""(src|href)\s*=\s*["'](https?:)?//""", page)
    assert "<script" not in page
    assert "@import" not in page
    assert "url(" not in page
    assert str(tmp_path) not in page
    assert str(Path(__file__).parents[2]) not in page


def test_figures_are_kept_as_pictures_once(tmp_path):
    _, page = run(
        tmp_path,
        "import matplotlib.pyplot as plt\nfig, ax = plt.subplots()\nax.plot([1, 2]);",
        "other, ax = plt.subplots()\nax.bar([1], [2])\ndisplay(other)",
        "plt.plot([3, 1])\nplt.show()\nprint('behind')",
    )
    assert page.count("data:image/png;base64,") == 3
    assert page.count('alt="Picture drawn by this cell"') == 3


def test_pandas_frames_show_at_most_a_thousand_rows(tmp_path):
    _, page = run(tmp_path, "import pandas as pd\ndisplay(pd.DataFrame({'n<': range(1001), 't': pd.Timestamp('2025-01-01T02:00+02:00')}))")
    assert page.count("<tr>") == 1001
    assert "the first 1,000 rows of more" in page
    assert "n&lt;<span>int64</span>" in page
    assert "<td>2025-01-01 00:00:00</td>" in page


def test_secrets_are_redacted_wherever_they_come_out(tmp_path):
    secrets = {"KAFKA_API_SECRET": "hunter<2>&\"'", "SMTP_PORT": "587"}
    get = "s = dbutils.secrets.get('scope', 'KAFKA_API_SECRET')\n"
    result, page = run(
        tmp_path,
        get + "print(s, end='')\nprint(s[:3] + s[3:])",
        get + "import html, pandas as pd\ndisplay(pd.DataFrame({'a': [s]}))\ndisplayHTML(html.escape(s))\ns",
        get + "print(dbutils.secrets.get('scope', 'SMTP_PORT'))\nraise ValueError(s)",
        secrets=secrets,
    )
    assert "hunter" not in page + result.error.message + result.error.details
    assert page.count("[REDACTED]") == 6
    assert ">587" in page  # too short to be redacted, as in a workspace


# ---- running


def test_a_failing_cell_stops_the_notebook_and_is_told_with_its_line(tmp_path):
    result, page = run(tmp_path, "x = 1", "def half(n):\n    return n / 0\n\nhalf(x)", "print('never')")
    error = result.error
    assert error.notebook.name == "demo.py"
    assert error.source == "def half(n):\n    return n / 0\n\nhalf(x)"
    assert error.line == 7
    assert error.message == "ZeroDivisionError: division by zero"
    assert not error.users_mistake
    assert error.details.splitlines() == [
        "Traceback (most recent call last):",
        '  File "notebooks/demo.py", line 9, in <module>',
        "    half(x)",
        '  File "notebooks/demo.py", line 7, in half',
        "    return n / 0",
        "ZeroDivisionError: division by zero",
    ]
    assert page.count("Not run") == 1
    assert "FAILED" in page
    assert "ZeroDivisionError" in page


def test_a_users_mistake_is_told_by_its_message_alone(tmp_path):
    result, page = run(tmp_path, "from streaming_pipeline.core.settings import Settings\nSettings.from_parameters({})")
    assert result.error.users_mistake
    assert result.error.message == result.error.details
    assert result.error.message.startswith("Parameter 'catalog' is empty")
    assert "Traceback (most" not in page


def test_a_tracebacks_frames_are_the_notebooks_and_the_projects(tmp_path):
    result, _ = run(
        tmp_path, "import json\nfrom streaming_pipeline.core.settings import Settings\nSettings(catalog='main', contamination='x')"
    )
    assert [line for line in result.error.details.splitlines() if "File" in line] == [
        '  File "notebooks/demo.py", line 4, in <module>',
        next(line for line in result.error.details.splitlines() if '"streaming_pipeline/core/settings.py"' in line),
    ]


@pytest.mark.parametrize(("code", "line"), [("x = 1\nx = = 2", 3), ("print(1)\n!ls", 3), ("%time x", 2), ("raise SystemExit(1)", 2)])
def test_syntax_errors_shell_lines_and_sys_exit_fail(tmp_path, code, line):
    result, _ = run(tmp_path, code)
    assert result.error.line == line
    assert re.match("SyntaxError|SystemExit", result.error.message.splitlines()[-1])
    assert str(tmp_path) not in result.error.details


def test_run_brings_another_notebooks_names_in_and_its_errors_name_it(tmp_path):
    write(tmp_path / "notebooks" / "lib", "_one", "# MAGIC %run ./_two", "def one():\n    return two() + 1")
    write(tmp_path / "notebooks" / "lib", "_two", "def two():\n    return base / divisor\nprint('from two')")
    result, page = run(tmp_path, "base, divisor = 2, 1", "# MAGIC %run ./lib/_one", "print('one is', one())", "divisor = 0\none()")
    assert "from two" in page
    assert "one is 3.0" in page
    assert [line.strip() for line in result.error.details.splitlines() if "File" in line] == [
        'File "notebooks/demo.py", line 15, in <module>',
        'File "notebooks/lib/_one.py", line 7, in one',
        'File "notebooks/lib/_two.py", line 3, in two',
    ]

    write(tmp_path / "notebooks" / "lib", "_two", "x = 1", "1 / 0")
    result, _ = run(tmp_path, "# MAGIC %run ./lib/_one")
    assert (result.error.notebook.name, result.error.line, result.error.source) == ("_two.py", 6, "1 / 0")


def test_pip_is_noted_and_not_run(tmp_path):
    result, page = run(tmp_path, "# MAGIC %pip install ../dist/*.whl")
    assert result.error is None
    assert "Nothing to install: the packages are already here." in page


def test_exit_ends_a_notebook_well_even_inside_a_try(tmp_path):
    result, page = run(tmp_path, "try:\n    dbutils.notebook.exit('nothing new')\nexcept Exception:\n    pass", "1 / 0")
    assert result == NotebookResult(exit_value="nothing new", error=None)
    assert "The notebook ended here with: nothing new" in page
    assert "Not run" in page


def test_ctrl_c_gets_out_with_the_page_written_and_the_process_as_before(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = (os.getcwd(), list(sys.path), sys.modules["__main__"], sys.stdout, hasattr(__builtins__, "__IPYTHON__"))
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, "print('started')\nraise KeyboardInterrupt", "print('never')")
    assert (os.getcwd(), list(sys.path), sys.modules["__main__"], sys.stdout, hasattr(__builtins__, "__IPYTHON__")) == before
    page = (tmp_path / "demo.html").read_text()
    assert "CANCELED" in page
    assert "Interrupted" in page
    assert "Not run" in page


def test_what_fails_while_an_interrupt_is_on_its_way_is_still_the_interrupt(tmp_path):
    cell = "try:\n    raise KeyboardInterrupt\nfinally:\n    raise OSError('the connection was left')"
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, cell, "print('never')")


def test_a_notebook_has_its_folder_and_a_fresh_namespace(tmp_path):
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "notebooks" / "beside_it.py").write_text("NAME = 'found'\n")
    result, page = run(tmp_path, "import os\nimport beside_it\nleft_over = 1\nprint(os.path.basename(os.getcwd()), beside_it.NAME)")
    assert "notebooks found" in page
    assert result.error is None
    result, _ = run(tmp_path, "left_over")
    assert result.error.message.startswith("NameError")
    assert "beside_it" in sys.modules
    del sys.modules["beside_it"]


# ---- dbutils


def test_parameters_win_over_the_widgets_defaults(tmp_path):
    widgets = DBUtils(parameters={"catalog": "dev", "count": "5"}).widgets
    widgets.text("catalog", "main", "Catalog")
    widgets.text("mode", "full")
    assert widgets.get("catalog") == "dev"
    assert widgets.getAll() == {"catalog": "dev", "mode": "full", "count": "5"}
    with pytest.raises(UsageError, match="'schema' does not exist"):
        widgets.get("schema")
    with pytest.raises(UsageError, match="dropdown is not offered"):
        widgets.dropdown("mode", "slow", ["full", "fast"])


def test_task_values_go_from_task_to_task_as_json():
    values = {}
    first = DBUtils(task_key="first", task_values=values).jobs.taskValues
    second = DBUtils(task_key="second", task_values=values).jobs.taskValues
    first.set("rows", {"n": [1, 2]})
    assert second.get("first", "rows") == {"n": [1, 2]}
    assert second.get(taskKey="first", key="other", default=0) == 0
    with pytest.raises(UsageError, match="'other' of task 'first' is not set"):
        second.get("first", "other", debugValue=3)
    with pytest.raises(UsageError, match="cannot be kept as JSON"):
        first.set("rows", object())
    with pytest.raises(UsageError, match="at most 48 KiB"):
        first.set("rows", "x" * 50_000)


def test_secrets_are_listed_and_read_and_a_missing_one_is_named():
    secrets = DBUtils(secrets={"B": "2", "A": "1"}).secrets
    assert [secret.key for secret in secrets.list("any")] == ["A", "B"]
    assert secrets.get("any", "A") == "1"
    with pytest.raises(UsageError, match=r"Secret 'C' of scope 'any' does not exist: put C=… into \.env"):
        secrets.get("any", "C")


@pytest.mark.parametrize("path", ["fs", "library", "notebook.run", "widgets.multiselect", "jobs.runs", "secrets.getBytes"])
def test_what_is_not_offered_is_named(path):
    *groups, name = path.split(".")
    group = DBUtils()
    for part in groups:
        group = getattr(group, part)
    assert not hasattr(group, name)
    with pytest.raises(UsageError, match=rf"dbutils\.{re.escape(path)} is not offered on a laptop"):
        getattr(group, name)
