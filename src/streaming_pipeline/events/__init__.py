"""Made-up events with known faults; records onto the topic, and off it."""
