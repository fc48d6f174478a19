"""What the model is given of an event: the columns of silver that it was, or will be, trained on."""

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from streaming_pipeline.contract import Contract
from streaming_pipeline.errors import UsageError

TIME = "timestamp_unix"


def chosen(contract: Contract, features: tuple[str, ...]) -> tuple[str, ...]:
    """The model's columns for the job parameter `features`: the contract's slice field, which selects the usual level, and the features.

    Raises `UsageError` for a feature that silver cannot give.
    """
    if not features:
        raise UsageError("Parameter 'features' is empty: name at least one column, such as value,timestamp_unix.")
    numbers = _numbers(contract)
    for name in features:
        if name != TIME and name not in numbers:
            known = ", ".join(sorted({*numbers, TIME}))
            raise UsageError(f"Parameter 'features' names {name!r}, which is no number of the event contract; use {known}.")
    first = (contract.slice_field,) if contract.slice_field and contract.slice_field not in features else ()
    return (*first, *features)


def columns(contract: Contract, names: tuple[str, ...]) -> list[Column]:
    """The model's columns from silver's: a slice field as text, all else as doubles. Raises `UsageError` for one that silver lacks."""
    numbers, made = _numbers(contract), []
    for name in names:
        if name == TIME:
            made.append(timestamp_unix(contract))
        elif name in numbers:
            made.append(F.col(f"`{name}`").cast("double").alias(name))
        elif name == contract.slice_field:
            made.append(F.col(f"`{name}`").cast("string").alias(name))
        else:
            raise UsageError(f"The event contract has no number and no slice field {name!r}.")
    return made


def timestamp_unix(contract: Contract) -> Column:
    """The event time in seconds since 1970, to the microsecond."""
    return (F.unix_micros(f"`{contract.event_time_field}`") / 1e6).alias(TIME)


def frame(silver: DataFrame, contract: Contract, names: tuple[str, ...]) -> DataFrame:
    """Silver rows → the model's input, these columns alone."""
    return silver.select(*columns(contract, names))


def _numbers(contract: Contract) -> set[str]:
    return {field.name for field in contract.fields if field.logical_type in ("number", "integer")}
