"""The detectors over a CSV file."""
