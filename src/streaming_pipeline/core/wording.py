"""Counts and durations as people read them."""

_UNITS = (("day", 86_400), ("hour", 3_600), ("minute", 60), ("second", 1))
_FEW_DAYS = 10
"""From so many days on nobody asks for the hours."""


def plural(number: int, one: str, many: str = "") -> str:
    """A count with its noun: `1 row`, `3,000 rows`; `many` where the plural takes more than an s."""
    return f"{number:,} {one if number == 1 else many or f'{one}s'}"


def duration(seconds: float) -> str:
    """A length of time in the units that a person would take: `0.4 seconds`, `2 hours 34 minutes`, `272 days`."""
    if seconds < 0:
        return f"-{duration(-seconds)}"
    if seconds < 10:
        return f"{seconds:.1f}".removesuffix(".0") + (" second" if f"{seconds:.1f}" == "1.0" else " seconds")
    if seconds >= _FEW_DAYS * 86_400:
        return plural(round(seconds / 86_400), "day")
    # The next smaller unit is as fine as it gets: rounded first, so that no 60 minutes are left over.
    place = next(place for place, (_, length) in enumerate(_UNITS) if round(seconds) >= length)
    finer = _UNITS[min(place + 1, len(_UNITS) - 1)][1]
    rest, parts = round(seconds / finer) * finer, []
    for name, length in _UNITS:
        whole, rest = divmod(rest, length)
        parts += [plural(whole, name)] if whole else []
    return " ".join(parts)
