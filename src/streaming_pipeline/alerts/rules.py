"""`config/alert_rules.yml`: who is told of which finding, how urgently and how often."""

import re
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from streaming_pipeline.alerts.addresses import address_problem
from streaming_pipeline.alerts.findings import KINDS, SEVERITIES
from streaming_pipeline.core.config_files import Checker, parse_yaml, read_text
from streaming_pipeline.core.errors import UsageError

CHANNELS = ("email", "webhook")
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}")
_TOP_KEYS = {"recipients", "group", "rules"}
_RULE_KEYS = {"name", "finding", "subjects", "at_least", "severity", "cooldown", "recipients", "channels"}
_UNITS = {"m": timedelta(minutes=1), "h": timedelta(hours=1), "d": timedelta(days=1)}
LONGEST = timedelta(days=30)


@dataclass(frozen=True)
class Rule:
    """One rule; what it leaves open is empty."""

    name: str
    finding: str
    subjects: tuple[str, ...] = ()
    at_least: str = "info"
    severity: str = ""
    cooldown: timedelta = timedelta()
    recipients: tuple[str, ...] = ()
    channels: tuple[str, ...] = ()

    def fits(self, kind: str, subject: str, severity: str) -> bool:
        """Whether it decides about a finding."""
        enough = SEVERITIES.index(severity) >= SEVERITIES.index(self.at_least)
        return self.finding == kind and enough and (not self.subjects or subject in self.subjects)


@dataclass(frozen=True)
class Rules:
    """The rules in order, and whether all that a run has to tell goes into one message."""

    rules: tuple[Rule, ...]
    group: bool = True

    def for_finding(self, kind: str, subject: str, severity: str) -> Rule | None:
        """The first rule that fits."""
        return next((rule for rule in self.rules if rule.fits(kind, subject, severity)), None)

    def cooldown(self, name: str) -> timedelta:
        """The cooldown of a rule; none of one that is no longer there."""
        return next((rule.cooldown for rule in self.rules if rule.name == name), timedelta())

    def check_name(self, name: str) -> None:
        """Raise `UsageError` if there is no rule of this name."""
        if name not in [rule.name for rule in self.rules]:
            raise UsageError(f"Parameter 'rule' is {name!r}: there is no such rule. Rules: {', '.join(rule.name for rule in self.rules)}.")


WITHOUT_FILE = Rules((Rule("job_failed", "job_failed"),))
"""What holds while the file cannot be read: that a run failed must be told all the same."""


def load_rules(path: str | Path) -> Rules:
    """Read and validate the file of rules; raises `UsageError` naming file and key."""
    return parse_rules(read_text(path, "the file of alert rules"), str(path))


def parse_rules(text: str, source: str = "alert rules") -> Rules:
    """The rules that `text` (YAML) holds; raises `UsageError` naming `source` and the key at fault."""
    document, _ = parse_yaml(text, source)
    check = Checker(source)
    top = check.mapping(document, "the file", {"rules"}, _TOP_KEYS)
    if not isinstance(top.get("group", True), bool):
        check.fail("group", f"must be true or false, not {top['group']!r}")
    everyone = _addresses(check, top.get("recipients"), "recipients")
    if not isinstance(top["rules"], list):
        check.fail("rules", "must be a list of rules")
    rules = tuple(_rule(check, item, f"rules[{index}]", everyone) for index, item in enumerate(top["rules"]))
    names = [rule.name for rule in rules]
    for name in names:
        if names.count(name) > 1:
            check.fail("rules", f"the name {name!r} stands there twice")
    return Rules(rules, top.get("group", True))


def _rule(check: Checker, item: Any, key: str, everyone: tuple[str, ...]) -> Rule:
    item = check.mapping(item, key, {"name", "finding"}, _RULE_KEYS)
    name = item["name"]
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        check.fail(f"{key}.name", f"{name!r}: a name has letters, digits, '_' and '-', and starts with a letter")
    key = f"rule {name}"
    if not isinstance(item["finding"], str) or item["finding"] not in KINDS:
        check.fail(f"{key}.finding", f"{item['finding']!r} is not one of {', '.join(KINDS)}")
    for name_of in ("severity", "at_least"):
        if item.get(name_of) is not None and item[name_of] not in SEVERITIES:
            check.fail(f"{key}.{name_of}", f"{item[name_of]!r} is not one of {', '.join(SEVERITIES)}")
    channels = _texts(check, item.get("channels"), f"{key}.channels")
    for channel in channels:
        if channel not in CHANNELS:
            check.fail(f"{key}.channels", f"{channel!r} is not one of {', '.join(CHANNELS)}")
    return Rule(
        name=name,
        finding=item["finding"],
        subjects=_texts(check, item.get("subjects"), f"{key}.subjects"),
        at_least=item.get("at_least") or "info",
        severity=item.get("severity") or "",
        cooldown=_duration(check, item.get("cooldown", "0m"), f"{key}.cooldown"),
        recipients=_addresses(check, item.get("recipients"), f"{key}.recipients") or everyone,
        channels=channels,
    )


def _duration(check: Checker, value: Any, key: str) -> timedelta:
    try:
        return parse_duration(value)
    except ValueError as error:
        check.fail(key, str(error))


def parse_duration(text: Any) -> timedelta:
    """`30m`, `4h` or `7d` as a time span of at most 30 days; raises `ValueError` that says what is wrong."""
    found = re.fullmatch(r"(\d{1,6})([mhd])", text.strip()) if isinstance(text, str) else None
    if not found or int(found[1]) * _UNITS[found[2]] > LONGEST:
        raise ValueError(f"{text!r} is not a time such as 30m, 4h or 7d, 30 days at most")
    return int(found[1]) * _UNITS[found[2]]


def _texts(check: Checker, value: Any, key: str) -> tuple[str, ...]:
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(text, str) and text for text in value):
        check.fail(key, "must be a list of texts")
    return tuple(dict.fromkeys(value))


def _addresses(check: Checker, value: Any, key: str) -> tuple[str, ...]:
    found = _texts(check, value, key)
    for text in found:
        if problem := address_problem(text):
            check.fail(key, problem)
    return found
