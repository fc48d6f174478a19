"""How pages look: a run's, a notebook's, the report's."""

from jinja2 import Environment
from markupsafe import Markup

from streaming_pipeline.core.foreign_text import PAGE, harmless

PAGE_CSS = """
:root { color-scheme: light dark; --text: #1b2631; --faint: #5d6b78; --page: #f5f7f9; --card: #ffffff; --line: #d9e0e6;
  --code: #f3f5f7; --link: #0b63b5; --good: #17703b; --bad: #b3261e; --calm: #5d6b78; --busy: #8a5a00; }
@media (prefers-color-scheme: dark) { :root { --text: #e4e9ee; --faint: #9dabb8; --page: #12171c; --card: #1a2128; --line: #333e48;
  --code: #141a20; --link: #7cb8f5; --good: #66c98c; --bad: #ff8a80; --calm: #9dabb8; --busy: #e5b567; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--text); font: 15px/1.5 system-ui, "Segoe UI", Roboto, "Helvetica Neue", sans-serif; }
main { max-width: 1120px; margin: 0 auto; padding: 24px 20px 64px; }
h1 { font-size: 1.55rem; line-height: 1.25; margin: 0 0 6px; overflow-wrap: anywhere; }
h2 { font-size: 1.1rem; margin: 28px 0 8px; }
a { color: var(--link); }
.faint { color: var(--faint); }
.facts { color: var(--faint); margin: 0 0 20px; }
.state { font-weight: 600; white-space: nowrap; }
.state::before { content: "●"; margin-right: .4em; }
.SUCCESS { color: var(--good); } .FAILED, .TIMEDOUT, .UPSTREAM_FAILED { color: var(--bad); }
.EXCLUDED, .PENDING { color: var(--calm); } .RUNNING, .CANCELED { color: var(--busy); }
.scroll { overflow: auto; max-width: 100%; }
table { border-collapse: collapse; font-size: .93em; }
th, td { text-align: left; vertical-align: top; padding: 5px 12px 5px 0; border-bottom: 1px solid var(--line); }
th { color: var(--faint); font-weight: 600; }
.number { text-align: right; font-variant-numeric: tabular-nums; }
pre, code { font: 13px/1.5 ui-monospace, "SF Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace; }
pre { white-space: pre-wrap; overflow-wrap: anywhere; margin: 0; }
"""
"""Light and dark, no network."""


def page_environment() -> Environment:
    """Templates in which a value is text and no more, whoever wrote it; the filter `lines` leaves the lines of one of ours."""
    shown = lambda value: harmless(value) if isinstance(value, str) and not isinstance(value, Markup) else value  # noqa: E731
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True, finalize=shown)
    environment.filters["lines"] = lambda text: Markup.escape(harmless(text, PAGE, is_lines=True))
    return environment
