"""Generators that sites train and release, one folder a generator."""
