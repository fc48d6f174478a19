"""How fast does the report open, and how fast is it made, with a million events behind it? In headless Chromium, from a file."""

import argparse
import io
import shutil

from bench import fresh_home, seconds, table, write_section
from playwright.sync_api import sync_playwright
from rich.console import Console

from laptop.models import laptop_settings
from laptop.report.demo import run_demo
from laptop.report.report import REPORT, write_report
from laptop.services.spark import start_session

EVENTS, OPENINGS = 1_000_000, 5


def main() -> None:
    """Run a demo, open its report, and write the section of RESULTS.md."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=EVENTS)
    options = parser.parse_args()
    home = fresh_home("report")
    assert run_demo(home, count=options.events, console=Console(file=io.StringIO()))
    spark = start_session(home)
    settings = laptop_settings(home, "streaming")
    made = [seconds(lambda: write_report(spark, settings, home))[0] for _ in range(2)]
    spark.stop()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        took = []
        for _ in range(OPENINGS):
            page = browser.new_page(bypass_csp=True)  # the page allows no script, and to measure takes one
            page.goto((home / REPORT).as_uri())
            page.wait_for_function("performance.getEntriesByName('first-contentful-paint').length")
            asked = ("getEntriesByName('first-contentful-paint')[0].startTime", "getEntriesByType('navigation')[0].duration")
            took.append([page.evaluate(f"performance.{what}") for what in asked])
            page.close()
        browser.close()
    painted, loaded = (sorted(times)[OPENINGS // 2] / 1000 for times in zip(*took, strict=True))
    size = (home / REPORT).stat().st_size
    write_section(
        "Report",
        f"A demo of {options.events:,} events; the page has {size / 1000:,.0f} kB. Median of {OPENINGS} openings.\n\n"
        + table(
            ["measure", "goal", "measured"],
            [
                ["the page is there (load event)", "≤ 1 s", f"{loaded:.2f} s"],
                ["first paint", "", f"{painted:.2f} s"],
                ["made, Spark just started", "", f"{made[0]:.1f} s"],
                ["made once more", "", f"{made[1]:.1f} s"],
            ],
        ),
    )


if __name__ == "__main__":
    main()
