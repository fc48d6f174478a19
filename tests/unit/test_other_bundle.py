"""The runner runs a bundle that has nothing to do with this project, and brings nothing of this project with it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

BUNDLE = Path(__file__).parents[1] / "other_bundle"
RUN = """
import io, json, sys
from pathlib import Path
from types import SimpleNamespace

from rich.console import Console

from laptop.bundle.load import load_bundle
from laptop.jobs.reporter import Reporter
from laptop.jobs.runner import run_job

spark = SimpleNamespace(streams=SimpleNamespace(active=[]))  # none of its notebooks asks for Spark
run = run_job(
    load_bundle(Path(sys.argv[1]), sys.argv[2], local_home=Path(sys.argv[3])), "weather_report", parameters={}, secrets={}, run_id="1",
    spark_for_task=lambda _: spark, run_dir=Path(sys.argv[3]) / "run", reporter=Reporter(Console(file=io.StringIO())),
)
states = {task.key: [task.state, task.outcome, task.rows, task.note] for task, _ in run.all_tasks()}
print(json.dumps([run.state, states, sorted(name for name in sys.modules if name.startswith("streaming_pipeline."))]))
"""


@pytest.mark.parametrize(
    ("target", "after_the_condition"),
    [
        ("dev", {"warn": ["EXCLUDED", "", None, ""], "praise": ["SUCCESS", "", None, "a fine day"]}),
        ("winter", {"warn": ["SUCCESS", "", None, ""], "warn_all": ["SUCCESS", "", 1, ""], "praise": ["EXCLUDED", "", None, ""]}),
    ],
)
def test_another_bundles_job_runs(tmp_path, target, after_the_condition):
    line = [sys.executable, "-c", RUN, str(BUNDLE), target, str(tmp_path)]
    done = subprocess.run(line, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    state, tasks, of_ours = json.loads(done.stdout)
    assert state == "SUCCESS"
    is_cold = ["SUCCESS", str(target == "winter").lower(), None, ""]
    assert tasks == {"measure": ["SUCCESS", "", None, ""], "is_cold": is_cold, **after_the_condition}
    assert {name.split(".")[1] for name in of_ours} == {"core"}
    page = (tmp_path / "run" / "index.html").read_text()
    assert "Weather report" in page
    assert target == "dev" or "Stay at home in Tromsø" in (tmp_path / "run" / "warn.warn_all.html").read_text()
