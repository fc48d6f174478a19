"""The event contract (`config/event_contract.yml`, Open Data Contract Standard 3): what an event must be, and whether the file says so.

`rules.py` holds records against it.
"""

import hashlib
import json
import re
from dataclasses import dataclass, fields
from datetime import datetime
from math import inf
from pathlib import Path
from typing import Any

from streaming_pipeline.core.config_files import Checker, parse_yaml, read_text
from streaming_pipeline.core.errors import UsageError
from streaming_pipeline.core.json_files import Damaged, read_json
from streaming_pipeline.core.patterns import MOST_STEPS, most_steps

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
LONGEST_MATCHED = 1_000
"""Characters of a text that is held against a pattern: Java's expressions recurse, and a longer one could end the whole process."""
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

    @property
    def longest_matched(self) -> int:
        """Characters of the longest text that is held against the pattern; a longer one is rejected without."""
        return min(LONGEST_MATCHED, self.max_length or LONGEST_MATCHED)


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
    top = check.mapping(document, "the file", {"apiVersion", "kind", "id", "version", "status", "schema"}, _TOP_KEYS | set(_CONTRACT_RULES))
    _refuse_rules(check, top, "the file", _CONTRACT_RULES)
    if not str(top["apiVersion"]).startswith("v3."):
        check.fail("apiVersion", f"{top['apiVersion']!r} is not supported: use v3.x")
    if top["kind"] != "DataContract":
        check.fail("kind", f"{top['kind']!r} is not DataContract")
    if not isinstance(top["schema"], list) or len(top["schema"]) != 1:
        check.fail("schema", "must be a list of exactly one object: the event")
    _refuse_roles(check, top, "customProperties")
    event = check.mapping(top["schema"][0], "schema[0]", {"name", "properties"}, _SCHEMA_KEYS | set(_EVENT_RULES))
    _refuse_rules(check, event, "schema[0]", _EVENT_RULES)
    if event.get("logicalType", "object") != "object":
        check.fail("schema[0].logicalType", f"{event['logicalType']!r} is not supported: an event is one JSON object")
    if not isinstance(event["properties"], list) or not event["properties"]:
        check.fail("schema[0].properties", "must be a list of fields")
    properties = tuple(_field(check, item, f"schema[0].properties[{index}]") for index, item in enumerate(event["properties"]))
    names = [field.name for field in properties]
    for name in names:
        if [other.lower() for other in names].count(name.lower()) > 1:
            check.fail("schema[0].properties", f"the field {name!r} stands there twice")
    keys = [item["name"] for item in event["properties"] if item.get("primaryKey")]
    if len(keys) != 1:
        check.fail("schema[0].properties", f"exactly one field must have primaryKey: true, not {len(keys)}")
    custom = _custom_properties(check, event.get("customProperties", []), "schema[0].customProperties")
    by_name = {field.name: field for field in properties}
    time_name = custom.get("eventTimeField")
    if not isinstance(time_name, str) or time_name not in by_name or by_name[time_name].logical_type != "timestamp":
        check.fail("schema[0].customProperties.eventTimeField", f"{time_name!r} is not a field of logicalType timestamp")
    slice_name = custom.get("sliceField")
    if slice_name is not None and (not isinstance(slice_name, str) or slice_name not in by_name):
        check.fail("schema[0].customProperties.sliceField", f"{slice_name!r} is not a field")
    for name in (keys[0], time_name):
        if not by_name[name].required:
            check.fail(f"field {name}", "must have required: true, since it identifies or dates each row")
    future = custom.get("maxFutureSeconds", 86400)
    if not isinstance(future, int) or isinstance(future, bool) or not 0 <= future <= 10 * 366 * 86400:
        check.fail("schema[0].customProperties.maxFutureSeconds", f"{future!r} is not a whole number of seconds, ten years at most")
    return Contract(
        fields=properties,
        id_field=keys[0],
        event_time_field=time_name,
        slice_field=slice_name,
        max_future_seconds=future,
        fingerprint=hashlib.sha256(canonical.encode()).hexdigest()[:16],
        text=text,
    )


def differences(old: Contract, new: Contract) -> list[str]:
    """What `new` asks that `old` did not, and the other way round, in words; empty where they differ in documentation alone."""
    before, after = ({field.name: field for field in contract.fields} for contract in (old, new))
    found = [f"{name} added" for name in after if name not in before] + [f"{name} removed" for name in before if name not in after]
    for name, was, now in [(name, before[name], after[name]) for name in after if name in before]:
        if was.logical_type != now.logical_type:
            found.append(f"{name}: {was.logical_type} → {now.logical_type}")
        if was.required != now.required:
            found.append(f"{name} is {'required now' if now.required else 'no longer required'}")
        rules = [rule.name for rule in fields(Field) if rule.name not in ("name", "logical_type", "required", "description")]
        found += [f"{name}: {rule.replace('_', ' ')} changed" for rule in rules if getattr(was, rule) != getattr(now, rule)]
    for role in ("id_field", "event_time_field", "slice_field", "max_future_seconds"):
        if getattr(old, role) != getattr(new, role):
            found.append(f"{role.replace('_', ' ')}: {getattr(old, role)} → {getattr(new, role)}")
    return found


def change(remembered: Path, contract: Contract) -> str:
    """A sentence about what has changed since `remember` wrote the file; empty if nothing has, or nothing is known."""
    try:
        old = parse_contract(str(read_json(remembered)))
    except (FileNotFoundError, Damaged, UsageError):  # none, half of one, or one of an older version: it is only for a note
        return ""
    if old.fingerprint == contract.fingerprint:
        return ""
    found = differences(old, contract) or ["its rules are the same"]
    more = f", {len(found) - _MOST_TOLD} more" if len(found) > _MOST_TOLD else ""
    return f"judged by another contract than before, {old.fingerprint} → {contract.fingerprint}: {', '.join(found[:_MOST_TOLD])}{more}"


