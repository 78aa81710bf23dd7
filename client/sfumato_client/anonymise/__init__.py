"""Anonymisation methods, one a file, in one table."""
