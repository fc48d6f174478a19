"""The event contract: what it may hold, and that an error names file and key. (What its rules do is in test_silver.py.)"""

import os
from pathlib import Path

import pytest
import yaml
from bronze_rows import shipped_contract

from streaming_pipeline.core import contract
from streaming_pipeline.core.contract import load_contract, parse_contract
from streaming_pipeline.core.errors import UsageError

SHIPPED = Path(__file__).parents[2] / "config" / "event_contract.yml"


def put(*path, value):
    """The shipped contract's text with one value replaced or added."""
    document = yaml.safe_load(SHIPPED.read_text())
    node = document
    for key in path[:-1]:
        node = node[key]
    node[path[-1]] = value
    return yaml.safe_dump(document)


def changed(*path, value):
    """The same; None takes the key away."""
    document = yaml.safe_load(put(*path, value=value))
    node = document
    for key in path[:-1]:
        node = node[key]
    if value is None:
        del node[path[-1]]
    return yaml.safe_dump(document)


def test_the_shipped_contract():
    contract = shipped_contract()
    assert contract.field_names == ["event_id", "event_type", "timestamp", "value"]
    assert (contract.id_field, contract.event_time_field, contract.slice_field) == ("event_id", "timestamp", "event_type")


def test_the_fingerprint_follows_the_meaning_and_not_the_layout():
    text = SHIPPED.read_text()
    same = parse_contract("# another comment\n" + text)
    assert same.fingerprint == shipped_contract().fingerprint
    assert parse_contract(text.replace("purchase, view", "purchase")).fingerprint != same.fingerprint


def allowed(values):
    """A rule that allows these values."""
    return {"metric": "invalidValues", "arguments": {"validValues": values}, "mustBe": 0}


EVENT = ("schema", 0)
FIELDS = (*EVENT, "properties")


