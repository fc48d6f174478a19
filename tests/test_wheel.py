"""The wheel that a deployment ships: installable beside a Databricks runtime without replacing anything of it."""

import os
import re
import subprocess
import sys
import sysconfig
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
# uv takes the environment that it is started in for its own unless told otherwise.
OUTSIDE = {key: value for key, value in os.environ.items() if key not in ("VIRTUAL_ENV", "PYTHONPATH", "UV_PROJECT_ENVIRONMENT")}


def run(*command: str, cwd: Path) -> str:
    done = subprocess.run(command, cwd=cwd, env=OUTSIDE, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """Built by the bundle's own command."""
    folder = tmp_path_factory.mktemp("wheel")
    run("uv", "build", "--wheel", "--out-dir", str(folder), str(ROOT), cwd=folder)
    [built] = folder.glob("*.whl")
    return built


def test_it_requires_ranges_of_what_a_runtime_lacks_and_nothing_of_what_it_has(wheel):
    with zipfile.ZipFile(wheel) as archive:
        [name] = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        metadata = Parser().parsestr(archive.read(name).decode())
    requirements = metadata.get_all("Requires-Dist")
    assert {re.match(r"[\w.-]+", requirement)[0] for requirement in requirements} == {"confluent-kafka", "python-dotenv", "pyyaml"}
    assert all(">=" in requirement and "<" in requirement and "==" not in requirement for requirement in requirements)


def test_it_holds_every_file_of_the_package(wheel):
    package = ROOT / "src" / "streaming_pipeline"
    wanted = {
        path.relative_to(package.parent).as_posix() for path in package.rglob("*") if path.is_file() and "__pycache__" not in path.parts
    }
    with zipfile.ZipFile(wheel) as archive:
        assert wanted <= set(archive.namelist())


def test_it_imports_outside_the_repository_with_what_a_runtime_brings(wheel, tmp_path):
    run("uv", "venv", "--python", sys.executable, "venv", cwd=tmp_path)
    python = next(path for path in (tmp_path / "venv/bin/python", tmp_path / "venv/Scripts/python.exe") if path.exists())
    run("uv", "pip", "install", "--python", str(python), str(wheel), cwd=tmp_path)
    # Spark, MLflow and scikit-learn come behind the environment's own packages, as from a runtime. (This project's editable install
    # is a .pth file there, which a path that is only appended does not read.)
    with zipfile.ZipFile(wheel) as archive:
        files = [name for name in archive.namelist() if name.startswith("streaming_pipeline/") and name.endswith(".py")]
    shipped = [name.removesuffix(".py").removesuffix("/__init__").replace("/", ".") for name in files]
    beside_local = [name for name in shipped if not name.startswith(("streaming_pipeline.local", "streaming_pipeline.cli"))]
    check = f"""
import importlib, sys
from streaming_pipeline.settings import Settings
assert Settings.from_parameters({{"catalog": "main"}}).schema == "streaming"

sys.path.append({sysconfig.get_path("purelib")!r})
for name in {beside_local}:
    importlib.import_module(name)
assert "streaming_pipeline.local" not in sys.modules, "only the command line and tests may import streaming_pipeline.local"
print(sys.modules["streaming_pipeline"].__file__)
"""
    imported = run(str(python), "-I", "-c", check, cwd=tmp_path)
    assert Path(imported.strip()).is_relative_to(tmp_path.resolve()), imported
