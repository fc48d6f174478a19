"""What the contract makes of a payload: its fields as texts, and why a record is rejected; and of the texts what silver holds.

A rejected record carries every reason, as `code:field` (or a code alone where the payload as a whole is at fault):

| reason | meaning |
|---|---|
| `null_payload`, `empty_payload` | the record has no value (a tombstone), or only white space |
| `not_utf8`, `malformed_json`, `not_an_object` | the payload is not one JSON object |
| `not_unicode` | a text in it holds half a surrogate pair (`"\\ud800"`), which is no character: two such texts could not be told apart |
| `unsupported_framing` | a serialiser's frame around something else than JSON: a schema registry's Avro or Protobuf, AWS Glue, Avro |
| `missing:f` | a required field is absent or null |
| `wrong_type:f` | the field cannot be read as its logical type |
| `not_finite:f` | NaN or Infinity |
| `no_zone:f` | a timestamp without an ISO-8601 zone: `Z`, `+01:00`, `+0100` or `+01` |
| `out_of_range:f` | below the minimum, above the maximum, or too far ahead of Kafka's clock |
| `not_allowed:f` | none of the valid values |
| `wrong_length:f` | a text that breaks its length |
| `wrong_pattern:f` | one of a right length that breaks its pattern; more than 1,000 characters match none |
"""

import secrets
from functools import reduce
from operator import or_
from typing import Any

from py4j.protocol import Py4JJavaError
from pyspark.errors import PySparkException
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from streaming_pipeline.core.contract import LONGEST_MATCHED, Contract, Field
from streaming_pipeline.core.errors import UsageError

_STRICT = {"allowSingleQuotes": "false"}
"""How payloads are parsed: as JSON has it."""

_CONTROL = r"\x00-\x08\x0b\x0c\x0e-\x1f\x7f"
"""Characters, as a class of a pattern has them, that Spark takes off the ends of a number like spaces, and that are none."""


def judge(records: DataFrame, contract: Contract) -> DataFrame:
    """Add to rows with `raw_payload` and `kafka_timestamp`: each field of the contract as text, `event_date`, `reasons`, `unknown_fields`.

    `reasons` holds every reason to reject the row, as an array of texts; it is NULL for a valid row, and `event_date` (UTC) for any
    other. `unknown_fields` are names (at most 20) that the payload has and the contract has not, NULL if there are none.
    """
    parsed = _parse(records, contract)
    # Typed in a step of its own, so that the rules look at columns and not at casts again.
    typed = parsed.select("*", *[as_type(field).alias(f"_{field.name}") for field in contract.fields])
    broken = [F.when(condition, F.lit(reason)) for field in contract.fields for reason, condition in _rules(field, contract)]
    # As one text first: it is what Spark compiles, where a filtered array would be interpreted row by row.
    judged = typed.withColumn("_reasons", F.coalesce("parse_error", F.concat_ws(",", *broken)))
    is_valid = F.col("_reasons") == ""
    return judged.select(
        *[F.col(f"`{name}`") for name in (*records.columns, *contract.field_names)],
        F.when(is_valid, F.to_date(f"_{contract.event_time_field}")).alias("event_date"),
        F.when(~is_valid, F.split("_reasons", ",")).alias("reasons"),
        "unknown_fields",
    )


def check_patterns(spark: SparkSession, contract: Contract, source: str) -> None:
    """Let Spark try each pattern, since its regular expressions are Java's; raises `UsageError` naming `source` and the field."""
    for field in contract.fields:
        if field.pattern is not None:
            try:
                spark.range(1).select(F.lit("").rlike(_whole(field.pattern))).collect()
            except (PySparkException, Py4JJavaError):  # Spark has several ways to refuse it
                raise UsageError(
                    f"{source}: field {field.name}.logicalTypeOptions.pattern: {field.pattern!r} is not a regular expression."
                ) from None


