"""What the tests of foreign text share."""

FORGED = "SUCCESS in 1.0 s"
FOREIGN = f"y\n{FORGED}\x1b[2J\x9b1m\x07\u202egnp\u200b$\\frac{{$ <i>é"


def assert_is_text(shown: str, times: int = 1, is_html: bool = False) -> None:
    """That it is shown so often, or more, and that nothing of it is more than text."""
    assert not is_html or "<i>" not in shown
    assert shown.count("\\x1b[2J") >= times
    assert not [mark for mark in ("\x1b[2J", "\x9b", "\x07", "\u202e", "\u200b") if mark in shown]
    assert not [line for line in shown.splitlines() if line.strip().startswith(FORGED)]
