"""A bundle's files, read and resolved as a deployment would."""
