"""The event contract (`config/event_contract.yml`, Open Data Contract Standard 3) → schema, casts and row rules.

The contract decides what is parsed of a payload, how silver types it and why a record is rejected. A rejected record carries every
reason, as `code:field` (or a code alone where the payload as a whole is at fault):

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
| `wrong_length:f`, `wrong_pattern:f` | a text that breaks its length or pattern |
"""

import hashlib
import re
from dataclasses import dataclass
from datetime import datetime
from functools import reduce
from math import inf
from operator import or_
from pathlib import Path
from typing import Any

import yaml
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from streaming_pipeline.errors import UsageError

SPARK_TYPES = {
    "string": "string",
    "number": "double",
    "integer": "bigint",
    "boolean": "boolean",
    "timestamp": "timestamp",
    "date": "date",
}
_OPTIONS = {
    "string": {"minLength", "maxLength", "pattern"},
    "number": {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"},
    "integer": {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"},
    "timestamp": {"minimum", "maximum"},
    "date": {"minimum", "maximum"},
    "boolean": set(),
}
_LOWEST = ("minimum", "exclusiveMinimum")
_HIGHEST = ("maximum", "exclusiveMaximum")
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
# Columns that the tables add themselves; a field of the same name would hide one.
RESERVED = {
    *("topic_id", "topic", "partition", "offset", "kafka_timestamp", "timestamp_type", "key", "raw_payload", "parse_error"),
    *("ingested_at", "event_date", "contract_fingerprint", "processed_at", "timestamp_unix", "anomaly_score", "anomaly_flag"),
    *("explanation", "model_name", "model_version", "scored_at", "reasons", "stage", "quarantined_at", "resolved_at", "unknown_fields"),
}


@dataclass(frozen=True)
class Field:
    """One field of an event; `minimum`, `maximum` and the lengths are None where the contract sets none."""

    name: str
    logical_type: str
    required: bool = False
    description: str = ""
    valid_values: tuple[Any, ...] = ()
    minimum: Any = None
    maximum: Any = None
    exclusive_minimum: Any = None
    exclusive_maximum: Any = None
    min_length: int | None = None
    max_length: int | None = None
    pattern: str | None = None

    @property
    def spark_type(self) -> str:
        """The type of the silver column, as SQL writes it."""
        return SPARK_TYPES[self.logical_type]


@dataclass(frozen=True)
class Contract:
    """A validated contract: its fields in order, and the roles that some of them play."""

    fields: tuple[Field, ...]
    id_field: str
    event_time_field: str
    slice_field: str | None
    max_future_seconds: int
    fingerprint: str
    text: str

    @property
    def field_names(self) -> list[str]:
        """The names of the fields, in the contract's order."""
        return [field.name for field in self.fields]

    @property
    def raw_schema(self) -> str:
        """The schema with which bronze parses a payload: every field as text."""
        return ", ".join(f"`{field.name}` string" for field in self.fields)

    def typed_fields(self) -> list[Column]:
        """The fields as silver has them, from the texts of bronze; NULL where a text cannot be read."""
        return [_typed(field).alias(field.name) for field in self.fields]

    def judge(self, parsed: DataFrame) -> DataFrame:
        """Rows with the fields as texts, `parse_error` and `kafka_timestamp` → the same without `parse_error`, and `event_date`, `reasons`.

        `reasons` holds every reason to reject the row, as an array of texts; it is NULL for a valid row, and `event_date` (UTC) for
        any other.
        """
        # Typed in a step of its own, so that the rules look at columns and not at casts again.
        typed = parsed.select("*", *[_typed(field).alias(f"_{field.name}") for field in self.fields])
        broken = [F.when(condition, F.lit(reason)) for field in self.fields for reason, condition in self._rules(field)]
        # As one text first: it is what Spark compiles, where a filtered array would be interpreted row by row.
        judged = typed.withColumn("_reasons", F.coalesce("parse_error", F.concat_ws(",", *broken)))
        is_valid = F.col("_reasons") == ""
        return judged.select(
            *[F.col(f"`{name}`") for name in parsed.columns if name != "parse_error"],
            F.when(is_valid, F.to_date(f"_{self.event_time_field}")).alias("event_date"),
            F.when(~is_valid, F.split("_reasons", ",")).alias("reasons"),
        )

    def _rules(self, field: Field) -> list[tuple[str, Column]]:
        """(reason, condition under which the row breaks it) for one field. A condition that is NULL counts as kept."""
        text, typed, name = F.col(f"`{field.name}`"), F.col(f"_{field.name}"), field.name
        rules = []
        if field.required:
            rules.append((f"missing:{name}", text.isNull()))
        unreadable = text.isNotNull() & typed.isNull()
        if field.logical_type == "string":
            rules.append((f"wrong_type:{name}", _is_nested(text)))
            if field.min_length is not None or field.max_length is not None:
                length = F.length(text)
                rules.append((f"wrong_length:{name}", (length < (field.min_length or 0)) | (length > (field.max_length or 2**31 - 1))))
            if field.pattern is not None:
                rules.append((f"wrong_pattern:{name}", ~text.rlike(_whole(field.pattern))))
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
        if name == self.event_time_field:
            # Kafka's clock and not this machine's, so that a batch that is run again decides as before.
            bounds.append(typed > F.col("kafka_timestamp") + F.make_interval(secs=F.lit(self.max_future_seconds)))
        if bounds:
            finite = ~typed.isin(float("inf"), float("-inf")) if field.logical_type == "number" else F.lit(True)
            rules.append((f"out_of_range:{name}", reduce(or_, bounds) & finite))
        if field.valid_values:
            rules.append((f"not_allowed:{name}", ~typed.isin(*[_bound(field, value) for value in field.valid_values])))
        return rules


def parse_payload(records: DataFrame, contract: Contract) -> DataFrame:
    """Add to rows with a `raw_payload`: each field of the contract as text, `parse_error`, NULL if it is one JSON object, and
    `unknown_fields`, the names (at most 20) that an object has and the contract has not, NULL if there are none.

    The payload is parsed inside a list with a mark behind it: alone, Spark's parser stops at the end of the first
    value and would let `{…} garbage` or two events in one payload pass as one. Step by step, so that Spark parses once a row.
    """
    is_framed = (F.substring("raw_payload", 1, 1) == F.lit(b"\x00")) & (F.octet_length("raw_payload") > 5)
    payload = F.when(is_framed, F.expr("substring(raw_payload, 6)")).otherwise(F.col("raw_payload"))
    texts = records.withColumn("_text", F.try_validate_utf8(payload.cast("string")))
    mark = contract.fingerprint  # no payload holds it by chance
    listed = F.concat(F.lit("["), "_text", F.lit(f',{{"_end": "{mark}"}}]'))
    schema = f"array<struct<{contract.raw_schema}, `_end` string>>"
    lists = texts.withColumn("_list", F.from_json(listed, schema, {"allowSingleQuotes": "false"}))
    is_one = (F.size("_list") == 2) & (F.get("_list", F.lit(1))["_end"] == mark)
    events = lists.withColumn("_event", F.when(is_one, F.get("_list", F.lit(0))))
    is_json = F.try_parse_json(F.concat(F.lit('{"payload":'), "_text", F.lit(',"end":0}'))).isNotNull()
    is_object = F.col("_event").isNotNull()
    error = (
        F.when(is_object & _has_half_a_pair(F.col("_text")), F.lit("not_unicode"))
        .when(is_object, F.lit(None).cast("string"))
        .when(F.col("raw_payload").isNull(), F.lit("null_payload"))
        .when(_is_otherwise_framed(is_framed), F.lit("unsupported_framing"))
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


def _is_otherwise_framed(is_framed: Column) -> Column:
    """Whether a payload that is no JSON begins like that of a serialiser: a schema registry's (zero byte and schema id) around
    something else than an object, AWS Glue's (03 00 or 03 05, and a UUID), Avro's single object (C3 01) or file ("Obj" 01)."""
    starts = lambda *beginnings: F.substring("raw_payload", 1, len(beginnings[0])).isin(*beginnings)  # noqa: E731
    around_another = is_framed & ~F.ltrim("_text").startswith("{")
    return F.coalesce(around_another, is_framed) | starts(b"\x03\x00", b"\x03\x05", b"\xc3\x01") | starts(b"Obj\x01")


def _has_half_a_pair(text: Column) -> Column:
    """Whether a JSON text has the escape of a surrogate without its other half; NULL for one without such escapes."""
    pairs = r"\\\\|\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}"  # and escaped backslashes, which "ud800" may follow
    return F.when(text.contains("\\u"), F.regexp_replace(text, pairs, " ").rlike(r"\\u[dD][89a-fA-F]"))


def load_contract(path: str | Path) -> Contract:
    """Read and validate a contract file; raises `UsageError` naming the file and the key."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{path}: the event contract cannot be read ({error.strerror}). Check the parameter config_dir.") from None
    except UnicodeDecodeError:
        raise UsageError(f"{path}: the event contract is not UTF-8 text.") from None
    return parse_contract(text, str(path))


def parse_contract(text: str, source: str = "event contract") -> Contract:
    """The contract that `text` (YAML) holds; raises `UsageError` naming `source` and the key at fault."""
    try:
        document = yaml.load(text, _Loader)
        canonical = yaml.safe_dump(document, sort_keys=True)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" line {mark.line + 1}" if mark else ""
        raise UsageError(f"{source}{where}: not valid YAML ({getattr(error, 'problem', None) or 'unreadable'}).") from None
    except RecursionError:
        raise UsageError(f"{source}: lists and mappings are nested too deep for a contract.") from None
    check = _Checker(source)
    top = check.mapping(document, "the file", {"apiVersion", "kind", "id", "version", "status", "schema"}, _TOP_KEYS)
    if not str(top["apiVersion"]).startswith("v3."):
        check.fail("apiVersion", f"{top['apiVersion']!r} is not supported: use v3.x")
    if top["kind"] != "DataContract":
        check.fail("kind", f"{top['kind']!r} is not DataContract")
    if not isinstance(top["schema"], list) or len(top["schema"]) != 1:
        check.fail("schema", "must be a list of exactly one object: the event")
    event = check.mapping(top["schema"][0], "schema[0]", {"name", "properties"}, _SCHEMA_KEYS)
    if not isinstance(event["properties"], list) or not event["properties"]:
        check.fail("schema[0].properties", "must be a list of fields")
    fields = tuple(_field(check, item, f"schema[0].properties[{index}]") for index, item in enumerate(event["properties"]))
    names = [field.name for field in fields]
    for name in names:
        if [other.lower() for other in names].count(name.lower()) > 1:
            check.fail("schema[0].properties", f"the field {name!r} stands there twice")
    keys = [item["name"] for item in event["properties"] if item.get("primaryKey")]
    if len(keys) != 1:
        check.fail("schema[0].properties", f"exactly one field must have primaryKey: true, not {len(keys)}")
    custom = check.custom_properties(event.get("customProperties", []), "schema[0].customProperties")
    by_name = {field.name: field for field in fields}
    time_name = custom.get("eventTimeField")
    if not isinstance(time_name, str) or time_name not in by_name or by_name[time_name].logical_type != "timestamp":
        check.fail("schema[0].customProperties.eventTimeField", f"{time_name!r} is not a field of logicalType timestamp")
    slice_name = custom.get("sliceField")
    if slice_name is not None and (not isinstance(slice_name, str) or slice_name not in by_name):
        check.fail("schema[0].customProperties.sliceField", f"{slice_name!r} is not a field")
    for name in (keys[0], time_name):
        if not by_name[name].required:
            check.fail(f"field {name}", "must have required: true, since rows are told apart and dated by it")
    future = custom.get("maxFutureSeconds", 86400)
    if not isinstance(future, int) or isinstance(future, bool) or not 0 <= future <= 10 * 366 * 86400:
        check.fail("schema[0].customProperties.maxFutureSeconds", f"{future!r} is not a whole number of seconds, ten years at most")
    return Contract(
        fields=fields,
        id_field=keys[0],
        event_time_field=time_name,
        slice_field=slice_name,
        max_future_seconds=future,
        fingerprint=hashlib.sha256(canonical.encode()).hexdigest()[:16],
        text=text,
    )


_TOP_KEYS = {
    *("apiVersion", "kind", "id", "name", "version", "status", "tenant", "tags", "servers", "dataProduct", "description", "domain"),
    *("schema", "support", "price", "team", "roles", "slaDefaultElement", "slaProperties", "authoritativeDefinitions"),
    *("customProperties", "contractCreatedTs"),
}
_SCHEMA_KEYS = {
    *("id", "name", "physicalName", "physicalType", "logicalType", "businessName", "description", "dataGranularityDescription"),
    *("properties", "quality", "tags", "authoritativeDefinitions", "customProperties", "relationships"),
}
_FIELD_KEYS = {
    *("id", "name", "physicalName", "physicalType", "logicalType", "logicalTypeOptions", "businessName", "description", "required"),
    *("unique", "primaryKey", "primaryKeyPosition", "quality", "tags", "classification", "examples", "criticalDataElement"),
    *("authoritativeDefinitions", "customProperties"),
}


class _Loader(yaml.SafeLoader):
    """YAML without what hides a mistake or grows without end: a key given twice, of which the last would win, and aliases."""

    def compose_node(self, parent: Any, index: Any) -> yaml.Node:
        event = self.peek_event()
        if isinstance(event, yaml.AliasEvent):
            raise yaml.MarkedYAMLError(problem=f"write *{event.anchor} out, aliases are not supported", problem_mark=event.start_mark)
        return super().compose_node(parent, index)

    def compose_mapping_node(self, anchor: str | None) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        seen = set()
        for key, _ in node.value:
            if key.value in seen:
                raise yaml.MarkedYAMLError(problem=f"key {key.value!r} is given twice", problem_mark=key.start_mark)
            if isinstance(key, yaml.ScalarNode):
                seen.add(key.value)
        return node

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            value = super().construct_object(node, deep)
            if isinstance(value, int):
                str(value)  # Python refuses thousands of digits, which no message could show then
            return value
        except (ValueError, LookupError, AttributeError):  # what Python says of 2026-02-30 or `!!bool perhaps`
            raise yaml.MarkedYAMLError(problem=f"{str(node.value)[:40]!r} is no such value", problem_mark=node.start_mark) from None


class _Checker:
    """Refuses what the contract may not hold, naming file and key."""

    def __init__(self, source: str) -> None:
        self.source = source

    def fail(self, key: str, problem: str) -> None:
        raise UsageError(f"{self.source}: {key}: {problem}.")

    def mapping(self, value: Any, key: str, required: set[str], known: set[str]) -> dict[str, Any]:
        if not isinstance(value, dict):
            self.fail(key, "must be a mapping of keys to values")
        for name in value:
            if name not in known:
                self.fail(key, f"unknown key {name!r}; known keys: {', '.join(sorted(known))}")
        for name in sorted(required):
            if value.get(name) is None:
                self.fail(key, f"{name!r} is missing")
        return value

    def custom_properties(self, value: Any, key: str) -> dict[str, Any]:
        known = {"eventTimeField", "sliceField", "maxFutureSeconds"}
        if not isinstance(value, list):
            self.fail(key, "must be a list of property and value")
        found = {}
        for index, item in enumerate(value):
            item = self.mapping(item, f"{key}[{index}]", {"property", "value"}, {"id", "property", "value", "description"})
            if not isinstance(item["property"], str) or item["property"] not in known:
                self.fail(f"{key}[{index}]", f"unknown property {item['property']!r}; known: {', '.join(sorted(known))}")
            found[item["property"]] = item["value"]
        return found


def _field(check: _Checker, item: Any, key: str) -> Field:
    """One entry of `properties` → `Field`."""
    item = check.mapping(item, key, {"name", "logicalType"}, _FIELD_KEYS)
    name = item["name"]
    key = f"field {name}"
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        check.fail(key, "a name has letters, digits and '_' only, and starts with a letter")
    if name.lower() in RESERVED:
        check.fail(key, "this name is a column of the pipeline's own; rename the field at its source")
    logical_type = item["logicalType"]
    if not isinstance(logical_type, str) or logical_type not in SPARK_TYPES:
        check.fail(key, f"logicalType {logical_type!r} is not supported; use one of {', '.join(SPARK_TYPES)}")
    for flag in ("required", "primaryKey", "unique"):
        if not isinstance(item.get(flag, False), bool):
            check.fail(key, f"{flag} must be true or false, not {item[flag]!r}")
    options = check.mapping(item.get("logicalTypeOptions") or {}, f"{key}.logicalTypeOptions", set(), _OPTIONS[logical_type])
    for option, value in options.items():
        _check_option(check, f"{key}.logicalTypeOptions.{option}", logical_type, option, value)
    for low, high in (("minLength", "maxLength"), *((low, high) for low in _LOWEST for high in _HIGHEST)):
        if low in options and high in options and _order(options[low]) > _order(options[high]):
            check.fail(f"{key}.logicalTypeOptions.{low}", f"{options[low]!r} is above {high}, {options[high]!r}: no event could be valid")
    valid_values: tuple[Any, ...] = ()
    quality = item.get("quality") or []
    if not isinstance(quality, list) or len(quality) > 1:
        check.fail(f"{key}.quality", "must be a list of one rule, as only one rule is supported")
    for rule in quality:
        rule = check.mapping(rule, f"{key}.quality", {"metric"}, {"id", "name", "description", "type", "metric", "arguments", "mustBe"})
        arguments = rule.get("arguments")
        if (
            rule["metric"] != "invalidValues"
            or rule.get("mustBe") != 0
            or not isinstance(arguments, dict)
            or set(arguments) != {"validValues"}
        ):
            check.fail(f"{key}.quality", "only metric: invalidValues with arguments.validValues and mustBe: 0 is supported")
        if not isinstance(arguments["validValues"], list) or not arguments["validValues"]:
            check.fail(f"{key}.quality", "arguments.validValues must be a list of at least one value")
        for value in arguments["validValues"]:
            _check_value(check, f"{key}.quality: arguments.validValues", logical_type, value)
        valid_values = tuple(arguments["validValues"])
    return Field(
        name=name,
        logical_type=logical_type,
        required=item.get("required", False),
        description=str(item.get("description") or ""),
        valid_values=valid_values,
        minimum=options.get("minimum"),
        maximum=options.get("maximum"),
        exclusive_minimum=options.get("exclusiveMinimum"),
        exclusive_maximum=options.get("exclusiveMaximum"),
        min_length=options.get("minLength"),
        max_length=options.get("maxLength"),
        pattern=options.get("pattern"),
    )


def _check_option(check: _Checker, key: str, logical_type: str, option: str, value: Any) -> None:
    """Refuse an option whose value does not fit the field's type."""
    if option == "pattern":
        if not isinstance(value, str):
            check.fail(key, f"{value!r} is not a regular expression")
    elif option.endswith("Length"):
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**31:
            check.fail(key, f"{value!r} is not a whole number from 0 to {2**31 - 1}")
    else:
        _check_value(check, key, logical_type, value)


def _check_value(check: _Checker, key: str, logical_type: str, value: Any) -> None:
    """Refuse a value that the contract compares a field of this type with, and that is of another."""
    if logical_type == "string":
        if not isinstance(value, str):
            check.fail(key, f"{value!r} is no text: put it in quotes")
    elif logical_type == "boolean":
        if not isinstance(value, bool):
            check.fail(key, f"{value!r} is neither true nor false")
    elif logical_type in ("timestamp", "date"):
        pattern = r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(\.\d+)?Z" if logical_type == "timestamp" else r"\d{4}-\d{2}-\d{2}"
        if not re.fullmatch(pattern, str(value)) or not _is_time(str(value)):
            form = "2000-01-01T00:00:00Z, in quotes" if logical_type == "timestamp" else "2000-01-01, in quotes"
            check.fail(key, f"{value!r} is not a time such as {form}")
    elif logical_type == "integer":
        if isinstance(value, bool) or not isinstance(value, int) or not -(2**63) <= value < 2**63:
            check.fail(key, f"{value!r} is not a whole number of 64 bits")
    elif isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < (2**63 if isinstance(value, int) else inf):
        check.fail(key, f"{value!r} is not a number such as 0.5 or 1.0e+30")


def _is_time(text: str) -> bool:
    try:
        datetime.fromisoformat(text)
    except ValueError:
        return False
    return True


def _order(limit: Any) -> Any:
    """A limit as it compares with others of its field: of times the Z must go, which would sort behind a fraction of a second."""
    return limit if isinstance(limit, int | float) else str(limit).rstrip("Z")


def check_patterns(spark: SparkSession, contract: Contract, source: str) -> None:
    """Let Spark try each pattern, since its regular expressions are Java's; raises `UsageError` naming `source` and the field."""
    for field in contract.fields:
        if field.pattern is not None:
            try:
                spark.range(1).select(F.lit("").rlike(_whole(field.pattern))).collect()
            except Exception:  # Spark has several ways to refuse it
                raise UsageError(
                    f"{source}: field {field.name}.logicalTypeOptions.pattern: {field.pattern!r} is not a regular expression."
                ) from None


def _whole(pattern: str) -> str:
    """The pattern for a whole text; with \\z, as its own `$` would let a trailing line feed through."""
    return rf"\A(?:{pattern})\z"


def _typed(field: Field) -> Column:
    """The field's text as its logical type; NULL where it cannot be read."""
    text = F.col(f"`{field.name}`")
    if field.logical_type == "string":
        return text
    if field.logical_type == "number":
        typed = _unquoted(text).try_cast("double")
        # Spark reads Java's 1d and 1f as numbers too (inf ends like these); NaN is none.
        is_javas = F.lower(F.right(text, F.lit(1))).isin("d", "f") & (F.abs(typed) < float("inf"))
        return F.when(~F.isnan(typed) & ~is_javas, typed)
    # Spark would read a time without a date as one of today.
    dated = text.rlike(r"\A\d{4}-\d{2}-\d{2}" if field.logical_type == "timestamp" else r"\A\d{4}-\d{2}-\d{2}\z")
    typed = text.try_cast(field.spark_type)
    return F.when(dated, typed) if field.logical_type in ("timestamp", "date") else typed


def _unquoted(text: Column) -> Column:
    """Spark's parser hands a bare NaN, Infinity or 1e999 on in quotes; take them off."""
    return F.when(text.startswith('"'), F.btrim(text, F.lit('"'))).otherwise(text)


def _is_nested(text: Column) -> Column:
    """Whether the field held an object or a list where a text is due: bronze's text is then itself one in JSON."""
    return (text.startswith("{") | text.startswith("[")) & F.try_parse_json(text).isNotNull()


def _bound(field: Field, value: Any) -> Column:
    """A limit of the contract as a literal of the field's type."""
    return F.lit(str(value) if field.logical_type in ("timestamp", "date") else value).cast(field.spark_type)
