"""What only a laptop needs; nothing outside this package and the command line imports it."""
