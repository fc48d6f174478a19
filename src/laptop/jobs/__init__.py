"""Runs the jobs of any bundle: a graph of tasks, their notebooks, and the pages that show how it went."""
