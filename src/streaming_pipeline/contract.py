"""The event contract (`config/event_contract.yml`, Open Data Contract Standard 3): what an event must be, and whether the file says so.

`rules.py` holds records against it.
"""

import hashlib
import re
from dataclasses import dataclass
from datetime import datetime
from math import inf
from pathlib import Path
from typing import Any

from streaming_pipeline.config_files import Checker, parse_yaml, read_text

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


def load_contract(path: str | Path) -> Contract:
    """Read and validate a contract file; raises `UsageError` naming the file and the key."""
    return parse_contract(read_text(path, "the event contract"), str(path))


def parse_contract(text: str, source: str = "event contract") -> Contract:
    """The contract that `text` (YAML) holds; raises `UsageError` naming `source` and the key at fault."""
    document, canonical = parse_yaml(text, source)
    check = Checker(source)
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
    custom = _custom_properties(check, event.get("customProperties", []), "schema[0].customProperties")
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


def _custom_properties(check: Checker, value: Any, key: str) -> dict[str, Any]:
    known = {"eventTimeField", "sliceField", "maxFutureSeconds"}
    if not isinstance(value, list):
        check.fail(key, "must be a list of property and value")
    found = {}
    for index, item in enumerate(value):
        item = check.mapping(item, f"{key}[{index}]", {"property", "value"}, {"id", "property", "value", "description"})
        if not isinstance(item["property"], str) or item["property"] not in known:
            check.fail(f"{key}[{index}]", f"unknown property {item['property']!r}; known: {', '.join(sorted(known))}")
        found[item["property"]] = item["value"]
    return found


def _field(check: Checker, item: Any, key: str) -> Field:
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


def _check_option(check: Checker, key: str, logical_type: str, option: str, value: Any) -> None:
    """Refuse an option whose value does not fit the field's type."""
    if option == "pattern":
        if not isinstance(value, str):
            check.fail(key, f"{value!r} is not a regular expression")
    elif option.endswith("Length"):
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**31:
            check.fail(key, f"{value!r} is not a whole number from 0 to {2**31 - 1}")
    else:
        _check_value(check, key, logical_type, value)


def _check_value(check: Checker, key: str, logical_type: str, value: Any) -> None:
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
