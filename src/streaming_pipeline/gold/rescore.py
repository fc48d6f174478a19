"""Events of a period scored anew, by the champion or another version; the scores before stay in the table's history."""

from dataclasses import dataclass
from datetime import datetime

from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from streaming_pipeline.core import tables
from streaming_pipeline.core.contract import Contract, load_contract
from streaming_pipeline.core.errors import UsageError
from streaming_pipeline.core.settings import Settings, parse_period
from streaming_pipeline.core.wording import plural
from streaming_pipeline.gold import inputs
from streaming_pipeline.gold import score as gold
from streaming_pipeline.gold.registry import load_champion, load_version


@dataclass(frozen=True)
class Period:
    """Events from `begin` until before `end`, and the version to score them with (empty: the champion)."""

    begin: datetime
    end: datetime
    version: str = ""

    @classmethod
    def from_texts(cls, from_time: str, until_time: str, version: str) -> "Period":
        """Parameters as texts. Raises `UsageError` naming the one that cannot be used."""
        begin, end = parse_period(from_time, until_time)
        if begin is None or end is None:
            raise UsageError("Give both 'from_time' and 'until_time': the period whose events are to be scored again.")
        if version.strip() and not version.strip().isdecimal():
            raise UsageError(f"Parameter 'version' is {version!r}: give the number of a version, or nothing for the champion.")
        return cls(begin, end, version.strip())

    def sql(self, contract: Contract) -> str:
        """The rows of gold, as SQL writes a condition; by the partition too, so that no file outside is read."""
        time = f"`{contract.event_time_field}`"
        return (
            f"event_date >= DATE'{self.begin.date()}' AND event_date <= DATE'{self.end.date()}' "
            f"AND {time} >= TIMESTAMP'{self.begin.isoformat()}' AND {time} < TIMESTAMP'{self.end.isoformat()}'"
        )


@dataclass(frozen=True)
class Rescored:
    """How many events were scored again, by which version, and how many of them were flagged before and are now."""

    records: int
    version: str
    flagged_before: int
    flagged: int
    table_version: int
    """The version of gold that has the scores before."""

    @property
    def note(self) -> str:
        """The same in a sentence."""
        if not self.records:
            return "gold has no event in that period"
        return (
            f"version {self.version} scored {plural(self.records, 'event')}: {self.flagged:,} flagged, {self.flagged_before:,} before; "
            f"the old scores are in VERSION AS OF {self.table_version}"
        )


def rescore_gold(spark: SparkSession, settings: Settings, choice: Period) -> Rescored:
    """Score the chosen events of gold again, in one commit: who reads the table sees all of the old scores or all of the new.

    Every event of gold stays, since gold holds all that the model asks for. Must not run beside the main job. Raises `PipelineError` if
    there is no champion or the version asks for columns which are gone, `UsageError` for a version that there is not.
    """
    contract = load_contract(settings.contract_path)
    table = tables.gold_anomaly_predictions(contract)
    tables.create_missing(spark, settings, [table])
    tables.keep_properties(spark, settings, table)
    model = load_version(settings, choice.version) if choice.version else load_champion(settings)
    inputs.check(model, contract)
    where, held_version = choice.sql(contract), tables.newest_version(spark, settings, table.name)
    period = spark.table(settings.table(table.name)).where(where)
    flagged = F.count_if(F.col("anomaly_flag") == -1).alias("flagged")
    before = period.agg(F.count(F.lit(1)).alias("records"), flagged).first()
    if not before["records"]:
        return Rescored(0, model.version, 0, 0, held_version)
    # Also what the contract has no more of gold's columns stays.
    scored = gold.judge(period, model, contract).select(*(f"`{column}`" for column in period.columns))
    tables.replace(settings, table.name, scored, where)
    return Rescored(before["records"], model.version, before["flagged"], period.agg(flagged).first()["flagged"], held_version)