@pytest.mark.parametrize(
    ("path", "value", "named"),
    [
        (("apiVersion",), "v2.0.0", "apiVersion"),
        (("kind",), None, "kind"),
        (("kind",), "Other", "kind"),
        (("colour",), "blue", "colour"),
        ((*EVENT, "propertys"), [], "propertys"),
        ((*FIELDS, 0, "requird"), True, "requird"),
        ((*FIELDS, 0, "required"), "yes", "event_id.*required"),
        ((*FIELDS, 0, "required"), False, "event_id.*required"),
        ((*FIELDS, 0, "primaryKey"), None, "primaryKey"),
        ((*FIELDS, 1, "primaryKey"), True, "primaryKey"),
        ((*FIELDS, 0, "logicalType"), "text", "event_id.*logicalType"),
        ((*FIELDS, 0, "logicalTypeOptions"), {"minimum": 1}, "event_id.logicalTypeOptions.*minimum"),
        ((*FIELDS, 0, "logicalTypeOptions"), {"minLength": "one"}, "event_id.logicalTypeOptions.minLength"),
        ((*FIELDS, 0, "logicalTypeOptions"), {"pattern": 1}, "event_id.logicalTypeOptions.pattern"),
        ((*FIELDS, 0, "logicalTypeOptions"), {"pattern": "^(a+)+$"}, r"event_id.logicalTypeOptions.pattern.*\(a\+\)\+.*maxLength"),
        ((*FIELDS, 2, "logicalTypeOptions"), {"minimum": "2026-02-30T00:00:00Z"}, "timestamp.logicalTypeOptions.minimum"),
        ((*FIELDS, 3, "quality"), [allowed(["1"])], "value.quality.*not a number"),
        ((*FIELDS, 3, "quality"), [allowed([1]), allowed([2])], "value.quality.*one rule"),
        ((*FIELDS, 2, "logicalTypeOptions"), {"minimum": "last year"}, "timestamp.logicalTypeOptions.minimum"),
        ((*FIELDS, 1, "quality"), [{"metric": "rowCount", "mustBe": 0}], "event_type.quality"),
        ((*FIELDS, 1, "quality", 0, "arguments", "validValues"), [True, False], "event_type.quality.*quotes"),
        ((*FIELDS, 1, "name"), "event_id", "event_id.*twice"),
        ((*FIELDS, 1, "name"), "offset", "offset"),
        ((*FIELDS, 1, "name"), "parse_error", "parse_error"),
        ((*FIELDS, 1, "name"), "two words", "two words"),
        ((*EVENT, "customProperties", 0, "value"), "value", "eventTimeField"),
        ((*EVENT, "customProperties", 1, "value"), "nothing", "sliceField"),
        ((*EVENT, "customProperties", 2, "value"), -1, "maxFutureSeconds"),
        ((*EVENT, "customProperties", 2, "property"), "maxFuture", "maxFuture"),
        ((*EVENT, "customProperties", 0, "value"), ["timestamp"], "eventTimeField"),
        ((*EVENT, "customProperties", 1, "value"), {"a": 1}, "sliceField"),
        ((*EVENT, "customProperties", 2, "value"), 10**22, "maxFutureSeconds"),
        ((*EVENT, "customProperties", 2, "property"), ["x"], "unknown property"),
        ((*FIELDS, 3, "logicalType"), ["number"], "value.*logicalType"),
        (("schema",), [], "schema"),
        ((*FIELDS, 0, "logicalTypeOptions"), {"minLength": -5}, "event_id.logicalTypeOptions.minLength.*-5.*from 0"),
        ((*FIELDS, 0, "logicalTypeOptions"), {"maxLength": -1}, "event_id.logicalTypeOptions.maxLength"),
        ((*FIELDS, 0, "logicalTypeOptions"), {"maxLength": 2**31}, "event_id.logicalTypeOptions.maxLength"),
        ((*FIELDS, 0, "logicalTypeOptions"), {"minLength": 3, "maxLength": 2}, "event_id.*minLength: 3 is above maxLength, 2"),
        ((*FIELDS, 3, "logicalTypeOptions"), {"minimum": 1, "maximum": 0.5}, "value.logicalTypeOptions.minimum: 1 is above maximum, 0.5"),
        ((*FIELDS, 3, "logicalTypeOptions"), {"exclusiveMinimum": 1, "maximum": 0}, "value.logicalTypeOptions.exclusiveMinimum"),
        ((*FIELDS, 3, "logicalTypeOptions"), {"minimum": float("nan")}, "value.logicalTypeOptions.minimum: nan"),
        ((*FIELDS, 3, "logicalTypeOptions"), {"maximum": float("-inf")}, "value.logicalTypeOptions.maximum: -inf"),
        ((*FIELDS, 3, "logicalTypeOptions"), {"maximum": 10**400}, "value.logicalTypeOptions.maximum"),
        ((*FIELDS, 3, "quality"), [allowed([float("nan")])], "value.quality.*nan"),
        ((*FIELDS, 3, "quality"), 5, "value.quality.*list"),
        ((*FIELDS, 2, "logicalTypeOptions"), {"minimum": "2026-02-28T25:00:00Z"}, "timestamp.logicalTypeOptions.minimum"),
        (
            (*FIELDS, 2, "logicalTypeOptions"),
            {"minimum": "2026-01-01T00:00:00.5Z", "maximum": "2026-01-01T00:00:00Z"},
            "timestamp.logicalTypeOptions.minimum.*above maximum",
        ),
    ],
)
def test_an_error_in_the_contract_is_refused_with_file_and_key(tmp_path, path, value, named):
    file = tmp_path / "event_contract.yml"
    file.write_text(changed(*path, value=value))
    with pytest.raises(UsageError, match=rf"event_contract\.yml.*{named}"):
        load_contract(file)


