"""Kafka events become monitored, scored Delta tables."""
