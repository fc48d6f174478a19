"""What a workspace has and a laptop starts by itself: Kafka, a mailbox, Java, Spark."""
