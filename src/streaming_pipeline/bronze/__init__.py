"""Records of Kafka, as received."""
