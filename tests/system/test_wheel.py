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

ROOT = Path(__file__).resolve().parents[2]
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
    assert {re.match(r"[\w.-]+", requirement)[0] for requirement in requirements} == {"confluent-kafka", "pyyaml"}
    assert all(">=" in requirement and "<" in requirement and "==" not in requirement for requirement in requirements)


def test_it_holds_every_file_of_the_package_and_nothing_of_a_laptop(wheel):
    package = ROOT / "src" / "streaming_pipeline"
    wanted = {
        path.relative_to(package.parent).as_posix() for path in package.rglob("*") if path.is_file() and "__pycache__" not in path.parts
    }
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}
        metadata = {name.rpartition("/")[2] for name in archive.namelist() if ".dist-info/" in name}
    assert held == wanted
    assert "entry_points.txt" not in metadata, "a command that could not start"


def test_it_imports_outside_the_repository_with_what_a_runtime_brings(wheel, tmp_path):
    run("uv", "venv", "--python", sys.executable, "venv", cwd=tmp_path)
    python = next(path for path in (tmp_path / "venv/bin/python", tmp_path / "venv/Scripts/python.exe") if path.exists())
    run("uv", "pip", "install", "--python", str(python), str(wheel), cwd=tmp_path)
    # Spark, MLflow and scikit-learn come behind the environment's own packages, as from a runtime. (This project's editable install
    # is a .pth file there, which a path that is only appended does not read.)
    with zipfile.ZipFile(wheel) as archive:
        files = [name for name in archive.namelist() if name.startswith("streaming_pipeline/") and name.endswith(".py")]
    shipped = [name.removesuffix(".py").removesuffix("/__init__").replace("/", ".") for name in files]
    check = f"""
import importlib, sys
from streaming_pipeline.core.settings import Settings
assert Settings.from_parameters({{"catalog": "main"}}).schema == "streaming"

sys.path.append({sysconfig.get_path("purelib")!r})
for name in {shipped}:
    importlib.import_module(name)
print(sys.modules["streaming_pipeline"].__file__)
"""
    imported = run(str(python), "-I", "-c", check, cwd=tmp_path)
    assert Path(imported.strip()).is_relative_to(tmp_path.resolve()), imported


@pytest.mark.parametrize("is_on_the_path", [False, True])
def test_without_the_wheel_a_notebook_finds_the_library_of_its_bundle_and_installs_what_that_lacks(tmp_path, is_on_the_path):
    folder = ROOT / "notebooks" / "explore"
    # As in a workspace: the runtime's packages are there, this project is not.
    code = f"""
import importlib.metadata, subprocess, sys

sys.path.append({sysconfig.get_path("purelib")!r})
if {is_on_the_path}:
    sys.path.append({str(folder)!r})
there = importlib.metadata.version
def version(name):
    if name == "pyyaml":
        raise importlib.metadata.PackageNotFoundError(name)
    return there(name)
importlib.metadata.version = version
subprocess.check_call = lambda command: print(*command[3:])
exec(open({str(ROOT / "notebooks" / "_library.py")!r}).read())
from pyspark import cloudpickle
from streaming_pipeline.core import rules
print(rules.__file__)
print(b"records" in cloudpickle.dumps(rules.judge))  # the name of its argument: by value, not by name
"""
    printed = run(sys.executable, "-I", "-S", "-c", code, cwd=tmp_path if is_on_the_path else folder)
    assert printed.splitlines() == ["install -q pyyaml>=6.0,<7", str(ROOT / "src/streaming_pipeline/core/rules.py"), "True"]
