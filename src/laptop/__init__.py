"""What only a laptop needs, and the command; no cluster gets it."""
