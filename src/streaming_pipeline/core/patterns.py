"""How long one text may keep a regular expression busy, judged by the expression alone.

Java tries one way after another: it goes back wherever a repeat or a `|` left another one, and the ways of repeats within repeats multiply
with each letter. `(a+){5,}` is not through with forty of them in a day. Nothing ends such a search, so a stream would hang on one record.
"""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

MOST_STEPS = 10_000_000
"""Steps for one text; so many take Java about a tenth of a second."""

_ATOM = re.compile(r"\\Q.*?(?:\\E|$)|\\[pPxN]\{[^}]*\}|\\k<\w+>|\\.|.", re.DOTALL)
_GROUP = re.compile(r"\((?:\?(?:(?P<closed>[>=!]|<[=!])|<\w+>|[a-zA-Z-]*(?P<flags>[:)])))?")
_TIMES = re.compile(r"(?:([*+?])|\{(\d+)(,(\d*))?\})([+?]?)")
_LITERAL = re.compile(r"[\w@:;,=<>/\"'%&!~`-]|\\[^\w\s]", re.ASCII)
_LINE_ENDS = "\n\r\x85\u2028\u2029"
_END, _UNKNOWN, _PAST = r"\z", "", "\0"


@dataclass(frozen=True)
class _Item:
    """One character, class or group, and how often it comes; a group has branches, and a closed one gives nothing back."""

    source: str
    low: int = 1
    high: float = 1
    branches: "tuple[tuple[_Item, ...], ...] | None" = None
    is_closed: bool = False
    is_possessive: bool = False


def most_steps(pattern: str, longest: int) -> float:
    """How long it takes at most to see that a text of so many characters is no whole match; 0 for a pattern that cannot be read.

    Each way to try may lead through the whole text.
    """
    try:
        branches, end = _branches(pattern, 0)
        return longest * math.prod(_choices(branches, {_END}, longest)) if end == len(pattern) else 0
    except IndexError:  # a bracket is left open: Spark will say so
        return 0
    except RecursionError:
        return math.inf


def _branches(pattern: str, at: int) -> tuple[tuple[tuple[_Item, ...], ...], int]:
    """The branches up to a closing bracket or the end, and where they end."""
    branches: list[list[_Item]] = [[]]
    while at < len(pattern) and pattern[at] != ")":
        if pattern[at] == "|":
            branches.append([])
            at += 1
        else:
            item, at = _item(pattern, at)
            branches[-1].append(item)
    return tuple(map(tuple, branches)), at


def _item(pattern: str, at: int) -> tuple[_Item, int]:
    begin, is_closed = at, False
    branches: tuple[tuple[_Item, ...], ...] | None = None
    if pattern[at] == "[":
        at = _end_of_class(pattern, at)
    elif pattern[at] == "(" and (group := _matched(_GROUP, pattern, at))["flags"] != ")":
        branches, at = _branches(pattern, group.end())
        is_closed = bool(group["closed"])
        at += len(pattern[at])  # its bracket must be there
    else:
        at = _matched(_GROUP if pattern[at] == "(" else _ATOM, pattern, at).end()
    source = pattern[begin:at] if branches is None else ""
    if not (times := _TIMES.match(pattern, at)):
        return _Item(source, 1, 1, branches, is_closed), at
    sign, least, comma, most, more = times.groups()
    low = int(least) if least else int(sign == "+")
    high = int(most) if most else low if least and not comma else 1 if sign == "?" else math.inf
    return _Item(source, low, high, branches, is_closed, more == "+"), times.end()


def _matched(expression: re.Pattern[str], pattern: str, at: int) -> re.Match[str]:
    """What stands there; raises `IndexError` where the pattern is at its end."""
    if (found := expression.match(pattern, at)) is None:
        raise IndexError(at)
    return found


def _end_of_class(pattern: str, at: int) -> int:
    """Where a `[…]` ends, which may hold others."""
    at += 2 if pattern[at + 1] == "^" else 1
    at += pattern[at] == "]"
    while pattern[at] != "]":
        at = _end_of_class(pattern, at) if pattern[at] == "[" else _matched(_ATOM, pattern, at).end()
    return at + 1


def _choices(branches: tuple[tuple[_Item, ...], ...], follow: set[str], longest: int) -> tuple[float, float]:
    """How many ways are left to what follows, and how many are tried within parts that give nothing back."""
    each = [_of_sequence(items, follow, longest) for items in branches]
    begins = [{begin[-1:].lower() for begin in _begins(items, follow)} for items in branches]
    is_decided = _UNKNOWN not in set().union(*begins) and sum(map(len, begins)) == len(set().union(*begins))
    return (max if is_decided else sum)(choices for choices, _ in each), max(work for _, work in each)


def _of_sequence(items: tuple[_Item, ...], follow: set[str], longest: int) -> tuple[float, float]:
    choices, work, endless = 1.0, 1.0, 0
    for item in reversed(items):
        high = int(min(item.high, max(longest, item.low)))
        counts = high - item.low + 1
        if item.branches is None:
            inner, within = 1.0, 1.0
            if counts > 1 and all(_excludes(item.source, other) for other in follow):
                counts = 1  # it must go on for as long as it can
        else:
            again = set(_begins((replace(item, low=1),), {_UNKNOWN})) if high > 1 else set()
            inner, within = _choices(item.branches, {_UNKNOWN} if item.is_closed else follow | again, longest)
            if item.is_closed:
                inner, within = 1.0, within * inner
        if item.is_possessive:
            inner, within, counts = 1.0, within * inner, 1
        endless += counts > 1 and item.high >= longest
        choices, work = choices * _power(inner, high) * counts, max(work, within)
        follow = set(_begins((item,), follow))
    return choices / math.factorial(min(endless, 100)), work  # the endless ones share the text


def _begins(items: tuple[_Item, ...], follow: set[str]) -> Iterator[str]:
    """What a text may begin with that these and `follow` match."""
    for item in items:
        begins = {item.source if _LITERAL.fullmatch(item.source) or item.source in ("$", r"\Z", _END) else _UNKNOWN}
        if item.branches is not None and not item.is_closed:
            begins = {begin for branch in item.branches for begin in _begins(branch, {_PAST})}
        yield from begins - {_PAST}
        if item.low > 0 and _PAST not in begins:
            return
    yield from follow


def _excludes(source: str, other: str) -> bool:
    """Whether a character or class surely matches no character that `other` stands for."""
    if other in (_UNKNOWN, _END):
        return other == _END
    if "&&" in source or "[" in source[1:]:  # Java's alone
        return False
    try:
        return not any(re.fullmatch(source, one, re.IGNORECASE) for one in (_LINE_ENDS if other in ("$", r"\Z") else other[-1]))
    except re.error:
        return False


def _power(base: float, exponent: int) -> float:
    try:
        return base**exponent
    except OverflowError:
        return math.inf
