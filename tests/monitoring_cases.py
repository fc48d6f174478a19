"""What the tests of monitoring share."""


def places(held, above=()):
    """Where the numbers of a value of JSON are."""
    if isinstance(held, int | float):
        yield above
    parts = held.items() if isinstance(held, dict) else enumerate(held) if isinstance(held, list) else ()
    for name, part in parts:
        yield from places(part, (*above, name))