def _parse(records: DataFrame, contract: Contract) -> DataFrame:
    """Add to rows with a `raw_payload`: each field of the contract as text, `parse_error`, NULL if it is one JSON object, and
    `unknown_fields`, the names (at most 20) that an object has and the contract has not, NULL if there are none.

    The payload is parsed inside a list with a mark behind it: alone, Spark's parser stops at the end of the first
    value and would let `{…} garbage` or two events in one payload pass as one. Step by step, so that Spark parses once a row.
    """
    texts = records.withColumn("_text", payload_text())
    # Made anew each time: a payload that knew it could close the list itself, and hide a second event behind the mark.
    mark = secrets.token_hex(16)
    listed = F.concat(F.lit("["), "_text", F.lit(f',{{"_end": "{mark}"}}]'))
    fields = "".join(f"`{name}` string, " for name in contract.field_names)
    lists = texts.withColumn("_list", F.from_json(listed, f"array<struct<{fields}`_end` string>>", _STRICT))
    is_one = (F.size("_list") == 2) & (F.get("_list", F.lit(1))["_end"] == mark)
    events = lists.withColumn("_event", F.when(is_one, F.get("_list", F.lit(0))))
    with_mark = F.concat(F.lit("["), "_text", F.lit(f',"{mark}"]'))
    values = F.from_json(with_mark, "array<string>", {**_STRICT, "allowNonNumericNumbers": "false"})
    is_json = (F.size(values) == 2) & (F.get(values, F.lit(1)) == mark)
    is_object = F.col("_event").isNotNull()
    error = (
        F.when(is_object & _has_half_a_pair(F.col("_text")), F.lit("not_unicode"))
        .when(is_object, F.lit(None).cast("string"))
        .when(F.col("raw_payload").isNull(), F.lit("null_payload"))
        .when(_is_otherwise_framed(), F.lit("unsupported_framing"))
        .when(F.col("_text").isNull(), F.lit("not_utf8"))
        .when(F.col("_text").rlike(r"\A\s*\z"), F.lit("empty_payload"))
        .when(is_json, F.lit("not_an_object"))
        .otherwise(F.lit("malformed_json"))
    )
    # A payload with as many names as fields of the contract that have a value has no other; the exact comparison is for the rest.
    with_value = sum((F.when(F.col("_event")[name].isNotNull(), 1).otherwise(0) for name in contract.field_names), F.lit(0))
    names = events.withColumn("_names", F.when(is_object, F.json_object_keys("_text")))
    others = F.when(F.size("_names") > with_value, F.array_except("_names", F.array(*map(F.lit, contract.field_names))))
    return names.select(
        *records.columns,
        *[F.col("_event")[name].alias(name) for name in contract.field_names],
        error.alias("parse_error"),
        F.when(F.size(others) > 0, F.slice(others, 1, 20)).alias("unknown_fields"),
    )


def _is_framed() -> Column:
    """Whether a payload begins as a schema registry's serialiser has it: a zero byte, and four of the schema's id."""
    return (F.substring("raw_payload", 1, 1) == F.lit(b"\x00")) & (F.octet_length("raw_payload") > 5)


def payload_text() -> Column:
    """The payload without a schema registry's frame as a text; NULL where it is not UTF-8."""
    payload = F.when(_is_framed(), F.expr("substring(raw_payload, 6)")).otherwise(F.col("raw_payload"))
    return F.try_validate_utf8(payload.cast("string"))


def _is_otherwise_framed() -> Column:
    """Whether a payload that is no JSON begins like that of a serialiser: a schema registry's (zero byte and schema id) around
    something else than an object, AWS Glue's (03 00 or 03 05, and a UUID), Avro's single object (C3 01) or file ("Obj" 01)."""

    def starts(*beginnings: bytes) -> Column:
        return F.substring("raw_payload", 1, len(beginnings[0])).isin(*beginnings)

    around_another = _is_framed() & ~F.ltrim("_text").startswith("{")
    return F.coalesce(around_another, _is_framed()) | starts(b"\x03\x00", b"\x03\x05", b"\xc3\x01") | starts(b"Obj\x01")


def _has_half_a_pair(text: Column) -> Column:
    """Whether a JSON text has the escape of a surrogate without its other half; NULL for one without such escapes."""
    pairs = r"\\\\|\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}"  # and escaped backslashes, which "ud800" may follow
    return F.when(text.contains("\\u"), F.regexp_replace(text, pairs, " ").rlike(r"\\u[dD][89a-fA-F]"))


def _rules(field: Field, contract: Contract) -> list[tuple[str, Column]]:
    """(reason, condition under which the row breaks it) for one field. A condition that is NULL counts as kept."""
    text, typed, name = F.col(f"`{field.name}`"), F.col(f"_{field.name}"), field.name
    rules = []
    if field.required:
        rules.append((f"missing:{name}", text.isNull()))
    unreadable = text.isNotNull() & typed.isNull()
    if field.logical_type == "string":
        rules.append((f"wrong_type:{name}", _is_no_text(field)))
        if field.min_length is not None or field.max_length is not None:
            length = F.length(text)
            rules.append((f"wrong_length:{name}", (length < (field.min_length or 0)) | (length > (field.max_length or 2**31 - 1))))
        if field.pattern is not None:
            length = F.length(text)
            is_other = F.when(length <= field.longest_matched, ~text.rlike(_whole(field.pattern)))
            # Above a maxLength of fewer characters it has a reason already.
            is_too_long = field.max_length is None or field.max_length > LONGEST_MATCHED
            rules.append((f"wrong_pattern:{name}", is_other.when(length > LONGEST_MATCHED, is_too_long)))
    elif field.logical_type == "number":
        infinite = typed.isin(float("inf"), float("-inf"))
        named = unreadable & F.lower(_unquoted(text)).isin("nan", "+nan", "-nan")
        rules.append((f"not_finite:{name}", infinite | named))
        rules.append((f"wrong_type:{name}", unreadable & ~named))
    else:
        rules.append((f"wrong_type:{name}", unreadable))
    if field.logical_type == "timestamp":
        zoned = text.endswith("Z") | text.rlike(r":\d{2}(?:\.\d+)?[+-]\d{2}(?::?\d{2})?\z")
        rules.append((f"no_zone:{name}", typed.isNotNull() & ~zoned))
    bounds = [
        *([typed < _bound(field, field.minimum)] if field.minimum is not None else []),
        *([typed > _bound(field, field.maximum)] if field.maximum is not None else []),
        *([typed <= _bound(field, field.exclusive_minimum)] if field.exclusive_minimum is not None else []),
        *([typed >= _bound(field, field.exclusive_maximum)] if field.exclusive_maximum is not None else []),
    ]
    if name == contract.event_time_field:
        # Kafka's clock and not this machine's, so that a batch that is run again decides as before.
        latest = F.col("kafka_timestamp") + F.make_interval(secs=F.lit(contract.max_future_seconds))
        # Python, which is asked for the dates of a batch, knows those of the years 1 to 9999.
        bounds.append(typed > F.least(latest, F.lit("9999-12-31T23:59:59.999999Z").cast("timestamp")))
        if field.minimum is None and field.exclusive_minimum is None:
            bounds.append(typed < F.lit("0001-01-01T00:00:00Z").cast("timestamp"))
    if bounds:
        finite = ~typed.isin(float("inf"), float("-inf")) if field.logical_type == "number" else F.lit(True)
        rules.append((f"out_of_range:{name}", reduce(or_, bounds) & finite))
    if field.valid_values:
        rules.append((f"not_allowed:{name}", ~typed.isin(*[_bound(field, value) for value in field.valid_values])))
    return rules


