# Databricks notebook source
# MAGIC %md
# MAGIC Finds the library: the installed wheel, else `src` of this bundle, for a notebook that is opened by hand.

# COMMAND ----------

import importlib.util
import os
import subprocess
import sys

if importlib.util.find_spec("streaming_pipeline") is None:
    here = os.getcwd()
    while not os.path.isdir(os.path.join(here, "src", "streaming_pipeline")):
        if here == os.path.dirname(here):
            raise ModuleNotFoundError("streaming_pipeline: attach the bundle's wheel, or open this notebook inside the bundle's folder")
        here = os.path.dirname(here)
    # What the wheel would have brought along.
    needed = {"confluent_kafka": "confluent-kafka>=2.6,<3", "dotenv": "python-dotenv>=1.0,<2", "yaml": "pyyaml>=6.0,<7"}
    lacking = [requirement for module, requirement in needed.items() if importlib.util.find_spec(module) is None]
    if lacking:
        subprocess.check_call([sys.executable, "-m", "pip", "install", "-q", *lacking])
    sys.path.insert(0, os.path.join(here, "src"))

    from pyspark import cloudpickle

    import streaming_pipeline

    # Workers know no `src`: hand them the functions themselves.
    cloudpickle.register_pickle_by_value(streaming_pipeline)
