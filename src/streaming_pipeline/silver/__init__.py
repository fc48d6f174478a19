"""One row per event; what is no event, or no new one, beside it."""
