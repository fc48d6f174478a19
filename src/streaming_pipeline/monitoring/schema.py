"""Which fields do payloads have that the contract lacks?"""

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

MOST = 50
"""So many names are told at most: a producer that makes names of values must not fill the log."""


def unknown_fields(bronze: DataFrame) -> dict[str, int]:
    """Name → number of bronze rows whose payload has a field of this name that the contract lacks, the most frequent first."""
    names = bronze.where("unknown_fields IS NOT NULL").select(F.explode("unknown_fields").alias("name"))
    counted = names.groupBy("name").count().orderBy(F.col("count").desc(), "name").limit(MOST)
    return {row["name"]: row["count"] for row in counted.collect()}
