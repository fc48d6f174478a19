"""What the model is given of an event: the columns of silver that it was, or will be, trained on."""

from pyspark.sql import Column
from pyspark.sql import functions as F

from streaming_pipeline.core.contract import Contract
from streaming_pipeline.core.errors import PipelineError, UsageError
from streaming_pipeline.gold.registry import Model

TIME = "timestamp_unix"


def features(contract: Contract, asked: tuple[str, ...]) -> tuple[str, ...]:
    """The features of the job parameter; without any, every number that the contract does not have as id or slice, and the time.

    Raises `UsageError` for a feature that silver cannot give.
    """
    numbers = _numbers(contract)
    for name in asked:
        if name != TIME and name not in numbers:
            known = ", ".join(sorted({*numbers, TIME}))
            raise UsageError(f"Parameter 'features' names {name!r}, which is no number of the event contract; use {known}.")
    return asked or (*(name for name in numbers if name not in (contract.id_field, contract.slice_field)), TIME)


def level_by(contract: Contract, features: tuple[str, ...]) -> str | None:
    """The field that selects the usual level: the contract's slice field, unless it is a feature itself."""
    return None if contract.slice_field in features else contract.slice_field


def chosen(contract: Contract, features: tuple[str, ...]) -> tuple[str, ...]:
    """The model's columns for these features: the contract's slice field, which selects the usual level, and the features."""
    field = level_by(contract, features)
    return (*((field,) if field else ()), *features)


def columns(contract: Contract, names: tuple[str, ...]) -> list[Column]:
    """The model's columns from silver's: numbers as doubles, another slice field as text. Raises `UsageError` for one that silver lacks."""
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


def check(model: Model, contract: Contract) -> None:
    """Raise `PipelineError` if the contract has not all that the model asks for."""
    try:
        columns(contract, model.columns)
    except UsageError:
        raise PipelineError(
            f"Version {model.version} of {model.name} was trained on {', '.join(model.columns)}, not all of which the event "
            "contract has any more: run the job train_anomaly_detector, or choose another version."
        ) from None


def timestamp_unix(contract: Contract) -> Column:
    """The event time in seconds since 1970, to the microsecond."""
    return (F.unix_micros(f"`{contract.event_time_field}`") / 1e6).alias(TIME)


def _numbers(contract: Contract) -> list[str]:
    return [field.name for field in contract.fields if field.logical_type in ("number", "integer")]