NOT_SUPPORTED = [
    *[
        ((*FIELDS, 3, "physicalName"), name, r"field value\.physicalName: .*read by its name")
        for name in ("address.city", "", "Value", None)
    ],
    *[((*FIELDS, 3, "unique"), True, "field value: unique: True is not supported.*primaryKey")],
    *[((*FIELDS, 3, "properties"), [{"name": "city", "logicalType": "string"}], "field value: properties: .*top of the event")],
    *[
        ((*FIELDS, 3, key), value, f"field value: {key}: .*take it out")
        for key, value in (("items", {"a": 1}), ("transformLogic", "x + 1"))
    ],
    *[((*FIELDS, 3, "relationships"), [{"to": "users.id"}], "field value: relationships: .*take it out")],
    *[((*FIELDS, 3, "partitioned"), True, "field value: partitioned: .*event_date")],
    *[((*FIELDS, 3, "logicalTypeOptions"), {"multipleOf": 5}, "multipleOf")],
    *[((*FIELDS, 0, "logicalTypeOptions"), {"format": "uuid"}, "format")],
    *[(("slaProperties",), [{"property": "latency", "value": 4}], "slaProperties: .*freshness_limit_seconds.*take it out")],
    *[(("slaDefaultElement",), "events.timestamp", "slaDefaultElement: .*take it out")],
    *[((*EVENT, "quality"), [{"metric": "rowCount", "mustBe": 5}], r"schema\[0\]: quality: .*at a field")],
    *[((*EVENT, "relationships"), [{"from": "a", "to": "b"}], r"schema\[0\]: relationships")],
    *[((*EVENT, "logicalType"), "array", r"schema\[0\]\.logicalType: 'array'")],
    *[(("customProperties",), [{"property": "sliceField", "value": "value"}], r"customProperties: sliceField has no effect here")],
    *[((*FIELDS, 2, "customProperties"), [{"property": "eventTimeField", "value": True}], "field timestamp.*eventTimeField has no effect")],
]


@pytest.mark.parametrize(("path", "value", "named"), NOT_SUPPORTED)
def test_a_rule_of_the_standard_that_no_record_is_held_against_is_refused_by_name(path, value, named):
    with pytest.raises(UsageError, match=rf"my\.yml: .*{named}"):
        parse_contract(put(*path, value=value), "my.yml")


def test_what_only_documents_passes_and_so_does_a_rule_that_asks_nothing():
    document = yaml.safe_load(SHIPPED.read_text())
    document |= {"slaProperties": [], "slaDefaultElement": None, "team": {"name": "us"}, "tags": ["a"], "servers": []}
    document["customProperties"] = [{"property": "owner", "value": "us"}]
    document["schema"][0] |= {"physicalName": "stream-input", "physicalType": "topic", "businessName": "Events", "quality": []}
    first, *others = document["schema"][0]["properties"]
    first |= {"unique": True, "primaryKeyPosition": 1, "physicalName": "event_id", "classification": "public", "examples": ["a"]}
    for field in others:
        field |= {"unique": False, "primaryKey": False, "partitioned": False, "partitionKeyPosition": -1, "relationships": [], "tags": []}
        field |= {"criticalDataElement": True, "transformDescription": "as it comes", "customProperties": [{"property": "pii", "value": 0}]}
    assert parse_contract(yaml.safe_dump(document)).fields == shipped_contract().fields


def test_the_docs_say_of_every_key_whether_it_counts():
    page = (Path(__file__).parents[2] / "docs" / "adapt.md").read_text()
    keys = contract._TOP_KEYS | contract._SCHEMA_KEYS | contract._FIELD_KEYS
    keys |= {*contract._CONTRACT_RULES, *contract._EVENT_RULES, *contract._FIELD_RULES}
    assert {key for key in keys if f"`{key}" not in page} == set()


@pytest.mark.parametrize(
    ("path", "value", "told"),
    [
        ((*FIELDS, 3, "logicalType"), "integer", "value: number → integer"),
        ((*FIELDS, 3, "required"), False, "value is no longer required"),
        ((*FIELDS, 3, "name"), "amount", "amount added, value removed"),
        ((*FIELDS, 1, "quality"), [allowed(["click", "refund"])], "event_type: valid values changed"),
        ((*FIELDS, 3, "logicalTypeOptions"), {"minimum": 0, "maximum": 9}, "value: minimum changed, value: maximum changed"),
        ((*EVENT, "customProperties", 2, "value"), 5, "max future seconds: 86400 → 5"),
        (("version",), "2.0.0", "its rules are the same"),
    ],
)
def test_what_has_changed_since_the_last_run_is_said_in_words_and_once(tmp_path, path, value, told):
    remembered, old, new = tmp_path / "contracts" / "streaming.json", shipped_contract(), parse_contract(put(*path, value=value))
    assert contract.change(remembered, old) == ""
    contract.remember(remembered, old)
    assert contract.change(remembered, old) == ""
    said = contract.change(remembered, new)
    assert said == f"judged by another contract than before, {old.fingerprint} → {new.fingerprint}: {told}"
    contract.remember(remembered, new)
    assert contract.change(remembered, new) == ""


