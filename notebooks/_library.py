# Databricks notebook source
# MAGIC %md
# MAGIC Finds the library: the installed wheel, else `src` of this bundle, for a notebook that is opened by hand.

# COMMAND ----------

import importlib.util
import os
import subprocess
import sys
import tomllib
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

if importlib.util.find_spec("streaming_pipeline") is None:
    # Beside the working folder, a workspace puts a notebook's folder on the import path.
    begins = [Path(folder).resolve() for folder in (os.getcwd(), *sys.path)]
    bundle = next(
        (folder for begin in begins for folder in (begin, *begin.parents) if (folder / "src" / "streaming_pipeline").is_dir()), None
    )
    if bundle is None:
        raise ModuleNotFoundError("streaming_pipeline: attach the bundle's wheel, or open this notebook inside the bundle's folder")
    sys.path.insert(0, str(bundle / "src"))
    # What the wheel would have brought along.
    lacking = []
    for requirement in tomllib.loads((bundle / "pyproject.toml").read_text())["project"]["dependencies"]:
        try:
            version(requirement.partition(">")[0])
        except PackageNotFoundError:
            lacking.append(requirement)
    if lacking:
        subprocess.check_call([sys.executable, "-m", "pip", "install", "-q", *lacking])

    from pyspark import cloudpickle

    import streaming_pipeline

    # Workers know no `src`: hand them the functions themselves.
    cloudpickle.register_pickle_by_value(streaming_pipeline)
