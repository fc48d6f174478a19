"""Text that others wrote: names and values of records, and what errors quote of them. A producer puts into it what it likes."""

NAME, TEXT, PAGE = 60, 4_000, 100_000
"""Characters that are shown of a name, of a value or sentence, and of several lines."""


def harmless(text: object, longest: int = TEXT, *, is_lines: bool = False) -> str:
    """The text as a terminal, a log, a mail or a page may show it: at most `longest` characters, and those escaped that nobody sees.

    An escape sequence would write into the reader's terminal, a line feed would forge a line of ours, and a mark of direction or of no
    width makes one name look like another. `is_lines` leaves line feeds and tabs, for a text of ours that quotes others.
    """
    cut = str(text)[: longest + 1]  # one more, to see whether there is more
    if not cut.isprintable():
        kept = "\n\t" if is_lines else ""
        cut = "".join(c if c.isprintable() or c in kept else c.encode("unicode_escape").decode() for c in cut)
    return cut if len(cut) <= longest else f"{cut[: longest - 1]}…"
