"""Windows are numbered since 1970: which one is a time in, and when does one begin?"""

from datetime import UTC, datetime, timedelta

from pyspark.sql import Column
from pyspark.sql import functions as F

DAY_MINUTES = 1440
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_EARLIEST, _LATEST = datetime(1, 1, 2, tzinfo=UTC), datetime(9990, 1, 1, tzinfo=UTC)
"""Windows begin and end between these, in each zone."""


def utc(time: datetime | None) -> datetime | None:
    """Spark hands timestamps out in the zone of this machine, without saying so."""
    return time.astimezone(UTC) if time else None


def window_of(column: str, minutes: int) -> Column:
    """The number of the window of so many minutes that a timestamp column is in."""
    return F.floor(F.unix_micros(nameable(column)) / (60_000_000 * minutes)).cast("long")


def nameable(column: str) -> Column:
    """A timestamp column, in the years that Python can name: producers stamp records as they please, also in microseconds."""
    time = F.col(column)
    return F.when(time > F.lit(_LATEST), F.lit(_LATEST)).when(time < F.lit(_EARLIEST), F.lit(_EARLIEST)).otherwise(time)


def number_of(time: datetime, minutes: int) -> int:
    """The number of the window that a time is in."""
    return int(time.timestamp() // (60 * minutes))


def start_of(window: int, minutes: int) -> datetime:
    """When a window begins."""
    return _EPOCH + timedelta(minutes=window * minutes)
