"""What is asked of the tables after each run; one question, one module."""
