"""Findings become alerts, which are kept until they are delivered."""