def remember(remembered: Path, contract: Contract) -> None:
    """Keep the contract for the `change` of the next run. In place, since volumes do not know how to rename."""
    remembered.parent.mkdir(parents=True, exist_ok=True)
    remembered.write_text(json.dumps(contract.text), encoding="utf-8")


_MOST_TOLD = 8
_TOP_KEYS = {
    *("apiVersion", "kind", "id", "name", "version", "status", "tenant", "tags", "servers", "dataProduct", "description", "domain"),
    *("schema", "support", "price", "team", "roles", "authoritativeDefinitions"),
    *("customProperties", "contractCreatedTs"),
}
_SCHEMA_KEYS = {
    *("id", "name", "physicalName", "physicalType", "logicalType", "businessName", "description", "dataGranularityDescription"),
    *("properties", "tags", "authoritativeDefinitions", "customProperties"),
}
_FIELD_KEYS = {
    *("id", "name", "physicalName", "physicalType", "logicalType", "logicalTypeOptions", "businessName", "description", "required"),
    *("primaryKey", "primaryKeyPosition", "quality", "tags", "classification", "examples", "criticalDataElement"),
    *("authoritativeDefinitions", "customProperties", "transformDescription", "transformSourceObjects", "encryptedName"),
}
# What the standard has and a record is not held against: to ignore it would let pass what somebody has ruled out.
_CONTRACT_RULES = {
    "slaProperties": "the job's parameters freshness_limit_seconds and late_after_seconds say what is promised",
    "slaDefaultElement": "it belongs to slaProperties",
}
_EVENT_RULES = {
    "quality": "a rule stands at a field; nothing is asked of the whole record",
    "relationships": "records are not held against others",
}
_FIELD_RULES = {
    "unique": "only the field with primaryKey: true identifies events",
    "relationships": "records are not held against others",
    "properties": "a field is one value: let the producer put what is inside another object at the top of the event",
    "items": "a field is one value: let the producer put what is inside a list at the top of the event",
    "transformLogic": "a value is kept as it comes: transform it at its source, or in a view of silver",
    "partitioned": "silver is partitioned by event_date",
    "partitionKeyPosition": "silver is partitioned by event_date",
}
_ROLES = ("eventTimeField", "sliceField", "maxFutureSeconds")


def _refuse_rules(check: Checker, item: dict[str, Any], key: str, rules: dict[str, str]) -> None:
    """Refuse what would be a rule, but for one that says nothing, as tools write them (`unique: false`, `relationships: []`)."""
    for name, reason in rules.items():
        if item.get(name) not in (None, False, [], -1):
            check.fail(key, f"{name}: {str(item[name])[:40]} is not supported: {reason}; take it out")


def _refuse_roles(check: Checker, item: dict[str, Any], key: str) -> None:
    """Refuse our own properties where they would only be somebody's documentation."""
    properties = item.get("customProperties")
    for held in properties if isinstance(properties, list) else []:
        if isinstance(held, dict) and held.get("property") in _ROLES:
            check.fail(key, f"{held['property']} has no effect here; put it into schema[0].customProperties")


def _custom_properties(check: Checker, value: Any, key: str) -> dict[str, Any]:
    if not isinstance(value, list):
        check.fail(key, "must be a list of property and value")
    found = {}
    for index, item in enumerate(value):
        item = check.mapping(item, f"{key}[{index}]", {"property", "value"}, {"id", "property", "value", "description"})
        if not isinstance(item["property"], str) or item["property"] not in _ROLES:
            check.fail(f"{key}[{index}]", f"unknown property {item['property']!r}; known: {', '.join(sorted(_ROLES))}")
        found[item["property"]] = item["value"]
    return found


def _field(check: Checker, item: Any, key: str) -> Field:
    """One entry of `properties` → `Field`."""
    item = check.mapping(item, key, {"name", "logicalType"}, _FIELD_KEYS | set(_FIELD_RULES))
    name = item["name"]
    key = f"field {name}"
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        check.fail(key, "a name has letters, digits and '_' only, and starts with a letter")
    if name.lower() in RESERVED:
        check.fail(key, "this name is a column of the pipeline's own; rename the field at its source")
    if item.get("physicalName", name) != name:
        check.fail(
            f"{key}.physicalName",
            f"{item['physicalName']!r} is not supported, as a field is read by its name at the top of the event: take it out, and name the "
            "field as the producer does",
        )
    _refuse_roles(check, item, f"{key}.customProperties")
    for flag in ("required", "primaryKey", "unique"):
        if not isinstance(item.get(flag, False), bool):
            check.fail(key, f"{flag} must be true or false, not {item[flag]!r}")
    # Beside primaryKey it says the same.
    _refuse_rules(check, {**item, "unique": item.get("unique", False) and not item.get("primaryKey", False)}, key, _FIELD_RULES)
    logical_type = item["logicalType"]
    if not isinstance(logical_type, str) or logical_type not in SPARK_TYPES:
        check.fail(key, f"logicalType {logical_type!r} is not supported; use one of {', '.join(SPARK_TYPES)}")
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
    field = Field(
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
    if field.pattern is not None and most_steps(field.pattern, field.longest_matched) > MOST_STEPS:
        check.fail(
            f"{key}.logicalTypeOptions.pattern",
            f"{field.pattern[:80]!r} could hold a stream up for minutes on one text of {field.longest_matched:,} characters. Set a lower "
            "maxLength, or let repeats and choices within a repeat, or next to one that matches the same characters, give nothing back: "
            "++ for +, *+ for *, (?>a|b) for (a|b)",
        )
    return field


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