def _whole(pattern: str) -> str:
    """The pattern for a whole text; with \\z, as its own `$` would let a trailing line feed through."""
    return rf"\A(?:{pattern})\z"


def as_type(field: Field) -> Column:
    """The field's text as its logical type; NULL where it cannot be read."""
    text = F.col(f"`{field.name}`")
    if field.logical_type == "string":
        return text
    if field.logical_type == "number":
        typed = _unquoted(text).try_cast("double")
        # Spark reads Java's 1d, 1f and 0x1p3 as numbers too (inf ends like these); NaN is none.
        is_javas = text.rlike(rf"[xX{_CONTROL}]|[dDfF]\s*\z") & (F.abs(typed) < float("inf"))
        return F.when(~F.isnan(typed) & ~is_javas, typed)
    typed = text.try_cast(field.spark_type)
    if field.logical_type not in ("timestamp", "date"):
        return F.when(~text.rlike(f"[{_CONTROL}]"), typed)
    # Spark would read a time without a date as one of today, and NZ as New Zealand's.
    dated = text.rlike(r"\A\d{4}-\d{2}-\d{2}(?!.*NZ\z)" if field.logical_type == "timestamp" else r"\A\d{4}-\d{2}-\d{2}\z")
    return F.when(dated, typed)


def content_hash(contract: Contract) -> Column:
    """The hash of a valid row's fields, from their texts: the same for the same content, however it is written."""
    return F.sha2(F.to_json(F.struct(*[_plain(field).alias(field.name) for field in contract.fields])), 256)


def _plain(field: Field) -> Column:
    """A field's value as JSON tells each from every other."""
    typed = as_type(field)
    if field.logical_type == "timestamp":
        return F.unix_micros(typed)  # of which JSON would have milliseconds
    return typed + F.lit(0.0) if field.logical_type == "number" else typed  # -0 is 0


def _unquoted(text: Column) -> Column:
    """Spark's parser hands a bare NaN, Infinity or 1e999 on in quotes; take them off."""
    return F.when(text.startswith('"'), F.btrim(text, F.lit('"'))).otherwise(text)


def _is_no_text(field: Field) -> Column:
    """Whether the payload has an object or a list where a text is due, or a bare number with a fraction or an exponent.

    Spark hands both on as texts, and of such a number the double that it has made of it: two of them may have become one. The few
    texts that look so are looked up in the payload, where `"[1]"` and `"1.10"` in quotes are texts like others.
    """
    text = F.col(f"`{field.name}`")
    looks_so = text.startswith("{") | text.startswith("[")
    if not field.valid_values:  # a value of a list of allowed texts needs no such care
        looks_so |= text.rlike(r'\A(?:-?\d+\.\d+(?:E-?\d+)?|"-?(?:Infinity|NaN)")\z')
    return looks_so & ~json_type(payload_text(), field.name).eqNullSafe("string")


def json_type(payload: Column, name: str) -> Column:
    """The JSON type of a field's value in a payload: object, array, number, boolean or string; NULL where it has no value.

    The payload is read with each type in turn. Spark's functions for variants would name the type directly, but they recurse into
    nested values. Spark's parser allows a thousand levels; at that depth they can overflow Java's stack, which ends the process.
    """
    types = {"map<string,string>": "object", "array<string>": "array", "double": "number", "boolean": "boolean", "string": "string"}
    read = {spark_type: F.from_json(payload, f"`{name}` {spark_type}", _STRICT)[name] for spark_type in types}
    return F.coalesce(*[F.when(value.isNotNull(), F.lit(types[spark_type])) for spark_type, value in read.items()])


def _bound(field: Field, value: Any) -> Column:
    """A limit of the contract as a literal of the field's type."""
    return F.lit(str(value) if field.logical_type in ("timestamp", "date") else value).cast(field.spark_type)
