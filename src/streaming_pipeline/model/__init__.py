"""The anomaly model: its features, its training and its place in the registry."""
