"""The connection to Kafka and its certificates."""