@pytest.mark.parametrize("held", ["", "{", '"kind: 5"', "7", "\x00"])
def test_a_remembered_contract_that_cannot_be_read_is_none(tmp_path, held):
    (tmp_path / "streaming.json").write_text(held)
    assert contract.change(tmp_path / "streaming.json", shipped_contract()) == ""


@pytest.mark.parametrize("limit", [2**63, -(2**63) - 1, 1.5, float("inf")])
def test_a_limit_of_a_whole_number_is_one_of_64_bits(limit):
    document = yaml.safe_load(SHIPPED.read_text())
    document["schema"][0]["properties"][3] |= {"logicalType": "integer", "logicalTypeOptions": {"minimum": limit}}
    with pytest.raises(UsageError, match=r"value\.logicalTypeOptions\.minimum: .*64 bits"):
        parse_contract(yaml.safe_dump(document))


def test_limits_that_some_event_keeps_are_taken():
    text = changed(*FIELDS, 2, "logicalTypeOptions", value={"minimum": "2026-01-01T00:00:00Z", "maximum": "2026-01-01T00:00:00.5Z"})
    assert parse_contract(text).fields[2].maximum == "2026-01-01T00:00:00.5Z"
    assert parse_contract(changed(*FIELDS, 3, "logicalTypeOptions", value={"minimum": -1.0e300, "maximum": 2**63 - 1}))


@pytest.mark.parametrize(
    ("added", "named"),
    [
        ("kind: Other", r"line \d+: .*'kind' is given twice"),
        ("version: {{ VERSION }}", r"line \d+: .*a key must be a text"),
        ("tags: &all [a]\nroles: *all", r"line \d+: .*\*all"),
        ("tags: &all [*all]", r"line \d+: .*\*all"),
        (f"tags: {'[' * 3000}{']' * 3000}", "nested too deep"),
        ("contractCreatedTs: 2026-02-30", r"line \d+: .*2026-02-30"),
        ("contractCreatedTs: !!bool perhaps", r"line \d+: .*perhaps"),
        (f"price: 0x{'f' * 5000}", r"line \d+: .*0xfff"),
    ],
)
def test_yaml_that_hides_a_mistake_or_grows_without_end_is_refused(added, named):
    with pytest.raises(UsageError, match=named):
        parse_contract(f"{SHIPPED.read_text()}\n{added}\n")


def test_a_contract_that_is_no_yaml_is_refused_with_its_line(tmp_path):
    file = tmp_path / "event_contract.yml"
    file.write_text("apiVersion: v3.1.0\nkind: [\n")
    with pytest.raises(UsageError, match=r"event_contract\.yml line 3"):
        load_contract(file)
    with pytest.raises(UsageError, match="config_dir"):
        load_contract(tmp_path / "none.yml")


def test_a_file_that_nobody_has_written_by_hand_is_refused_before_it_is_parsed(tmp_path):
    file = tmp_path / "event_contract.yml"
    file.write_text(f"tags: [{'a' * 300_000}]\n")
    with pytest.raises(UsageError, match=r"event_contract\.yml has more than 200,000 characters"):
        load_contract(file)


def test_a_pipe_in_the_place_of_the_contract_is_refused_instead_of_waited_for(tmp_path):
    os.mkfifo(tmp_path / "event_contract.yml")
    with pytest.raises(UsageError, match=r"event_contract\.yml is a pipe or a device, and must be a file\."):
        load_contract(tmp_path / "event_contract.yml")
