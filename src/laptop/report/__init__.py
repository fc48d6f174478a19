"""The report, and the demo with its judge."""
